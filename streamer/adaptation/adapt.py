"""The learning of one voice: epochs over examples, and a held-out part that decides.

A small amount of speech teaches a model its speaker within minutes, and makes it forget others
soon after. So it learns slowly, hears each example in new ways (`Augmentation`), and in the end
only goes as far from the old weights to the new ones as brings nearly all of the gain on the
held-out examples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What adaptation did on the held-out examples; `share` of the new weights was taken.

    With a share of 0 nothing got better, and the model has its old weights.
    """

    before: ErrorRates
    after: ErrorRates
    share: float

    @property
    def better(self) -> bool:
        """Whether the model changed."""
        return self.share > 0


def adapt(
    model: FineTuning,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    *,
    epochs: int | None = None,
    seed: int = 0,
    progress: Callable[[float, float], object] = lambda done, loss: None,
) -> Outcome:
    """Fine-tune a model, in place, on examples that its letters can spell.

    Args:
        model: what learns.
        examples: what it learns from.
        held_out: what decides; it never learns from them.
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
    before = rates(model, held_out)
    plan = [batch for _ in range(epochs) for batch in _batches(examples, order)]
    warm_up = max(1, len(plan) // 10)
    for step, batch in enumerate(plan):
        rate = RATE * min(1.0, (step + 1) / warm_up) * (1 - step / len(plan))
        loss = _learn(model, batch, augment, rate)
        progress((step + 1) / len(plan), loss)
    new = model.weights()
    reached = {0.0: before}
    for share in SHARES:
        model.mix(old, new, share)
        reached[share] = rates(model, held_out)
    share = _enough(reached)
    model.mix(old, new, share)
    return Outcome(before, reached[share], share)


def _enough(reached: dict[float, ErrorRates]) -> float:
    """The smallest share with nearly all of the gain; 0 where there is none.

    The last part of the way brings the speaker little and costs other voices most.
    """

    def gain(share: float) -> tuple[float, float]:
        return reached[0.0].wer - reached[share].wer, reached[0.0].cer - reached[share].cer

    best = max(gain(share) for share in SHARES)
    if best <= (0.0, 0.0):
        return 0.0
    words, _ = best
    return min(s for s in SHARES if gain(s) == best or (words > 0 and gain(s)[0] >= GAIN * words))


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
