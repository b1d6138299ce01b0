"""Several channels become one voice.

Theory of operation. The mean of the channels is right for most recordings and wrong for three: a
channel that is wired the wrong way round takes the voice away, a dead one halves it, and so does
one that is far quieter. So the channels are compared frame by frame (`FRAME_MS`), by the powers
and products of their samples, which are remembered for about `MEMORY_MS`. Loud frames weigh most
there: the first one of a voice is enough to decide. A channel is turned over when it runs against
the loudest one, and left out when it is far below it; it is let in again in the very frame in
which it speaks up. What has changed stays for `HOLD_MS` at least, and the step is faded over a
frame.

Frames are counted from the beginning of an unbroken stretch, so the result does not depend on
how the audio was split into blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from streamer.messages import Samples

FRAME_MS = 20
MEMORY_MS = 2_000
HOLD_MS = 2_000
AGAINST = -0.85
"""Correlation below which a channel is turned over, and back above the opposite. Two microphones
a hand apart differ in phase at some pitches, which no turning would mend."""
LEFT_OUT, LET_IN = 0.01, 0.02
"""Powers beside the loudest channel's: -20 and -17 dB."""
AUDIBLE = 1e-6
"""Power (-60 dB) from which on a decision is told to people."""


class Mixer:
    """Frames of shape (n, channels) in, mono out; of one channel nothing is held back.

    Of several, up to `FRAME_MS` wait for the rest of their frame.

    Args:
        rate: frames a second.
    """

    def __init__(self, rate: int) -> None:
        self._size = max(1, rate * FRAME_MS // 1_000)
        self._decay = 1 - FRAME_MS / MEMORY_MS
        self._hold = HOLD_MS // FRAME_MS
        self._rest: npt.NDArray[np.float32] = np.zeros((0, 1), np.float32)
        self._products: npt.NDArray[np.float64] = np.zeros((0, 0))
        self._memory = 0.0
        self._signs: npt.NDArray[np.float64] = np.zeros(0)
        self._used: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        self._since: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._weights: npt.NDArray[np.float64] | None = None
        self._told = False
        self.remark = ""
        """What it did that people should know: set once, empty before."""

    @property
    def waiting(self) -> int:
        """Samples taken that are not given yet."""
        return len(self._rest)

    def push(self, frames: npt.NDArray[Any]) -> Samples:
        """Take int16 or floating point frames, shape (n, channels); give mono float32.

        The number of channels must not change.
        """
        scale = np.float32(1 / 32_768 if frames.dtype == np.int16 else 1)
        frames = frames.astype(np.float32) * scale
        channels = frames.shape[1]
        if channels == 1:
            return frames[:, 0]
        if not len(self._signs):
            self._begin(channels)
        frames = np.concatenate((self._rest, frames))
        whole = len(frames) // self._size * self._size
        self._rest = frames[whole:]
        mixed = [self._mix(frames[at : at + self._size]) for at in range(0, whole, self._size)]
        return np.concatenate([np.zeros(0, np.float32), *mixed])

    def flush(self) -> Samples:
        """Give what still waits: the stretch of audio ends here. More may follow."""
        rest, self._rest = self._rest, self._rest[:0]
        return self._mix(rest) if len(rest) else np.zeros(0, np.float32)

    def _begin(self, channels: int) -> None:
        self._rest = np.zeros((0, channels), np.float32)
        self._products = np.zeros((channels, channels))
        self._signs = np.ones(channels)
        self._used = np.ones(channels, np.bool_)
        self._since = np.full(channels, self._hold)

    def _mix(self, frame: npt.NDArray[np.float32]) -> Samples:
        precise = frame.astype(np.float64)
        centred = precise - precise.mean(axis=0)  # a constant is no sound
        products = centred.T @ centred / len(frame)
        if np.isfinite(products).all():
            self._decide(products)
        weights = self._signs * self._used / self._used.sum()
        before = weights if self._weights is None else self._weights
        self._weights = weights
        if np.array_equal(before, weights):
            return np.asarray(precise @ weights, np.float32)
        fade = np.linspace(0, 1, len(frame), endpoint=False)[:, None]
        return np.asarray((precise * (before + fade * (weights - before))).sum(axis=1), np.float32)

    def _decide(self, now: npt.NDArray[np.float64]) -> None:
        self._products = self._products * self._decay + now
        self._memory = self._memory * self._decay + 1
        mean = self._products / self._memory
        powers = np.diag(mean)
        if powers.max() <= 0:
            return
        # Of channels that are nearly as loud the first one decides, not a rounding.
        loudest = int(np.argmax(powers >= 0.5 * powers.max()))
        self._since += 1
        free = self._since > self._hold
        norm = np.sqrt(powers * powers[loudest]) + 1e-30
        # Signs are relative to the loudest channel, which keeps the one it has.
        likeness = mean[loudest] / norm * self._signs * self._signs[loudest]
        turned = free & (likeness < AGAINST)
        turned[loudest] = False
        faint = free & (powers < LEFT_OUT * powers[loudest])
        least = LET_IN * max(powers[loudest], float(np.diag(now).max()))
        speaking = np.diag(now) > least
        used = (self._used & ~faint) | speaking
        self._since[turned | (used != self._used)] = 0
        self._signs[turned] *= -1
        self._used = used
        if powers[loudest] > AUDIBLE and not self._told:
            self._tell()

    def _tell(self) -> None:
        """Channels that are turned and those that are left out, for people who count from 1."""
        turned = np.flatnonzero((self._signs < 0) & self._used) + 1
        silent = np.flatnonzero(~self._used) + 1
        parts = []
        if len(turned):
            parts.append(f"{_named(turned)} turned over, since it cancels the others")
        if len(silent):
            parts.append(f"{_named(silent)} left out, since nothing or little is on it")
        if parts:
            self._told = True
            self.remark = f"of {len(self._signs)} channels " + "; ".join(parts)


def _named(numbers: npt.NDArray[Any]) -> str:
    return f"{'number' if len(numbers) == 1 else 'numbers'} {', '.join(map(str, numbers))}"
