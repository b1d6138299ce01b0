from __future__ import annotations

import random
import time

import pytest

from streamer.sources import losses
from streamer.sources.losses import LossDetector

RATE = 16_000


class Device:
    """Delivers blocks (20 ms where not said) by a clock of its own into a detector."""

    def __init__(self, speed: float = 1.0, *, bunch: int = 1, block: int = 320) -> None:
        self.detector = LossDetector(RATE)
        self.holes: list[tuple[int, int]] = []
        self.delivered = 0
        self._speed, self._bunch, self._block = speed, bunch, block
        self._captured = 0
        self._random = random.Random(1)
        self._now = 500.0

    @property
    def true_s(self) -> float:
        return 500.0 + self._captured / RATE / self._speed

    def deliver(self, seconds: float, *, late_s: float = 0.0) -> None:
        for number in range(int(seconds * RATE / self._block)):
            self._captured += self._block
            due = self.true_s + late_s + self._random.random() * 0.03
            due += (-number % self._bunch) * self._block / RATE
            self._arrive(due)

    def stall(self, seconds: float, *, kept_s: float) -> None:
        """Nothing is taken for a while; then comes what the sound system kept, the oldest."""
        began = self.true_s
        for _ in range(int(kept_s * RATE / self._block)):
            self._captured += self._block
            self._arrive(began + seconds + self._random.random() * 0.001)
        self._captured += round((seconds * self._speed - kept_s) * RATE)

    def _arrive(self, due: float) -> None:
        self._now = max(self._now, due)
        begin, self.delivered = self.delivered, self.delivered + self._block
        hole = self.detector.arrived(self._now, begin, self.delivered)
        self.holes += [hole] if hole else []


@pytest.mark.parametrize(
    ("hours", "speed", "bunch"),
    [
        (8, 1 - 200e-6, 1),
        (8, 1 + 200e-6, 1),
        *[(0.2, speed, bunch) for speed in (0.97, 1.03) for bunch in (1, 5)],
    ],
)
def test_a_device_with_a_clock_of_its_own_loses_nothing(
    hours: float, speed: float, bunch: int
) -> None:
    device = Device(speed, bunch=bunch, block=1_600 if hours == 8 else 320)
    device.deliver(hours * 3_600)
    assert device.holes == []
    assert device.detector.undecided is None


@pytest.mark.parametrize("speed", [1.0, 0.97, 1 + 200e-6])
@pytest.mark.parametrize(("stall_s", "kept_s"), [(0.5, 0.0), (5, 0.1), (15, 2), (60, 20)])
def test_a_stall_is_a_hole_behind_what_was_kept(
    speed: float, stall_s: float, kept_s: float
) -> None:
    device = Device(speed)
    device.deliver(5)
    place = device.delivered + int(kept_s * RATE)
    device.stall(stall_s, kept_s=kept_s)
    device.deliver(5)
    device.stall(stall_s, kept_s=kept_s)
    device.deliver(5)
    (first, length), (_, again) = device.holes
    assert first == pytest.approx(place, abs=640)
    true = (stall_s - kept_s) * RATE
    assert length == pytest.approx(true, abs=(0.05 + abs(1 - speed) * stall_s) * RATE)
    assert again == pytest.approx(length, abs=0.05 * RATE)


def test_audio_that_is_only_late_is_no_loss_but_waits() -> None:
    device = Device()
    device.deliver(5)
    device.stall(5, kept_s=5)
    device.deliver(5)
    assert device.holes == []
    assert device.detector.undecided is None


def test_an_undecided_hole_is_decided_at_the_end() -> None:
    device = Device()
    device.deliver(5)
    place = device.delivered
    device.stall(3, kept_s=0)
    device.deliver(0.1)
    assert device.holes == []
    assert device.detector.undecided == place
    assert device.detector.decide() == (place, pytest.approx(3 * RATE, abs=0.05 * RATE))
    assert device.detector.decide() is None


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """CLOCK_BOOTTIME counts what `time.monotonic` leaves out; elsewhere the latter has to do."""
    slept = 1_000.0
    monkeypatch.setattr(time, "CLOCK_BOOTTIME", 7, raising=False)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: slept + clock)
    assert losses.elapsed() == 1_007.0
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    monkeypatch.setattr(time, "monotonic", lambda: 3.0)
    assert losses.elapsed() == 3.0
