"""How soon, how stably and how finally words appear: a pure reading of a session's events.

The truth of *when* is the offline alignment of the same model (`TimedWord`); the truth of *what*
is the same model's offline text, so that these figures say what streaming does, whatever the
weights are worth. Words are compared as they are scored, without case and punctuation.
Definitions, each over all words of all recordings:

    word delay         first time that a partial or final shows the word (right word, right place)
                       minus the word's end in the audio
    settle delay       the same for the first time that the word is stable
    final delay        end of the segment's speech to the final that covers it
    first-word delay   start of the segment's speech to its first non-empty partial or final
    UPWR               unstable partial words: words shown in a partial that the final does not
                       have at that place, each counted once, over final words
    retracted          stable words that the final contradicts, over final words
    stable early       of the words of finals of more than `LONG_S`, the share that was stable at
                       its place in a partial of the segment

A word belongs to the segment in whose final's span its middle lies, and cannot be shown before
audio has been heard from where it begins. Where one segment begins at the sample at which another
ended, an utterance may have been split: what partials have shown of the audio behind the cut is
judged by the next segment's words, and no speech begins with a word that was already shown.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rapidfuzz.distance import Levenshtein

from streamer.core.hypothesis import beginning, contradicted
from streamer.evaluation.metrics import scored
from streamer.messages import Event, Final, Partial

LONG_S = 4.0
"""In shorter segments few words have had the time to become stable."""


@dataclass(frozen=True, slots=True)
class TimedWord:
    """A word of the offline text, as scored; `start` and `end` in seconds of the recording."""

    text: str
    start: float
    end: float


def timed_words(text: str, start: float, end: float) -> list[TimedWord]:
    """The scored words of one written one: "well-known" is two, which share its time by length."""
    parts = scored(text).split()
    letters = sum(map(len, parts))
    found: list[TimedWord] = []
    heard = 0
    for part in parts:
        first, heard = heard, heard + len(part)
        begin, stop = (start + (end - start) * so_far / letters for so_far in (first, heard))
        found.append(TimedWord(part, begin, stop if heard < letters else end))
    return found


@dataclass(slots=True)
class Delays:
    """What the sessions of one policy showed, and when; seconds, one entry a word or segment."""

    word: list[float] = field(default_factory=list)
    settle: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)
    first_word: list[float] = field(default_factory=list)
    unstable: int = 0
    """Words shown in a partial and not in the final at that place."""
    retracted: int = 0
    final_words: int = 0
    long_words: int = 0
    """Final words of segments of more than `LONG_S`."""
    stable_early: int = 0
    """Those of them that were stable in a partial."""
    never_shown: int = 0
    """Offline words that no event shows at their place: they have no delay."""

    @property
    def upwr(self) -> float:
        """Unstable partial words over final words."""
        return self.unstable / max(1, self.final_words)

    @property
    def retracted_share(self) -> float:
        """Contradicted stable words over final words."""
        return self.retracted / max(1, self.final_words)

    @property
    def stable_early_share(self) -> float | None:
        """Words of long finals that were stable before, over all of them; nothing of none."""
        return self.stable_early / self.long_words if self.long_words else None

    def take(self, events: Sequence[Event], offline: Sequence[TimedWord]) -> None:
        """Add one recording: what a session showed, and its offline words in order of time."""
        parts: dict[int, list[Partial | Final]] = {}
        for event in events:
            if isinstance(event, Partial | Final):
                parts.setdefault(event.segment, []).append(event)
        segments = [_Segment(its_events) for its_events in parts.values()]
        seen: dict[int, float] = {}
        settled: dict[int, float] = {}
        for segment, after in zip(segments, [*segments[1:], None], strict=False):
            behind = after if after is not None and after.start == segment.end else None
            self._take_times(segment, behind, offline, seen, settled)
            self._take_stability(segment, behind)
        self.word += [at - offline[place].end for place, at in seen.items()]
        self.settle += [at - offline[place].end for place, at in settled.items()]
        self.never_shown += len(offline) - len(seen)

    def _take_times(
        self,
        segment: _Segment,
        behind: _Segment | None,
        offline: Sequence[TimedWord],
        seen: dict[int, float],
        settled: dict[int, float],
    ) -> None:
        """Note when which word of `offline`, by its number, was first seen and first settled."""
        mine = segment.places(offline)
        if mine and segment.finished_at is not None:
            self.final.append(segment.finished_at - offline[mine[-1]].end)
        if mine and mine[0] not in seen and segment.first_shown_at is not None:
            self.first_word.append(segment.first_shown_at - offline[mine[0]].start)
        places = [*mine, *(behind.places(offline) if behind else [])]
        for event in segment.events:
            stable, words = _words(event)
            begun = [place for place in places if offline[place].start < event.end]
            for place, number in matches([offline[place].text for place in begun], words):
                seen.setdefault(begun[place], event.at)
                if number < len(stable):
                    settled.setdefault(begun[place], event.at)

    def _take_stability(self, segment: _Segment, behind: _Segment | None) -> None:
        if segment.finished_at is None:
            return
        final = [*segment.final_words, *(behind.final_words if behind else [])]
        wrong: Counter[tuple[int, str]] = Counter()
        stable: list[str] = []
        for event in segment.events:
            if isinstance(event, Partial):
                stable, words = _words(event)
                wrong |= _misplaced(final, words)
        self.final_words += len(segment.final_words)
        self.unstable += wrong.total()
        self.retracted += contradicted(stable, final)
        if segment.end - segment.start > LONG_S:
            own = segment.final_words
            self.long_words += len(own)
            self.stable_early += sum(place < len(own) for place, _ in matches(final, stable))


class _Segment:
    """The events of one segment, in order."""

    def __init__(self, events: Sequence[Partial | Final]) -> None:
        self.events = events
        finals = [event for event in events if isinstance(event, Final)]
        # Partials of an utterance that was split reach beyond the cut.
        spans = finals or events
        self.start = min(event.start for event in spans)
        self.end = max(event.end for event in spans)
        self.final_words = _words(finals[-1])[1] if finals else []
        self.finished_at = finals[-1].at if finals else None
        self.first_shown_at = next((event.at for event in events if _words(event)[1]), None)

    def places(self, offline: Sequence[TimedWord]) -> list[int]:
        """Which of the offline words, by number, belong to it."""
        return [
            place
            for place, word in enumerate(offline)
            if self.start <= (word.start + word.end) / 2 < self.end
        ]


def percentiles(values: Sequence[float]) -> dict[str, float | None]:
    """Median and 95th percentile; nothing of nothing."""
    if not values:
        return {"p50": None, "p95": None}
    p50, p95 = np.percentile(values, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def _words(event: Partial | Final) -> tuple[list[str], list[str]]:
    """The stable words of an event, and all of them, as scored."""
    if isinstance(event, Final):
        words = scored(event.text).split()
        return words, words
    stable = scored(event.stable).split()
    return stable, stable + scored(event.tentative).split()


def matches(truth: Sequence[str], shown: Sequence[str]) -> list[tuple[int, int]]:
    """Which words of `truth` stand in `shown` at their place: their numbers in both."""
    return [
        (block.src_start + offset, block.dest_start + offset)
        for block in Levenshtein.opcodes(_beginning(truth, shown), shown)
        if block.tag == "equal"
        for offset in range(block.src_end - block.src_start)
    ]


def _misplaced(final: Sequence[str], shown: Sequence[str]) -> Counter[tuple[int, str]]:
    """Words of `shown` that `final` has not at their place, each with that place."""
    wrong: Counter[tuple[int, str]] = Counter()
    for block in Levenshtein.opcodes(_beginning(final, shown), shown):
        if block.tag in ("replace", "insert"):
            for offset, word in enumerate(shown[block.dest_start : block.dest_end]):
                wrong[min(block.src_start + offset, block.src_end), word] += 1
    return wrong


def _beginning(whole: Sequence[str], shown: Sequence[str]) -> Sequence[str]:
    """The beginning of `whole` that `shown` is nearest to: a partial has not come to the end."""
    # What is more than twice as long differs in more words than nothing at all does.
    whole = whole[: 2 * len(shown)]
    return whole[: beginning(shown, whole)]
