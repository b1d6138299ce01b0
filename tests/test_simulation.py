import time

import numpy as np
import pytest

from streamer.evaluation.simulation import BLOCK_MS, RealClock, VirtualClock, simulate
from streamer.messages import Partial
from streamer.sources import microphone

WORK_S = 0.03


class Working:
    """A policy that computes for a known time over each block and says when it was done."""

    def __init__(self, now, seconds=WORK_S):
        self.now = now
        self.seconds = seconds
        self.blocks = []
        self.begun = []

    def feed(self, block):
        self.blocks.append(block)
        self.begun.append(self.now())
        time.sleep(self.seconds)
        return [Partial(0, 0.0, 0.0, "", "", self.now())]

    def finish(self):
        self.begun.append(self.now())
        return [Partial(1, 0.0, 0.0, "", "", self.now())]


def heard(clock, seconds, *, work_s=WORK_S, rate=16_000, progress=lambda _: None):
    policy = Working(clock.now, work_s)
    audio = np.arange(round(seconds * rate), dtype=np.float32)
    events = simulate(policy, clock, audio, rate, progress)
    return policy, audio, [event.at for event in events]


def test_computing_is_charged_once():
    clock = VirtualClock()
    clock.run(1.0, lambda: time.sleep(WORK_S) or [])
    assert clock.busy_s >= WORK_S
    assert clock.now() == pytest.approx(1.0 + clock.busy_s, abs=1e-9)


def test_nothing_passes_between_two_pieces_of_work():
    clock = VirtualClock()
    assert clock.now() == 0
    clock.run(1.0, list)
    before = clock.now()
    time.sleep(WORK_S)
    assert clock.now() == before


def test_the_clock_runs_while_work_is_done():
    clock = VirtualClock()
    times = []

    def work():
        times.append(clock.now())
        time.sleep(WORK_S)
        times.append(clock.now())
        return []

    clock.run(2.0, work)
    assert times[0] >= 2.0
    assert times[1] >= times[0] + WORK_S
    assert clock.now() >= times[1]


def test_audio_that_arrives_during_work_waits_for_its_end():
    clock = VirtualClock()
    clock.run(1.0, lambda: time.sleep(2 * WORK_S) or [])
    done = clock.now()
    begun = []
    clock.run(1.0 + WORK_S, lambda: begun.append(clock.now()) or [])
    assert begun[0] >= done
    assert clock.now() == pytest.approx(1.0 + clock.busy_s, abs=1e-9)


def test_work_waits_for_audio_that_has_not_arrived():
    clock = VirtualClock()
    clock.run(1.0, list)
    begun = []
    clock.run(5.0, lambda: begun.append(clock.now()) or [])
    assert begun[0] >= 5.0
    assert clock.now() < 5.0 + clock.busy_s


def test_work_that_fails_is_charged_and_the_clock_stands_still():
    clock = VirtualClock()

    def fail():
        time.sleep(WORK_S)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        clock.run(1.0, fail)
    assert clock.busy_s >= WORK_S
    before = clock.now()
    time.sleep(0.01)
    assert clock.now() == before


@pytest.mark.parametrize("make", [VirtualClock, RealClock])
def test_an_event_comes_after_its_audio_and_the_work_on_it(make):
    clock = make()
    policy, audio, times = heard(clock, 0.13)
    arrived = [block.end / 16_000 for block in policy.blocks]
    assert arrived == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.13])
    for at, begun, arrival in zip(times, policy.begun, arrived, strict=False):
        assert begun >= arrival
        assert at >= begun + WORK_S
    assert times == sorted(times)
    assert len(times) == 8
    assert clock.busy_s >= 7 * WORK_S
    assert np.array_equal(np.concatenate([block.samples for block in policy.blocks]), audio)


def test_a_policy_that_is_too_slow_falls_behind():
    clock = VirtualClock()
    _, _, times = heard(clock, 0.2, work_s=0.05)
    lags = np.array(times[:-1]) - np.arange(1, 11) * 0.02
    assert np.all(np.diff(lags) >= 0.03 - 1e-6)
    assert clock.now() == pytest.approx(0.02 + clock.busy_s, abs=1e-6)


def test_a_minute_of_audio_takes_only_its_computing():
    clock = VirtualClock()
    began = time.perf_counter()
    _, _, times = heard(clock, 60.0, work_s=0.0, rate=8_000)
    assert times[-1] >= 60.0
    assert time.perf_counter() - began < 60.0


def test_the_real_clock_keeps_the_pace_of_speech():
    began = time.perf_counter()
    clock = RealClock()
    _, _, times = heard(clock, 0.3, work_s=0.0)
    assert time.perf_counter() - began >= 0.3
    assert times[-1] >= 0.3


def test_blocks_are_contiguous_at_any_rate_and_progress_is_told():
    told = []
    policy, audio, _ = heard(VirtualClock(), 0.051, work_s=0.0, rate=44_100, progress=told.append)
    assert [block.start for block in policy.blocks] == [0, 882, 1_764]
    assert policy.blocks[-1].end == len(audio)
    assert told == pytest.approx([0.02, 0.04, 0.051], abs=1e-4)


def test_no_audio_is_finished_at_once():
    policy, _, times = heard(VirtualClock(), 0.0)
    assert not policy.blocks
    assert len(times) == 1


def test_sound_arrives_in_pieces_as_from_a_microphone():
    assert BLOCK_MS == microphone.BLOCK_MS
