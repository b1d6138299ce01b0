"""Where utterances begin and end: endpointing.

Theory of operation. Every frame of 10 to 30 ms is *voiced* if the voice detector says so and the
frame stands out from the noise floor (the smallest smoothed level of the last seconds): the
detector alone calls steady noise speech. Decisions pass through hysteresis: an utterance opens
when enough recent frames are voiced, and stays open while a third of that number is. It begins
`pre_roll` before its first voiced frame and ends when none has been voiced for `hangover`; most
of that silence is not part of it. In the second fifth of the maximum length the hangover falls to
a third: people who talk on hardly rest for all of it, and a breath is a better end than a split.
What comes soon after a breath *continues* the words before it. An utterance that reaches the
maximum length is split at its quietest place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.messages import Samples

    Detector: TypeAlias = Callable[[Samples], bool]
    """A stateful voice detector: asked about every frame once, in order."""

POST_ROLL_MS = 240
"""Silence after the last voiced frame that still belongs to the utterance."""
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


@dataclass(slots=True)
class Utterance:
    """The one that is open. `start` and `last_voiced` (the end of that frame) are model samples.

    See `messages.Window` for `continues`; `follows_split` where it was cut from the one before.
    """

    start: int
    last_voiced: int
    continues: bool
    follows_split: bool = False


@dataclass(frozen=True, slots=True)
class Opened:
    """Somebody speaks."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Closed:
    """The utterance ended at model sample `end`."""

    utterance: Utterance
    end: int


@dataclass(frozen=True, slots=True)
class Split:
    """The utterance became too long; it goes on as another one behind model sample `cut`."""

    utterance: Utterance
    cut: int


