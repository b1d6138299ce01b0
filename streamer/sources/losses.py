"""Audio that a device lost without saying so, found by the clock.

Theory of operation. A process that was stopped, a machine that was suspended or had no time for
us: the sound system's buffer was full and samples were dropped, yet through ALSA and PulseAudio
no flag tells. So the samples that arrive are held against a clock, whose drift `StreamClock`
follows. When they fall behind by more than `NOTICED_S`, either they are only late and come in a
burst, or they never come. While a burst goes on the delay shrinks; what is left of it when it has
not shrunk for `SETTLED_S` is lost. Its place is behind the burst: PulseAudio keeps the oldest
samples (measured, with a tone that tells its time). Where nothing came in a burst, it is before
the first block.

A device that loses less than `NOTICED_S` at a time, seldom, is taken for a slow one.
"""

from __future__ import annotations

import time

from streamer.sources.clock import StreamClock

NOTICED_S = 0.25
ON_TIME_S = 0.02
"""A block: less is no delay."""
SETTLED_S = 0.5
WARMING_UP_S = 1.0
"""The first samples come early or late while the buffers between fill."""
SHRUNK_S = 0.03
"""Less is the jitter of a callback."""


def elapsed() -> float:
    """Seconds by a clock that goes on while the machine is suspended, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)  # Linux, where `time.monotonic` rests
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class LossDetector:
    """Holds the samples of one open device against the clock.

    Args:
        rate: samples a second.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._now = 0.0
        self._clock = StreamClock(lambda: self._now)
        self._first_at: float | None = None
        self._lost = 0
        self._heard = 0.0
        self._at_least = 0
        self._least = 0.0
        self._shrunk_to = 0.0
        self._shrunk_at = 0.0
        self._places: list[tuple[float, int]] = []  # delay, and where it became as small as that
        self.undecided: int | None = None
        """From this delivered sample on, a hole may still have to be put in."""

    def arrived(
        self, now: float, begin: int, end: int, *, at_least: int = 0
    ) -> tuple[int, int] | None:
        """Delivered samples `begin` to `end` came at `now`, seconds by `elapsed`.

        Args:
            now, begin, end: as said.
            at_least: how much was surely lost before them, since the device says so.

        Returns:
            As `decide`, once it is certain.
        """
        self._now = now
        self._heard = (end + self._lost) / self._rate
        if self._first_at is None:
            self._first_at = now
        if now - self._first_at < WARMING_UP_S:
            self._clock = StreamClock(lambda: self._now)
            self._clock.arrived(self._heard)
        late = self._clock.now() - self._heard
        if self.undecided is None:
            if late <= NOTICED_S and not at_least:
                self._clock.arrived(self._heard)
                return None
            self.undecided = begin
            self._least = self._shrunk_to = late
            self._shrunk_at = now
            self._places = [(late, begin)]
        elif late < self._least:
            self._places.append((late, end))
            if late < self._shrunk_to - SHRUNK_S:
                self._shrunk_to, self._shrunk_at = late, now
        self._at_least += at_least
        self._least = min(self._least, late)
        in_time = late <= self._tolerated and not self._at_least
        return self.decide() if in_time or now - self._shrunk_at >= SETTLED_S else None

    def count(self, lost: int) -> None:
        """So many samples are known to be lost, from elsewhere."""
        self._lost += lost

    def decide(self) -> tuple[int, int] | None:
        """Settle by what is known now; to be asked when nothing more will arrive.

        Returns:
            `(place, length)`: `length` samples are missing before delivered sample `place`.
        """
        if self.undecided is None:
            return None
        measured = round(self._least * self._rate) if self._least > self._tolerated else 0
        length = max(measured, self._at_least)
        self.undecided, self._at_least = None, 0
        self._lost += length
        self._clock.arrived(self._heard + length / self._rate)
        place = next(place for late, place in self._places if late < self._least + SHRUNK_S)
        return (place, length) if length else None

    @property
    def _tolerated(self) -> float:
        """Delay, in seconds, that is none: the earliest arrivals are rare, most come later."""
        return ON_TIME_S if self._at_least else NOTICED_S / 2
