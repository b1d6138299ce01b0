"""From a stream of samples to the windows worth recognizing.

Theory of operation. Every frame of 10 to 30 ms is *voiced* if the voice detector says so and the
frame stands out from the noise floor (the smallest smoothed level of the last seconds): the
detector alone calls steady noise speech. Decisions pass through hysteresis: an utterance opens
when enough recent frames are voiced, and stays open while a third of that number is. It begins
`pre_roll` before its first voiced frame and ends when none has been voiced for `hangover`; most
of that silence is not part of it. Soon after so much silence has been heard as would be part of it,
the whole utterance is asked for, as it will be final if nothing more is said: its text is ready
when the end is sure. In the second fifth of the maximum length the patience falls to a third:
people who talk on hardly rest for the whole hangover, and a breath is a better end than a split.
What comes soon after a breath *continues* the words before it and opens no sentence. While an
utterance is open and there is something new in it, previews are asked for at fixed distances from
its beginning. One that reaches the maximum length is split at its quietest place: the two parts are
recognized with overlapping context, and the next segment continues where the first was cut.

Every decision depends on frame positions alone, so the windows are the same however the input
was split into blocks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from streamer.messages import SAMPLE_RATE, Window

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.core.ctc import FrameGrid
    from streamer.messages import Samples

    Detector: TypeAlias = Callable[[Samples], bool]
    """A stateful voice detector: asked about every frame once, in order."""

SPLIT_CONTEXT_MS = 960
"""Audio recognized on the far side of a split. Beyond it this family's emissions hardly change."""
EDGE_CONTEXT_MS = 800
"""Emissions this close to the left edge of a window that begins inside speech are not used."""
POST_ROLL_MS = 240
"""Silence after the last voiced frame that still belongs to the utterance."""
LONGER_MS = 40
"""How much longer a pause must be than that before the whole utterance is asked for: in a chapter
read without a rest this saves half of the looks that more speech makes useless, a twentieth of all
computing."""
DETECTOR_LAG_MS = 80
"""How long webrtcvad goes on to say voice after a sharp end: 80 to 120 ms at modes 2 and 3, 100 to
180 at the others. So much of the hangover has passed when the first frame is not voiced."""
FLOOR_MEMORY_MS = 8_000
"""How long the noise floor remembers: longer than anybody speaks without a dip."""
FLOOR_LEARNING_MS = 1_500
"""Before so much has been heard the floor is unknown and gates nothing."""
ABOVE_FLOOR_DB = 6.0
LOWEST_FLOOR_DB = -75.0
"""Below this a room is silent: the noise of good microphones must not pass for level."""
SMOOTHING_MS = 100
"""The level is averaged over this much before it is compared: a glottal pulse is no dip."""
PADDING_LEVEL = 1e-4
"""Amplitude of the noise that completes the last frame of a stream; zeros would be a new sound."""


