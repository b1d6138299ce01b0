"""The vocabulary of every room: what sources, core, recognizer and sinks say to each other.

Two clocks appear here, both integer counts of samples from the first captured sample:

* *source samples*, at the rate of the microphone or file (`Block`, `Gap`, `SessionEnded`);
* *model samples*, at `SAMPLE_RATE` (`Window`), which begin at the same instant.

Seconds are for people: `Word`, `Partial` and `Final` carry them as floats on the stream's own
clock (0 = first captured sample). Every event names its `lane`; a session of one stream has none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples: TypeAlias = npt.NDArray[np.float32]
    """Mono audio, shape (n,), nominally within -1 … 1."""
    LogProbs: TypeAlias = npt.NDArray[np.float32]
    """Natural logarithms of probabilities, shape (frames, vocabulary)."""
    WindowKind: TypeAlias = Literal["preview", "likely_final", "final"]

SAMPLE_RATE = 16_000
"""Samples a second that the models hear."""
UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uff65]"
)
"""A character of a script without spaces: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""


def spaced(words: Sequence[str]) -> str:
    """Words as a text: with spaces between them, in scripts that have spaces."""
    text = ""
    for word in words:
        joined = not text or (UNSPACED.match(text[-1]) and UNSPACED.match(word))
        text += word if joined else f" {word}"
    return text


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Captured audio: `samples` mono float32, the first one at source sample `start`."""

    start: int
    samples: Samples

    @property
    def end(self) -> int:
        """Source sample just after the last one."""
        return self.start + len(self.samples)


@dataclass(frozen=True, slots=True)
class Gap:
    """Audio that never arrived: source samples `start` (inclusive) to `end` (exclusive).

    `reason` says why, and how its length is known:

    * `overflow`: the ring buffer was overwritten before it was read; exact.
    * `device-overflow`: the device says that it dropped samples; by its clock, or by the
      machine's where that shows more; at least one.
    * `interrupted`: fewer samples came than time went by, and nobody said so: the process was
      stopped, the machine suspended or overloaded; by the machine's clock.
    * `device-lost`: the device went away; by the machine's clock. A second gap of this reason
      that begins where the first ends is the same outage: the first is known at once.

    `rate` is the source's samples a second.
    """

    start: int
    end: int
    rate: int
    reason: str
    lane: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Model samples to be recognized for one segment of a stream.

    `samples` begins at model sample `start`. The segment reaches from model sample `speech_start`
    to `speech_end`, as far as it is known; what the window holds outside is context only.

    `kind` is `preview` (it may be skipped), `likely_final` (the whole utterance, asked for while
    the silence is still judged: if nothing more is said, it is the final window, sample for
    sample) or `final` (its text is the segment's). A `split` segment was cut for its length, so the
    talk goes on behind `speech_end`. One that `continues` follows such a cut, or a pause that was
    shorter than the hangover: it opens no sentence. `due` is the model sample whose arrival asked
    for the window, so that lag can be measured. `draft` holds the tokens that the segment's
    last reading gave: they make a decoder faster and never change its text. What is heard with less
    than `min_certainty` will be taken for noise, so that its text need not be worked out.
    """

    segment: int
    start: int
    samples: Samples
    speech_start: int
    speech_end: int
    kind: WindowKind
    split: bool
    continues: bool
    due: int
    draft: tuple[int, ...] = ()
    min_certainty: float = 0.0


@dataclass(frozen=True, slots=True)
class WrittenWord:
    """A word as an encoder-decoder wrote it, punctuation attached.

    `tokens` are its ids, `probability` is that of the least probable one, 0 … 1; tokens without a
    letter or digit do not count in a word that has others. `span` is when it was said, in samples
    of its window, of a writer that tells.
    """

    text: str
    tokens: tuple[int, ...]
    probability: float
    span: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a recognizer gives for one window.

    `emission` is a CTC network's: log-probabilities of shape (frames, vocabulary) for the window's
    samples. `words` are an encoder-decoder's. A recognizer with one ear gives one of them.
    """

    emission: LogProbs | None = None
    words: tuple[WrittenWord, ...] | None = None


@dataclass(frozen=True, slots=True)
class Word:
    """One recognized word: `start` and `end` in seconds, `confidence` 0 … 1."""

    word: str
    start: float
    end: float
    confidence: float


@dataclass(frozen=True, slots=True)
class SessionStarted:
    """First event: which `model` hears which `device`, at `source_rate` samples a second."""

    model: str
    device: str
    source_rate: int
    version: str
    lane: str = ""


@dataclass(frozen=True, slots=True)
class Partial:
    """A segment still being spoken. `stable` only grows within it, `tentative` may change.

    `start`, `end` (of what was heard) and `at` (when this was known) are seconds.
    """

    segment: int
    start: float
    end: float
    stable: str
    tentative: str
    at: float
    lane: str = ""


@dataclass(frozen=True, slots=True)
class Final:
    """A finished segment: `text` for people, `raw` as the model spells it, `words` with times.

    `text` may be empty: then what the partials showed turned out to be no speech.
    """

    segment: int
    start: float
    end: float
    text: str
    raw: str
    words: tuple[Word, ...]
    at: float
    lane: str = ""


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """Last event: the exact account, in source samples: captured = speech + silence + lost.

    `retracted` counts words that had been shown as stable and that a final text contradicted.
    """

    captured: int
    speech: int
    silence: int
    lost: int
    rate: int
    retracted: int
    lane: str = ""


Event: TypeAlias = SessionStarted | Partial | Final | Gap | SessionEnded
