"""A live session faster than real time, whose clock counts what recognition really took.

Audio arrives when it would have been captured; whatever is computed moves the clock on by the
time it took on this machine. So delays are those of real time, and an hour need not take an hour.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from streamer.messages import Block, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamer.messages import Samples


BLOCK_MS = 20
"""As the microphone's."""


class Policy(Protocol):
    """What makes partial and final text of blocks; `streamer.live.Transcriber` is one."""

    def feed(self, audio: Block) -> Sequence[Event]:
        """Take the next block and give what can be shown now."""

    def finish(self) -> Sequence[Event]:
        """End the audio: the last words."""


class Clock(Protocol):
    """Stream time, and when computing happens in it."""

    busy_s: float
    """Seconds of computing so far."""

    def now(self) -> float:
        """Stream time in seconds."""

    def run(self, arrived_s: float, work: Callable[[], Sequence[Event]]) -> Sequence[Event]:
        """Do what the audio up to `arrived_s` asks for, no sooner than it has arrived."""


class RealClock:
    """The wall's clock: audio arrives at the pace at which it was spoken."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self.busy_s = 0.0

    def now(self) -> float:
        """Stream time in seconds."""
        return time.perf_counter() - self._began

    def run(self, arrived_s: float, work: Callable[[], Sequence[Event]]) -> Sequence[Event]:
        """Wait for the audio, then work."""
        time.sleep(max(0.0, arrived_s - self.now()))
        began = time.perf_counter()
        try:
            return work()
        finally:
            self.busy_s += time.perf_counter() - began


class VirtualClock:
    """Stream time: where audio has arrived to, and the computing since."""

    def __init__(self) -> None:
        self._stream_s = 0.0
        self._resumed: float | None = None
        self.busy_s = 0.0

    def now(self) -> float:
        """Stream time in seconds."""
        passed = time.perf_counter() - self._resumed if self._resumed is not None else 0.0
        return self._stream_s + passed

    def run(self, arrived_s: float, work: Callable[[], Sequence[Event]]) -> Sequence[Event]:
        """Work, and let the time that takes pass."""
        self._stream_s = max(self._stream_s, arrived_s)
        self._resumed = time.perf_counter()
        try:
            return work()
        finally:
            passed = time.perf_counter() - self._resumed
            self._stream_s += passed
            self.busy_s += passed
            self._resumed = None


def simulate(
    policy: Policy,
    clock: Clock,
    audio: Samples,
    rate: int,
    progress: Callable[[float], object] = lambda seconds: None,
) -> list[Event]:
    """The events of a live session over `audio`, shape (n,), timed by `clock`.

    Args:
        policy: made with `clock.now`.
        clock: a new one, virtual or real.
        audio, rate: what is heard, and its samples a second.
        progress: called with the seconds heard so far.
    """
    step = rate * BLOCK_MS // 1000
    events: list[Event] = []
    for start in range(0, len(audio), step):
        block = Block(start, audio[start : start + step])
        events += clock.run(block.end / rate, partial(policy.feed, block))
        progress(block.end / rate)
    events += clock.run(len(audio) / rate, policy.finish)
    return events