class Segmenter:
    """Finds utterances in 16 kHz audio and asks for their windows.

    Args:
        settings: frame length, hysteresis, pre-roll, hangover, lengths and cadence.
        grid: which window lengths and distances the model wants.
        detector: voice detector for frames of `settings.vad_frame_ms`.
        previews: whether to ask for windows of utterances that are still open.
    """

    def __init__(
        self, settings: Settings, grid: FrameGrid, detector: Detector, *, previews: bool = True
    ) -> None:
        self._grid = grid
        self._detector = detector
        self._previews = previews
        self._frame = _samples(settings.vad_frame_ms)
        onset_frames = -(-settings.min_speech_ms // settings.vad_frame_ms)
        self._open_at = onset_frames
        self._keep_at = max(1, onset_frames // 3)
        self._recent: deque[bool] = deque(maxlen=onset_frames * 3 // 2)
        self._floor = _NoiseFloor(settings.vad_frame_ms)
        self._pre_roll = _samples(settings.pre_roll_ms)
        lag_ms = min(DETECTOR_LAG_MS, settings.hangover_ms // 2)
        self._hangover = _samples(settings.hangover_ms - lag_ms)
        self._post_roll = _samples(POST_ROLL_MS)
        self._longer = _samples(LONGER_MS)
        self._longest = settings.max_utterance_s * SAMPLE_RATE
        self._context = _on_stride(_samples(SPLIT_CONTEXT_MS), grid)
        self._cadence = _on_stride(_samples(settings.preview_ms), grid)
        self._edge = _on_stride(_samples(EDGE_CONTEXT_MS), grid)
        self._reach = _on_stride(_samples(settings.preview_window_ms), grid)

        self._tape = _Tape()
        self._position = 0  # end of the last judged frame
        self._released = 0  # nothing before this may belong to a new utterance
        self._next_segment = 0
        self._onset: int | None = None  # None: no utterance is open
        self._follows_split = False
        self._continues = False  # see Window
        self._resumable_until = 0  # a voiced frame before this continues the one that was closed
        self._last_voiced = 0
        self._likely_end: int | None = None  # of the open utterance, if nothing more is said
        self._next_preview = 0
        self._previewed = 0  # end of the frames that the open utterance's previews have covered
        self._levels: list[float] = []  # power of each frame of the open utterance

    def push(self, samples: Samples) -> list[Window]:
        """Take samples of shape (n,), give the windows that have become due."""
        self._tape.append(samples)
        windows: list[Window] = []
        while self._tape.end - self._position >= self._frame:
            frame = self._tape.cut(self._position, self._position + self._frame)
            self._position += self._frame
            windows += self._judge(frame)
        self._tape.forget(self._needed_from())
        return windows

    def flush(self) -> list[Window]:
        """End the stretch of audio: the open utterance, if there is one, is complete."""
        if self._onset is None and sum(self._recent) >= self._keep_at:
            self._open()
        self._position = self._tape.end
        windows = [] if self._onset is None else [self._close(self._tape.end)]
        self._recent.clear()
        return windows

    def skip_to(self, position: int) -> None:
        """Go on at a later model sample after a gap. Call `flush` first."""
        self._tape = _Tape(position)
        self._position = position
        # What was resampled before the gap may reach a sample beyond a very short one.
        self._released = max(position, self._released)
        self._resumable_until = 0

    def _judge(self, frame: Samples) -> list[Window]:
        power = float(np.dot(frame, frame)) / self._frame
        # The detector is stateful: it must hear every frame, also those the floor rules out.
        detected = self._detector(frame)
        self._recent.append(detected and self._floor.exceeded_by(power))
        voiced = sum(self._recent)
        if self._onset is None:
            if voiced < self._open_at:
                return []
            self._open()
            return self._preview()
        self._levels.append(power)
        if voiced >= self._keep_at and self._recent[-1]:
            self._last_voiced, self._likely_end = self._position, None
        if self._position - self._last_voiced >= self._patience():
            return [self._close(self._end())]
        if self._position - self._onset >= self._longest:
            return [self._split(), *self._look()]
        return self._look()

    def _look(self) -> list[Window]:
        return self._foresee_end() or self._preview()

    def _end(self) -> int:
        """Where the open utterance ends, if nothing more is said."""
        if self._likely_end is not None:
            return self._likely_end
        room = max(0, self._patience() - self._grid.stride - self._frame)
        return self._last_voiced + min(self._post_roll, room)

    def _foresee_end(self) -> list[Window]:
        """The window that will be the last one, once all of it has been heard."""
        assert self._onset is not None
        if self._likely_end is not None or self._last_voiced <= self._onset:
            return []  # it is known, or nothing has been said since a split
        end = self._end()
        heard = self._window_start() + self._grid.fit(end - self._window_start())
        latest = self._last_voiced + self._patience() - self._frame
        if self._position < max(heard, min(heard + self._longer, latest)):
            return []
        self._likely_end = end
        return [self._whole(end, last=False)] if self._previews else []

    def _patience(self) -> int:
        """Unvoiced samples that end the open utterance: fewer when it has become long."""
        assert self._onset is not None
        fifth = self._longest // 5
        surplus = min(max(0, self._position - self._onset - fifth), fifth)
        return self._hangover - self._hangover * 2 * surplus // (3 * fifth)

    def _open(self) -> None:
        first_voiced = self._position - (len(self._recent) - self._recent.index(True)) * self._frame
        self._onset = max(first_voiced - self._pre_roll, self._released, self._tape.start)
        self._follows_split = False
        self._continues = first_voiced < self._resumable_until
        self._last_voiced, self._likely_end = self._position, None
        frames = -(-(self._position - self._onset) // self._frame)
        oldest = self._tape.cut(self._position - frames * self._frame, self._position)
        oldest = np.concatenate((np.zeros(frames * self._frame - len(oldest), np.float32), oldest))
        self._levels = (oldest.reshape(frames, self._frame) ** 2).mean(axis=1).tolist()
        shortest = self._grid.fit(0)
        elapsed = max(shortest, self._position - self._onset)
        self._next_preview = self._onset + self._grid.fit(elapsed - self._grid.stride + 1)
        self._previewed = self._onset

    def _preview(self) -> list[Window]:
        assert self._onset is not None
        windows: list[Window] = []
        while self._position >= self._next_preview:
            end = self._next_preview
            self._next_preview += self._cadence
            if not self._previews or self._likely_end is not None:
                continue
            earliest = self._window_start()
            covered = end - (self._grid.receptive - self._grid.hop)
            # Further back than the setting says where frames would fall between two previews.
            begin = min(covered - self._reach, self._previewed - self._edge)
            surplus = max(0, begin - earliest)
            start = earliest + _on_stride(surplus, self._grid)
            left = max(self._onset - start, self._edge if surplus else 0)
            self._previewed = covered
            windows.append(self._window(start, end, left=left, offset=end, right=0, last=False))
        return windows

    def _window_start(self) -> int:
        """Where windows of the whole open utterance begin."""
        assert self._onset is not None
        return self._onset - (self._context if self._follows_split else 0)

    def _whole(self, end: int, *, last: bool) -> Window:
        assert self._onset is not None
        start = self._window_start()
        stop = start + self._grid.fit(max(end, self._onset) - start)
        return self._window(
            start,
            stop,
            left=self._onset - start,
            offset=min(stop, self._tape.end),
            right=0,
            whole=True,
            last=last,
        )

    def _close(self, end: int) -> Window:
        window = self._whole(end, last=True)
        self._released = window.offset
        self._resumable_until = self._last_voiced + self._hangover
        self._onset = None
        self._next_segment += 1
        # Voiced frames of this utterance must not open another one.
        while len(self._recent) * self._frame > self._position - self._last_voiced:
            self._recent.popleft()
        return window

    def _split(self) -> Window:
        assert self._onset is not None
        cut = self._quietest_place()
        start = self._window_start()
        edge = self._grid.receptive - self._grid.hop
        right = (self._position - cut - edge) // self._grid.stride * self._grid.stride
        right = min(self._context, right)
        window = self._window(
            start,
            cut + right + edge,
            left=self._onset - start,
            offset=cut,
            right=right,
            last=True,
        )
        # Counted from the end, where levels and position agree: a cut may lie inside a frame.
        self._levels = self._levels[(cut - self._position) // self._frame :]
        self._onset, self._likely_end = cut, None
        self._released = cut
        self._follows_split = self._continues = True
        self._next_segment += 1
        self._next_preview = cut + self._grid.fit(self._position - cut - self._grid.stride + 1)
        return window

    def _quietest_place(self) -> int:
        """A stride-aligned sample in the later half of the open utterance, context to spare."""
        assert self._onset is not None
        width = max(1, _samples(2 * SMOOTHING_MS) // self._frame)
        smooth = np.convolve(self._levels, np.ones(width) / width, mode="same")
        first = len(smooth) // 2
        stop = max(first + 1, len(smooth) - self._context // self._frame)
        quietest = first + int(np.argmin(smooth[first:stop]))
        middle = self._position - (len(smooth) - quietest) * self._frame + self._frame // 2
        return self._onset + _on_stride(middle - self._onset, self._grid)

    def _window(
        self,
        start: int,
        end: int,
        *,
        left: int,
        offset: int,
        right: int,
        whole: bool = False,
        last: bool,
    ) -> Window:
        assert self._onset is not None
        samples = self._tape.cut(start, min(end, self._tape.end))
        missing = end - start - len(samples)
        if missing:
            noise = np.random.default_rng(0).standard_normal(missing) * PADDING_LEVEL
            samples = np.concatenate((samples, noise.astype(np.float32)))
        return Window(
            segment=self._next_segment,
            onset=self._onset,
            offset=offset,
            start=start,
            samples=samples,
            left=left // self._grid.hop,
            right=right // self._grid.hop,
            whole=whole,
            last=last,
            continues=self._continues,
            due=self._position,
        )

    def _needed_from(self) -> int:
        if self._onset is not None:
            return self._onset - self._context
        undecided = (self._recent.maxlen or 0) * self._frame
        return max(self._released, self._position - undecided - self._pre_roll - self._frame)


class _NoiseFloor:
    """Smallest smoothed level of the last seconds; speech stands out from it."""

    def __init__(self, frame_ms: int) -> None:
        self._smooth: deque[float] = deque(maxlen=max(1, SMOOTHING_MS // frame_ms))
        self._learning = FLOOR_LEARNING_MS // frame_ms
        # Minima of half-second bins: the exact moment at which a minimum is forgotten is of no
        # importance, the cost of a frame is.
        self._bin = 500 // frame_ms
        self._minima: deque[float] = deque(maxlen=FLOOR_MEMORY_MS // 500)
        self._heard = 0

    def exceeded_by(self, power: float) -> bool:
        """Take the mean square of the next frame; say whether the level stands out."""
        self._smooth.append(power)
        level = sum(self._smooth) / len(self._smooth)
        if self._heard % self._bin == 0:
            self._minima.append(level)
        self._minima[-1] = min(self._minima[-1], level)
        self._heard += 1
        if self._heard <= self._learning:
            return True
        floor = max(min(self._minima), 10 ** (LOWEST_FLOOR_DB / 10))
        return level > floor * 10 ** (ABOVE_FLOOR_DB / 10)


class _Tape:
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
        """Samples `start` to `end`; a start before the tape's is moved up to it."""
        start = max(start, self.start)
        return self._data[start - self.start : end - self.start]

    def forget(self, before: int) -> None:
        surplus = min(before, self.end) - self.start
        if surplus > 0:
            self._data = self._data[surplus:]
            self.start += surplus


def _samples(milliseconds: int) -> int:
    return milliseconds * SAMPLE_RATE // 1000


def _on_stride(samples: int, grid: FrameGrid) -> int:
    return max(0, -(-samples // grid.stride)) * grid.stride
