"""The learning of one voice: epochs over examples; held-out speech and other voices decide.

A small amount of speech teaches a model its speaker within minutes, and makes it forget others
soon after. So it learns slowly, hears each example in new ways (`Augmentation`), and in the end
only goes as far from the old weights to the new ones as brings nearly all of the gain on the
held-out examples, and never so far that it hears other voices much worse than before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from streamer.adaptation.augmentation import Augmentation
from streamer.adaptation.spelling import spell
from streamer.core.ctc import decode
from streamer.corpora.examples import Example
from streamer.evaluation.metrics import ErrorRates, error_rates
from streamer.evaluation.padding import faint_noise
from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from streamer.core.ctc import FrameGrid
    from streamer.messages import Samples
    from streamer.recognition.finetuning import FineTuning

BATCH_SECONDS = 24.0
HEARD_SECONDS = 12_000.0
"""Of sound in all, where no number of epochs is given."""
RATE = 4e-4
"""Of learning, at its highest."""
STRENGTH = 0.2
"""Of augmentation: the voice and the room are to be learned, not averaged away."""
LENGTH_STEP = SAMPLE_RATE // 2
"""Batches come in few lengths: for each new one the kernels are built anew."""
SHARES = (1.0, 0.75, 0.5, 0.25)
"""How far the way from the old weights to the new ones may be gone."""
GAIN = 0.9
"""The share of the best gain that is enough."""
FORGOTTEN = 0.05
"""Of the letters of other voices that were right before, how many may be wrong after. Ten minutes
of a new voice, gone three quarters of the way, cost 0.044 of the bundled reader's and one in ten
more words wrong of 60 sentences by other voices; gone all the way, 0.074 and one in five."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What adaptation did; `share` of the new weights was taken.

    With a share of 0 the model has its old weights: nothing got better, or, with `held_back`, only
    at too high a price for other voices.

    Attributes:
        before, after: on the held-out examples.
        others_before, others_after: on other voices; `None` where the model cannot spell what
            they say.
        share: 0 to 1.
        held_back: whether other voices kept it from going further.
    """

    before: ErrorRates
    after: ErrorRates
    others_before: ErrorRates | None
    others_after: ErrorRates | None
    share: float
    held_back: bool

    @property
    def better(self) -> bool:
        """Whether the model changed."""
        return self.share > 0


def adapt(
    model: FineTuning,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    others: Sequence[Example],
    *,
    epochs: int | None = None,
    seed: int = 0,
    progress: Callable[[float, float], object] = lambda done, loss: None,
) -> Outcome:
    """Fine-tune a model, in place, on examples that its letters can spell.

    Args:
        model: what learns.
        examples: what it learns from.
        held_out: what decides how far to go; it never learns from them.
        others: speech of other voices, which limits that; the model need not be able to spell it.
        epochs: how often each example is heard; where not given, `HEARD_SECONDS` in all, but 3 to
            20 times.
        seed: of everything drawn.
        progress: called after each step with the share done, 0 to 1, and the step's loss.
    """
    order, chance = random.Random(seed), np.random.default_rng(seed)
    augment = Augmentation(chance, STRENGTH)
    if epochs is None:
        epochs = max(3, min(20, round(HEARD_SECONDS / seconds(examples))))
    old = model.weights()
    others = [example for example in others if spell(example.text, model.vocabulary)]
    reached = {0.0: _reached(model, held_out, others)}
    plan = [batch for _ in range(epochs) for batch in _batches(examples, order)]
    warm_up = max(1, len(plan) // 10)
    for step, batch in enumerate(plan):
        rate = RATE * min(1.0, (step + 1) / warm_up) * (1 - step / len(plan))
        loss = _learn(model, batch, augment, rate)
        progress((step + 1) / len(plan), loss)
    new = model.weights()
    for share in SHARES:
        model.mix(old, new, share)
        reached[share] = _reached(model, held_out, others)
    share, held_back = choose(reached)
    model.mix(old, new, share)
    (before, others_before), (after, others_after) = reached[0.0], reached[share]
    return Outcome(before, after, others_before, others_after, share, held_back)


Reached = tuple[ErrorRates, ErrorRates | None]
"""On held-out examples and on other voices, where there are any."""


def choose(reached: Mapping[float, Reached]) -> tuple[float, bool]:
    """How far to go, and whether other voices kept it from going further.

    The smallest share with nearly all of the gain that can be had, 0 where there is none: the last
    part of the way brings the speaker little and costs other voices most.

    Args:
        reached: what each share came to, 0 among them.
    """

    def gain(share: float) -> tuple[float, float]:
        before, after = reached[0.0][0], reached[share][0]
        return before.wer - after.wer, before.cer - after.cer

    def enough(shares: Collection[float]) -> float:
        best = max(map(gain, shares))
        if best <= (0.0, 0.0):
            return 0.0
        words = GAIN * best[0]
        return min(s for s in shares if gain(s) == best or gain(s)[0] >= words > 0)

    kept = [share for share, (_, others) in reached.items() if _remembers(reached[0.0][1], others)]
    share = enough(kept)
    return share, share < enough(reached)


def _remembers(before: ErrorRates | None, after: ErrorRates | None) -> bool:
    """Whether other voices are heard nearly as well as before."""
    if before is None or after is None:
        return True
    return after.cer - before.cer <= FORGOTTEN * max(0.0, 1 - before.cer)


def _reached(model: FineTuning, held_out: Sequence[Example], others: Sequence[Example]) -> Reached:
    return rates(model, held_out), rates(model, others) if others else None


def seconds(examples: Sequence[Example]) -> float:
    """How long the examples are in all."""
    return sum(example.seconds for example in examples)


def rates(model: FineTuning, examples: Sequence[Example]) -> ErrorRates:
    """Error rates of the model as it is, greedily, each example whole."""
    said, heard = [], []
    for example in examples:
        said.append(_letters(model, example))
        samples = _fitted(example.samples, model.grid)
        words = decode(model.log_probs(samples), model.vocabulary)
        heard.append(" ".join(word.text for word in words))
    return error_rates(said, heard)


def _letters(model: FineTuning, example: Example) -> str:
    """The text as the model would write it."""
    tokens, delimiter = model.vocabulary.tokens, model.vocabulary.delimiter
    numbers = spell(example.text, model.vocabulary) or ()
    return "".join(" " if number == delimiter else tokens[number] for number in numbers)


def _fitted(samples: Samples, grid: FrameGrid) -> Samples:
    """With faint noise after it, to a length without a partial frame."""
    filling = grid.fit(len(samples)) - len(samples)
    return np.concatenate([samples, faint_noise(samples, filling)])


def _batches(examples: Sequence[Example], order: random.Random) -> Iterator[list[Example]]:
    """Each example once, those of about one length together, in a new order."""
    mixed = sorted(examples, key=lambda e: len(e.samples) * order.uniform(0.9, 1.1))
    batches: list[list[Example]] = [[]]
    for example in mixed:
        size = (len(batches[-1]) + 1) * len(example.samples)
        if batches[-1] and size > BATCH_SECONDS * SAMPLE_RATE:
            batches.append([])
        batches[-1].append(example)
    order.shuffle(batches)
    return iter(batches)


def _learn(
    model: FineTuning, batch: Sequence[Example], augment: Augmentation, rate: float
) -> float:
    clips = [augment(example.samples).samples for example in batch]
    length = -(-max(map(len, clips)) // LENGTH_STEP) * LENGTH_STEP
    rows = augment.faint((len(clips), model.grid.fit(length)))
    for row, clip in zip(rows, clips, strict=True):
        row[: len(clip)] = clip
    frames = [max(1, model.grid.frames(len(clip))) for clip in clips]
    targets = [spell(example.text, model.vocabulary) or () for example in batch]
    return model.step(rows, frames, targets, rate)
