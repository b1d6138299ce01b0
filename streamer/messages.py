"""The vocabulary of every room: what sources, core, recognizer and sinks say to each other.

Two clocks appear here, both integer counts of samples from the first captured sample:

* *source samples*, at the rate of the microphone or file (`Block`, `Gap`, `SessionEnded`);
* *model samples*, at `SAMPLE_RATE` (`Window`), which begin at the same instant.

Seconds are for people: `Word`, `Partial` and `Final` carry them as floats on the stream's own
clock (0 = first captured sample).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Samples: TypeAlias = npt.NDArray[np.float32]
    """Mono audio, shape (n,), nominally within -1 … 1."""
    LogProbs: TypeAlias = npt.NDArray[np.float32]
    """Natural logarithms of probabilities, shape (frames, vocabulary)."""

SAMPLE_RATE = 16_000
"""Samples a second that the models hear."""


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


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Model samples to be recognized for one segment.

    The segment reaches from model sample `onset` to `offset` (as far as it is known). `samples`
    begins at model sample `start`; its first `left` and last `right` emission frames lie outside
    the segment and are context only. A `last` window holds the whole segment and becomes its final
    text; any other is a preview and may be skipped. A `whole` one that is not the last will be
    asked for again as the last, sample for sample, if nothing more is said. The segment `continues`
    the words before it if they were cut for their length, at a split or in a pause shorter than the
    hangover: it opens no sentence. `due` is the model sample whose arrival asked for the window, so
    that lag can be measured.
    """

    segment: int
    onset: int
    offset: int
    start: int
    samples: Samples
    left: int
    right: int
    whole: bool
    last: bool
    continues: bool
    due: int

    @property
    def draft(self) -> bool:
        """Whether a draft of its emission will do, since no final text is made of it."""
        return not (self.whole or self.last)


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


Event: TypeAlias = SessionStarted | Partial | Final | Gap | SessionEnded
