"""Which spans of audio are worth recognizing, and when: from samples to windows.

Theory of operation. The endpointer says frame by frame where an utterance is open. While it is,
and there is something new in it, previews are asked for at fixed distances from its beginning.
Soon after so much silence has been heard as would be part of the utterance, the whole of it is
asked for, as it will be final if nothing more is said: its text is ready when the end is sure.
An utterance that was split is recognized with audio from both sides of the cut, where the model
wants that, and the next segment continues where the first was cut.

Every decision depends on frame positions alone, so the windows are the same however the input
was split into blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from streamer.core.endpointer import (
    Closed,
    Endpointer,
    Opened,
    Split,
    Utterance,
    samples_of,
)
from streamer.messages import SAMPLE_RATE, Window

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.core.ctc import FrameGrid
    from streamer.core.endpointer import Detector
    from streamer.messages import Samples, WindowKind

LONGER_MS = 40
"""How much longer a pause must be than what belongs to the utterance before the whole of it is
asked for: in a chapter read without a rest this saves half of the likely finals that more speech
makes useless, a twentieth of all computing."""
CUT_MARGIN_MS = 960
"""An utterance is not split nearer to its newest audio."""
PADDING_LEVEL = 1e-4
"""Amplitude of the noise that completes the last frame of a stream; zeros would be a new sound."""


@dataclass(frozen=True, slots=True)
class WindowShape:
    """Which windows a recognizer wants.

    `grid` says which lengths and distances fit; `context` and `edge` are samples, on its stride.
    `context` of audio beyond a split is recognized with either side. Previews of a model that
    `slides` reach back as far as the settings say, and at least `edge` behind what the one before
    has covered; others begin with the utterance, or where the hypothesis says that nothing changes
    any more.

    `hangover_ms` of silence end an utterance where the settings do not say otherwise. Previews are
    asked for no more often than every `preview_ms`. No utterance is longer than `longest_s`, unless
    that is 0.
    """

    grid: FrameGrid
    context: int = 0
    slides: bool = False
    edge: int = 0
    hangover_ms: int = 500
    preview_ms: int = 0
    longest_s: int = 0


class WindowPlanner:
    """Asks for the windows of the utterances in 16 kHz audio.

    Args:
        settings: endpointing, lengths and cadence.
        shape: the recognizer's.
        detector: voice detector for frames of `settings.vad_frame_ms`.
        previews: whether to ask for windows of utterances that are still open.
    """

    def __init__(
        self, settings: Settings, shape: WindowShape, detector: Detector, *, previews: bool = True
    ) -> None:
        self._grid = shape.grid
        self._shape = shape
        self._min_certainty = settings.min_certainty
        self._previews = previews
        self._context = shape.context
        self._cadence = _on_stride(
            samples_of(max(settings.preview_ms, shape.preview_ms)), shape.grid
        )
        self._reach = _on_stride(samples_of(settings.preview_window_ms), shape.grid)
        margin = max(self._context, _on_stride(samples_of(CUT_MARGIN_MS), shape.grid))
        self._endpointer = Endpointer(
            replace(
                settings,
                hangover_ms=settings.hangover_ms or shape.hangover_ms,
                max_utterance_s=min(
                    settings.max_utterance_s, shape.longest_s or settings.max_utterance_s
                ),
            ),
            detector,
            step=shape.grid.stride,
            margin=margin,
        )
        self._audio = _Audio()
        self._segment = 0  # the number of the open utterance, or of the next
        self._next_preview = 0
        self._previewed = 0  # end of the frames that the open utterance's previews have covered
        self._settled_until = 0  # previews need not begin earlier, where the shape does not slide

    def push(self, samples: Samples) -> list[Window]:
        """Take samples of shape (n,), give the windows that have become due."""
        self._audio.append(samples)
        windows: list[Window] = []
        frame = self._endpointer.frame
        while self._audio.end - self._endpointer.position >= frame:
            position = self._endpointer.position
            windows += self._due(self._endpointer.push(self._audio.cut(position, position + frame)))
        context = self._context if self._endpointer.utterance else 0
        self._audio.forget(self._endpointer.needed_from - context)
        return windows

    def flush(self) -> list[Window]:
        """End the stretch of audio: the open utterance, if there is one, is complete."""
        closed = self._endpointer.flush(self._audio.end)
        return [self._final(closed)] if closed else []

    def skip_to(self, position: int) -> None:
        """Go on at a later model sample after a gap. Call `flush` first."""
        self._audio = _Audio(position)
        self._endpointer.skip_to(position)

    def settle(self, segment: int, until: int) -> None:
        """Previews of a segment need nothing before model sample `until` any more."""
        if segment == self._segment:
            self._settled_until = until

    def _due(self, boundary: Opened | Closed | Split | None) -> list[Window]:
        """What the newest frame asks for."""
        if isinstance(boundary, Closed):
            return [self._final(boundary)]
        if isinstance(boundary, Split):
            return [self._split(boundary), *self._likely_final_or_preview()]
        if isinstance(boundary, Opened):
            self._begin(boundary.utterance)
            return self._preview()
        return self._likely_final_or_preview() if self._endpointer.utterance else []

    def _begin(self, utterance: Utterance) -> None:
        elapsed = max(self._grid.fit(0), self._endpointer.position - utterance.start)
        self._next_preview = utterance.start + self._grid.fit(elapsed - self._grid.stride + 1)
        self._previewed = self._settled_until = utterance.start

    def _likely_final_or_preview(self) -> list[Window]:
        return self._likely_final() or self._preview()

    def _likely_final(self) -> list[Window]:
        """The window that will be the final one, once all of it has been heard."""
        ears, utterance = self._endpointer, self._endpointer.utterance
        assert utterance
        if ears.end_is_fixed or utterance.last_voiced <= utterance.start:
            return []  # it was asked for, or nothing has been said since a split
        start = self._window_start(utterance)
        heard = start + self._grid.fit(ears.end - start)
        latest = utterance.last_voiced + ears.hangover - ears.frame
        if ears.position < max(heard, min(heard + samples_of(LONGER_MS), latest)):
            return []
        ears.fix_end()
        return [self._whole(utterance, ears.end, "likely_final")] if self._previews else []

    def _preview(self) -> list[Window]:
        utterance = self._endpointer.utterance
        assert utterance
        windows: list[Window] = []
        while self._endpointer.position >= self._next_preview:
            end = self._next_preview
            self._next_preview += self._cadence
            if not self._previews or self._endpointer.end_is_fixed:
                continue
            earliest = self._window_start(utterance)
            covered = end - (self._grid.receptive - self._grid.hop)
            if self._shape.slides:
                # Further back than the setting says where frames would fall between two previews.
                begin = min(covered - self._reach, self._previewed - self._shape.edge)
            else:
                begin = self._settled_until
            surplus = max(0, begin - earliest)
            start = earliest + surplus // self._grid.stride * self._grid.stride
            self._previewed = covered
            windows.append(self._window(utterance, start, end, end, "preview"))
        return windows

    def _window_start(self, utterance: Utterance) -> int:
        """Where windows of the whole utterance begin."""
        return utterance.start - (self._context if utterance.follows_split else 0)

    def _whole(self, utterance: Utterance, end: int, kind: WindowKind) -> Window:
        start = self._window_start(utterance)
        stop = start + self._grid.fit(max(end, utterance.start) - start)
        return self._window(utterance, start, stop, min(stop, self._audio.end), kind)

    def _final(self, closed: Closed) -> Window:
        window = self._whole(closed.utterance, closed.end, "final")
        self._endpointer.take(window.speech_end)
        self._segment += 1
        return window

    def _split(self, split: Split) -> Window:
        start = self._window_start(split.utterance)
        edge = self._grid.receptive - self._grid.hop
        position, stride = self._endpointer.position, self._grid.stride
        context = min(self._context, (position - split.cut - edge) // stride * stride)
        window = self._window(
            split.utterance, start, split.cut + context + edge, split.cut, "final", split=True
        )
        self._segment += 1
        self._next_preview = split.cut + self._grid.fit(position - split.cut - stride + 1)
        self._settled_until = split.cut
        return window

    def _window(
        self,
        utterance: Utterance,
        start: int,
        end: int,
        speech_end: int,
        kind: WindowKind,
        *,
        split: bool = False,
    ) -> Window:
        samples = self._audio.cut(start, min(end, self._audio.end))
        missing = end - start - len(samples)
        if missing:
            noise = np.random.default_rng(0).standard_normal(missing) * PADDING_LEVEL
            samples = np.concatenate((samples, noise.astype(np.float32)))
        return Window(
            segment=self._segment,
            start=start,
            samples=samples,
            speech_start=utterance.start,
            speech_end=speech_end,
            kind=kind,
            split=split,
            continues=utterance.continues,
            due=self._endpointer.position,
            min_certainty=self._min_certainty,
        )


class _Audio:
    """Audio addressed by absolute sample; what was cut from it is never overwritten."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.end = start
        self._data: Samples = np.zeros(4 * SAMPLE_RATE, np.float32)

    def append(self, samples: Samples) -> None:
        used = self.end - self.start
        if used + len(samples) > len(self._data):
            # Windows may still look at the old array, so it is left alone and a new one begun.
            grown = np.zeros(max(4 * SAMPLE_RATE, 2 * (used + len(samples))), np.float32)
            grown[:used] = self._data[:used]
            self._data = grown
        self._data[used : used + len(samples)] = samples
        self.end += len(samples)

    def cut(self, start: int, end: int) -> Samples:
        """Samples `start` to `end`; a start before the audio's is moved up to it."""
        start = max(start, self.start)
        return self._data[start - self.start : end - self.start]

    def forget(self, before: int) -> None:
        surplus = min(before, self.end) - self.start
        if surplus > 0:
            self._data = self._data[surplus:]
            self.start += surplus


def _on_stride(samples: int, grid: FrameGrid) -> int:
    return max(0, -(-samples // grid.stride)) * grid.stride