class Endpointer:
    """Finds utterances in 16 kHz audio, frame by frame.

    Args:
        settings: frame length, hysteresis, pre-roll, hangover and maximum length.
        detector: voice detector for frames of `settings.vad_frame_ms`.
        step: where an utterance may be cut, in samples from its beginning.
        margin: samples that must be left beyond both sides of a cut.

    Attributes:
        frame: samples of one decision.
        position: end of the last judged frame, in model samples.
        utterance: the open one.
    """

    def __init__(
        self,
        settings: Settings,
        detector: Detector,
        *,
        step: int,
        margin: int,
    ) -> None:
        self._detector = detector
        self._step, self._margin = step, margin
        self.frame = samples_of(settings.vad_frame_ms)
        opening = -(-settings.min_speech_ms // settings.vad_frame_ms)
        self._open_at = opening
        self._keep_at = max(1, opening // 3)
        self._recent: deque[bool] = deque(maxlen=opening * 3 // 2)
        self._floor = _NoiseFloor(settings.vad_frame_ms)
        self._pre_roll = samples_of(settings.pre_roll_ms)
        lag_ms = min(DETECTOR_LAG_MS, settings.hangover_ms // 2)
        self._hangover = samples_of(settings.hangover_ms - lag_ms)
        self._post_roll = samples_of(POST_ROLL_MS)
        self._longest = settings.max_utterance_s * SAMPLE_RATE

        self.position = 0
        self.utterance: Utterance | None = None
        self._taken = 0  # nothing before this may belong to a new utterance
        self._resumable_until = 0  # a voiced frame before this continues the one that was closed
        self._end: int | None = None  # of the open utterance, once it was fixed
        # Power of each frame that is or may become part of the open utterance.
        self._undecided = (self._recent.maxlen or 0) + self._pre_roll // self.frame + 2
        self._levels: list[float] = []

    @property
    def needed_from(self) -> int:
        """The first model sample that an utterance which is open, or opens next, may hold."""
        if self.utterance:
            return self.utterance.start
        undecided = (self._recent.maxlen or 0) * self.frame
        return max(self._taken, self.position - undecided - self._pre_roll - self.frame)

    @property
    def hangover(self) -> int:
        """Unvoiced samples that end the open utterance: fewer when it has become long."""
        assert self.utterance
        fifth = self._longest // 5
        surplus = min(max(0, self.position - self.utterance.start - fifth), fifth)
        return self._hangover - self._hangover * 2 * surplus // (3 * fifth)

    @property
    def end(self) -> int:
        """Where the open utterance ends, if nothing more is said."""
        assert self.utterance
        if self._end is not None:
            return self._end
        room = max(0, self.hangover - self._step - self.frame)
        end = self.utterance.last_voiced + min(self._post_roll, room)
        # A split may lie behind the last voiced frame: nothing was said in what is left.
        return max(end, self.utterance.start)

    @property
    def end_is_fixed(self) -> bool:
        """Whether `fix_end` was called since something was said."""
        return self._end is not None

    def fix_end(self) -> None:
        """Let the utterance end where it would now, unless more is said."""
        self._end = self.end

    def push(self, frame: Samples) -> Opened | Closed | Split | None:
        """Judge the next frame, of shape (frame,)."""
        self.position += self.frame
        power = float(np.dot(frame, frame)) / self.frame
        # The detector is stateful: it must hear every frame, also those the floor rules out.
        detected = self._detector(frame)
        self._recent.append(detected and self._floor.exceeded_by(power))
        self._levels.append(power)
        voiced = sum(self._recent)
        if self.utterance is None:
            del self._levels[: -self._undecided]
            return self._open() if voiced >= self._open_at else None
        if voiced >= self._keep_at and self._recent[-1]:
            self.utterance.last_voiced, self._end = self.position, None
        if self.position - self.utterance.last_voiced >= self.hangover:
            return self._close(self.end)
        if self.position - self.utterance.start >= self._longest:
            return self._split()
        return None

    def flush(self, end: int) -> Closed | None:
        """End the stretch of audio at model sample `end`: so does what is open, or was about to be.

        Its last samples are fewer than a frame, and were not judged.
        """
        if self.utterance is None and sum(self._recent) >= self._keep_at:
            self._open()
        self.position = end
        closed = self._close(end) if self.utterance else None
        self._recent.clear()
        return closed

    def take(self, until: int) -> None:
        """The window of the utterance that was closed holds the audio before model sample `until`.

        So no other utterance may begin earlier.
        """
        self._taken = max(self._taken, until)

    def skip_to(self, position: int) -> None:
        """Go on at a later model sample after a gap. Call `flush` first."""
        self.position = position
        self._recent.clear()
        self._levels.clear()
        # What was resampled before the gap may reach a sample beyond a very short one.
        self._taken = max(position, self._taken)
        self._resumable_until = 0

    def _open(self) -> Opened:
        voiced = len(self._recent) - self._recent.index(True)
        first_voiced = self.position - voiced * self.frame
        start = max(first_voiced - self._pre_roll, self._taken)
        self.utterance = Utterance(start, self.position, first_voiced < self._resumable_until)
        self._end = None
        inside = -(-(self.position - start) // self.frame)
        del self._levels[: max(0, len(self._levels) - inside)]
        return Opened(self.utterance)

    def _close(self, end: int) -> Closed:
        assert self.utterance
        self._resumable_until = self.utterance.last_voiced + self._hangover
        # Voiced frames of this utterance must not open another one.
        while len(self._recent) * self.frame > self.position - self.utterance.last_voiced:
            self._recent.popleft()
        closed = Closed(self.utterance, end)
        self.utterance = None
        return closed

    def _split(self) -> Split:
        assert self.utterance
        cut = self._quietest_place()
        # Counted from the end, where levels and position agree: a cut may lie inside a frame.
        self._levels = self._levels[(cut - self.position) // self.frame :]
        split = Split(self.utterance, cut)
        self.utterance = Utterance(
            cut, self.utterance.last_voiced, continues=True, follows_split=True
        )
        self._end = None
        self._taken = cut
        return split

    def _quietest_place(self) -> int:
        """A sample in the later half of the open utterance, `margin` before its end, on a step."""
        assert self.utterance
        width = max(1, samples_of(2 * SMOOTHING_MS) // self.frame)
        smooth = np.convolve(self._levels, np.ones(width) / width, mode="same")
        first = len(smooth) // 2
        stop = max(first + 1, len(smooth) - self._margin // self.frame)
        quietest = first + int(np.argmin(smooth[first:stop]))
        middle = self.position - (len(smooth) - quietest) * self.frame + self.frame // 2
        start = self.utterance.start
        return start + max(0, -(-(middle - start) // self._step)) * self._step


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


def samples_of(milliseconds: int) -> int:
    """Model samples."""
    return milliseconds * SAMPLE_RATE // 1000
