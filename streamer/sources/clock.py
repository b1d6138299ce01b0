"""What time it is in a stream whose device has a clock of its own.

Theory of operation. Audio cannot arrive before its last sample was captured. So the earliest
arrivals, measured against the count of samples, tell when the stream began; every later one was
delayed. But no device counts exactly as fast as this machine: one that is 100 millionths slow
seems to fall behind by a third of a second an hour. So the estimate of when the stream began
gives way, by `FOLLOWED` of the time between two arrivals, and is pulled back by every arrival
that is earlier. A device that counts slower by less is followed without error. Lag that grows
faster stays visible.
"""

from __future__ import annotations

import time
from collections.abc import Callable

FOLLOWED = 0.05
"""How much slower a device may count. Seen: 0.03, from a virtual machine's sound card."""
LONGEST_STEP_S = 1.0
"""A silence longer than this is a stall, not a distance between arrivals."""


class StreamClock:
    """Seconds since the first captured sample.

    Args:
        clock: seconds that pass evenly.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None
        self._arrived_at = 0.0

    def arrived(self, captured_s: float) -> None:
        """Audio up to this stream time, in seconds, has just arrived from the device.

        Say also what waits for a reader that is late: otherwise up to `FOLLOWED` of its lag is
        taken for the device's slowness.
        """
        now = self._clock()
        began = now - captured_s
        if self._began is not None:
            step = min(now - self._arrived_at, LONGEST_STEP_S)
            began = min(began, self._began + FOLLOWED * step)
        self._began = began
        self._arrived_at = now

    def now(self) -> float:
        """Stream time in seconds; 0 before anything arrived."""
        return 0.0 if self._began is None else self._clock() - self._began
