from __future__ import annotations

import io
import random
import time
from collections.abc import Iterator

import pytest

from streamer.sources import captured_s
from streamer.sources.clock import StreamClock
from streamer.sources.files import PcmStream, paced

PATIENCE_S = 0.16
"""The shortest cadence of previews: what lags more is dropped."""


class Machine:
    """A clock that moves when it is told to, and a stream that is heard through it."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.stream = StreamClock(lambda: self.time)

    def lag(self, captured_s: float) -> float:
        """Seconds between the last captured sample and now."""
        return self.stream.now() - captured_s

    def hear(
        self, seconds: float, speed: float, delays: Iterator[float], *, bunch: int = 1
    ) -> list[float]:
        """Blocks of 0.1 s from a device that counts at `speed`; the lag after each bunch."""
        began = self.time
        lags = []
        for number in range(1, int(seconds * speed * 10) + 1):
            heard = number / 10
            last_of_bunch = -(-number // bunch) * bunch / 10
            self.time = max(self.time, began + last_of_bunch / speed + next(delays))
            self.stream.arrived(heard)
            if number % bunch == 0:
                lags.append(self.lag(heard))
        return lags


def jitter(largest_s: float) -> Iterator[float]:
    rng = random.Random(1)
    while True:
        yield rng.random() * largest_s


@pytest.mark.parametrize("bunch", [1, 5])
@pytest.mark.parametrize(
    ("hours", "speed"),
    [(8, 1 - 200e-6), (8, 1 + 200e-6), (11 / 3_600, 0.97), (0.2, 0.97), (0.2, 1.03)],
)
def test_a_device_with_a_clock_of_its_own_does_not_lag(
    hours: float, speed: float, bunch: int
) -> None:
    machine = Machine()
    lags = machine.hear(hours * 3_600, speed, jitter(0.06), bunch=bunch)
    assert max(lags) < PATIENCE_S
    assert min(lags) > -1e-6


def test_a_stalled_reader_lags_until_it_has_caught_up() -> None:
    machine = Machine()
    machine.hear(60, 1.0, jitter(0.02))
    began, heard = machine.time - 60, 60.0
    machine.time += 10
    for _ in range(10):
        heard += 1
        machine.stream.arrived(heard)
        machine.time += 0.1
        assert machine.lag(heard) > (machine.time - began - heard) - 0.2
    assert machine.lag(heard) > 0.8
    machine.stream.arrived(machine.time - began)
    assert machine.lag(machine.time - began) < 0.05


@pytest.mark.parametrize("speed", [0.5, 0.8])
def test_a_reader_slower_than_speech_lags_ever_more(speed: float) -> None:
    lags = Machine().hear(60, speed, jitter(0.02))
    assert lags[-1] > 0.7 * 60 * (1 - speed) * speed
    assert all(late > early for early, late in zip(lags, lags[50:], strict=False))


def test_a_paced_source_tells_what_a_stalled_reader_has_not_taken() -> None:
    samples = io.BytesIO(bytes(2 * 3_200))
    with paced(PcmStream(samples, rate=16_000)) as source:
        assert captured_s(source) == 0.0
        next(iter(source))
        time.sleep(0.3)
        assert captured_s(source) >= 0.4


def test_before_anything_arrived_it_is_zero() -> None:
    assert StreamClock().now() == 0.0
