"""One stream's whole state, free of I/O.

    session.feed(block)                -> takes audio, or the news that some is missing
    session.pending(now)               -> windows to recognize
    session.accept(window, reading)    -> takes what was recognized of one
    session.events()                   -> what can be shown

Theory of operation. The recognizer is called in between, by whoever drives the session: in real
time for a microphone, faster for a file, batched with others on a server. Windows, gaps and the
end of the stream wait in one queue, in their order. `pending` gives the next window, or as many
final ones as follow each other; they must be accepted, in their order, before more are given. A
preview that is older than the cadence is left out there, and nowhere else. What was recognized of
a likely final window is kept: if nothing more was said, the final one needs no recognizer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from streamer.core.highpass import HighPass
from streamer.core.resample import Resampler
from streamer.core.window_planner import WindowPlanner
from streamer.errors import InputError
from streamer.messages import (
    SAMPLE_RATE,
    Block,
    Event,
    Final,
    Gap,
    Partial,
    SessionEnded,
    Window,
    spaced,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamer.config import Settings
    from streamer.core.endpointer import Detector
    from streamer.core.hypothesis import Hypothesis
    from streamer.core.window_planner import WindowShape
    from streamer.messages import Reading


def require_numbers(block: Block, rate: int) -> None:
    """Raise an `InputError` that says where, if a sample of the block is not a finite number."""
    bad = np.flatnonzero(~np.isfinite(block.samples))
    if len(bad):
        at = (block.start + int(bad[0])) / rate
        raise InputError(f"the audio holds a sample that is no number (NaN) at {at:.3f} s")


@dataclass(slots=True)
class Counts:
    """What a session has asked of its recognizer so far."""

    previews: int = 0
    """Windows of open utterances that were recognized."""
    dropped: int = 0
    """Those that came too late to be of use."""
    segments_s: float = 0.0
    """Seconds of finished segments, whether they turned out to be speech or noise."""


class Session:
    """Audio at `source_rate` in, events out; the four verbs are above.

    Args:
        source_rate: samples a second of the blocks.
        settings: endpointing and cadence.
        shape: which windows the recognizer wants.
        hypothesis: of the first utterance; the others follow from it.
        detector: a voice detector of this session's own.
        previews: whether partial transcripts are wanted.
        lane: the name that its events bear.

    Event times are seconds on the stream's clock; `at` is the stream time of the sample that made
    the event possible, which a driver with a real clock replaces by the time it is shown.
    """

    def __init__(
        self,
        source_rate: int,
        settings: Settings,
        shape: WindowShape,
        hypothesis: Hypothesis,
        detector: Detector,
        *,
        previews: bool = True,
        lane: str = "",
    ) -> None:
        self.counts = Counts()
        self._rate = source_rate
        self._lane = lane
        self._patience_s = max(settings.preview_ms, shape.preview_ms) / 1000
        self._resampler = Resampler(source_rate)
        self._high_pass = HighPass()
        self._planner = WindowPlanner(settings, shape, detector, previews=previews)
        self._hypothesis = hypothesis
        self._shown: tuple[str, str] = ("", "")
        self._queue: deque[_Due] = deque()
        self._given: deque[_Due] = deque()
        self._likely: tuple[Window, Reading] | None = None
        self._events: list[Event] = []
        self._unbroken_from = 0  # no audio is missing since this source sample
        self._received = 0
        self._finished = False
        self._lost = 0
        self._speech = 0
        self._retracted = 0

    @property
    def received(self) -> int:
        """Source samples so far, lost ones too."""
        return self._received

    def feed(self, item: Block | Gap) -> None:
        """Take the next block, or the news that audio is missing.

        Raises:
            InputError: a sample is not a finite number; the blocks before are not affected.
            ValueError: the item does not begin where the one before ended, or the stream has ended.
        """
        if self._finished:
            raise ValueError("the stream has ended")
        if item.start != self._received:
            raise ValueError(f"expected sample {self._received}, got {item.start}")
        if isinstance(item, Gap):
            self._skip(item)
            return
        require_numbers(item, self._rate)
        self._received = item.end
        samples = self._high_pass.push(self._resampler.push(item.samples))
        self._enqueue(self._planner.push(samples))

    def finish(self) -> None:
        """End the stream; nothing may be fed afterwards. The last event will be the account."""
        self._flush()
        self._finished = True
        self._queue.append(_Due(None))

    def pending(self, now: float | None = None) -> list[Window]:
        """The windows to be recognized next, none while such are awaited.

        Args:
            now: stream time in seconds, if late previews are to be left out.
        """
        if self._given:
            return []
        while self._queue:
            due = self._queue[0]
            window = due.item
            if not isinstance(window, Window):
                if self._given:
                    break
                self._pass_on(window)
            elif window.kind == "final":
                likely = self._likely_reading(window)
                if likely and not self._given:
                    self._close(due, window, likely)
                else:
                    self._give(due, window)
            elif now is not None and now - window.due / SAMPLE_RATE > self._patience_s:
                self.counts.dropped += 1
            elif self._given:
                break
            else:
                self._give(due, window)
                self._queue.popleft()
                break
            self._queue.popleft()
        return [due.item for due in self._given if isinstance(due.item, Window)]

    def accept(self, window: Window, reading: Reading) -> None:
        """Take what was recognized of the first of the windows that were given."""
        due = self._given.popleft()
        assert due.item is window, "windows are accepted in the order in which they were given"
        if window.kind == "final":
            self._close(due, window, reading)
            return
        self.counts.previews += 1
        if window.kind == "likely_final":
            self._likely = window, reading
        self._preview(due, window, reading)

    def events(self) -> list[Event]:
        """What has become known since this was last asked."""
        if not self._given:
            self._pass_on_all()
        events, self._events = self._events, []
        return events

    def _enqueue(self, windows: Sequence[Window]) -> None:
        for window in windows:
            # How much was received for a segment: later on that could include a gap.
            length = self._source(window.speech_end) - self._source(window.speech_start)
            self._queue.append(_Due(window, length, self._received))

    def _give(self, due: _Due, window: Window) -> None:
        # Nothing has been read yet of the utterances behind one whose final text is awaited.
        draft = () if self._given else self._hypothesis.draft
        self._given.append(replace(due, item=replace(window, draft=draft)))

    def _flush(self) -> None:
        samples = self._high_pass.push(self._resampler.flush())
        windows = self._planner.push(np.append(samples, self._high_pass.flush()))
        self._enqueue(windows + self._planner.flush())

    def _skip(self, gap: Gap) -> None:
        """Words are not joined across missing audio: the open utterance ends before it."""
        self._flush()
        self._received = self._unbroken_from = gap.end
        self._lost += gap.end - gap.start
        self._resampler = Resampler(self._rate)
        self._high_pass = HighPass()
        self._planner.skip_to(round(gap.end * SAMPLE_RATE / self._rate))
        self._queue.append(_Due(gap))

    def _pass_on_all(self) -> None:
        """Gaps and the end, once the windows before them have been accepted."""
        while self._queue and not isinstance(self._queue[0].item, Window):
            self._pass_on(self._queue.popleft().item)

    def _pass_on(self, item: Window | Gap | None) -> None:
        assert not isinstance(item, Window)
        self._events.append(replace(item, lane=self._lane) if item else self._account())

    def _account(self) -> SessionEnded:
        return SessionEnded(
            captured=self._received,
            speech=self._speech,
            silence=self._received - self._lost - self._speech,
            lost=self._lost,
            rate=self._rate,
            retracted=self._retracted,
            lane=self._lane,
        )

    def _likely_reading(self, final: Window) -> Reading | None:
        if self._likely is None:
            return None
        window, reading = self._likely
        asked = window.segment, window.start, len(window.samples)
        return reading if asked == (final.segment, final.start, len(final.samples)) else None

    def _preview(self, due: _Due, window: Window, reading: Reading) -> None:
        preview = self._hypothesis.update(window, reading)
        self._planner.settle(window.segment, self._hypothesis.settled_until)
        shown = spaced(preview.stable), spaced(preview.tentative)
        if shown == self._shown:
            return
        self._shown = shown
        self._events.append(
            Partial(
                segment=window.segment,
                start=_seconds(window.speech_start),
                end=self._until(window.speech_end, due.received),
                stable=shown[0],
                tentative=shown[1],
                at=_seconds(window.due),
                lane=self._lane,
            )
        )

    def _close(self, due: _Due, window: Window, reading: Reading) -> None:
        self.counts.segments_s += _seconds(window.speech_end - window.speech_start)
        final = self._hypothesis.close(window, reading)
        self._hypothesis = self._hypothesis.following()
        self._planner.settle(window.segment + 1, self._hypothesis.settled_until)
        self._likely = None
        self._retracted += final.retracted
        was_shown, self._shown = self._shown != ("", ""), ("", "")
        if final.words:
            self._speech += due.length
        elif not was_shown:
            return
        end = self._until(final.end, due.received)
        self._events.append(
            Final(
                segment=window.segment,
                start=_seconds(final.start),
                end=end,
                text=spaced([word.word for word in final.words]),
                raw=final.raw,
                words=tuple(
                    replace(word, start=min(word.start, end), end=min(word.end, end))
                    for word in final.words
                ),
                at=_seconds(window.due),
                lane=self._lane,
            )
        )

    def _until(self, model_sample: int, received: int) -> float:
        """Windows are as long as a network wants; nothing ends after the audio."""
        return min(_seconds(model_sample), received / self._rate)

    def _source(self, model_sample: int) -> int:
        """Of the audio since the last gap, the source sample that is nearest."""
        nearest = round(model_sample * self._rate / SAMPLE_RATE)
        return min(max(nearest, self._unbroken_from), self._received)


@dataclass(frozen=True, slots=True)
class _Due:
    """What waits its turn: a window, a gap or the end.

    Of a window: how many source samples its segment has, and how many were received when it was
    asked for.
    """

    item: Window | Gap | None
    length: int = 0
    received: int = 0


def _seconds(model_sample: int) -> float:
    return model_sample / SAMPLE_RATE
