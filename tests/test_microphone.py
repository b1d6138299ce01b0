"""Capture through PortAudio from a sound server of our own, which is really killed.

Every capture runs in a process of its own, as in life: PortAudio starts once per process.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

from streamer.messages import Block, Gap
from streamer.sources import microphone
from streamer.sources.devices import Device
from streamer.sources.microphone import Microphone

RECORDER = """
import json, signal, sys, time
import numpy as np
from streamer.errors import DeviceError
from streamer.messages import Gap
from streamer.sources.devices import find_input
from streamer.sources.microphone import Microphone

out, seconds, rate, ring_seconds, pause = {arguments!r}
items, chunks = [], []
with Microphone(find_input(""), ring_seconds, rate) as source:
    signal.signal(signal.SIGTERM, lambda *_: source.stop())
    print(json.dumps([source.name, source.rate]), flush=True)
    try:
        for item in source:
            if isinstance(item, Gap):
                items.append(["gap", item.start, item.end, item.reason, item.rate])
                print(json.dumps(items[-1]), flush=True)
            else:
                items.append(["block", item.start, item.end, source.level])
                chunks.append(item.samples)
                if len(chunks) == 1:
                    print('"first"', flush=True)
                    time.sleep(pause)
            if item.end >= seconds * source.rate:
                source.stop()
    except DeviceError as error:
        items.append(["error", str(error)])
np.savez(out, items=json.dumps(items), samples=np.concatenate(chunks))
"""


@dataclass
class Recording:
    """What a recorder process heard."""

    rate: int
    items: list[list]
    samples: np.ndarray

    @property
    def gaps(self):
        return [item for item in self.items if item[0] == "gap"]

    def assert_contiguous(self):
        position = 0
        for _, start, end, *_ in self.items:
            assert start == position
            assert end > start
            position = end
        lost = sum(end - start for _, start, end, *_ in self.gaps)
        assert len(self.samples) + lost == position


class Recorder:
    """A process that records from the default input until `seconds` or SIGTERM."""

    def __init__(self, sound, folder, *, seconds=60.0, rate=None, ring_seconds=30, pause=0.0):
        self._out = folder / "heard.npz"
        arguments = (str(self._out), seconds, rate, ring_seconds, pause)
        self.process = sound.run(RECORDER.format(arguments=arguments))
        self.name, self.rate = self.line()
        assert self.line() == "first"

    def line(self):
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        return json.loads(line)

    def finish(self) -> Recording:
        try:
            _, errors = self.process.communicate(timeout=45)
        finally:
            self.process.kill()
            self.process.wait()
        assert self.process.returncode == 0, errors
        data = np.load(self._out)
        return Recording(self.rate, json.loads(str(data["items"])), data["samples"])


def chirp(seconds: float, rate: int) -> np.ndarray:
    """A sweep that is like itself at no other place, 0.5 of full scale."""
    time_s = np.arange(int(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (200 * time_s + 1_200 * time_s**2 / seconds))


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (44_100, 2), (48_000, 2)])
def test_what_is_played_is_heard_whole_and_in_place(sound_server, tmp_path, rate, channels):
    sound = sound_server(rate, channels)
    wanted = chirp(1.5, rate)
    stereo = np.stack([wanted * 0.5, wanted * 1.5], axis=1)  # its mean is the chirp

    def heard_whole(folder):
        folder.mkdir()
        recorder = Recorder(sound, folder, rate=rate)
        sound.play(wanted if channels == 1 else stereo, rate)
        recorder.process.send_signal(signal.SIGTERM)
        heard = recorder.finish()
        assert (recorder.name, recorder.rate) == ("default", rate)
        heard.assert_contiguous()
        assert heard.gaps == []
        assert heard.samples.dtype == np.float32
        size = len(heard.samples) + len(wanted)
        match = np.fft.rfft(heard.samples, size) * np.fft.rfft(wanted, size).conj()
        at = int(np.argmax(np.fft.irfft(match, size)))
        found = heard.samples[at : at + len(wanted)]
        assert max(item[3] for item in heard.items) == pytest.approx(-9.0, abs=0.5)
        # Sample for sample: a single one missing anywhere would spoil everything after it.
        return len(found) == len(wanted) and np.max(np.abs(found - wanted)) < 0.01

    # On a machine that is too busy the player itself stutters, and the sink hears it.
    assert any(heard_whole(tmp_path / f"take {number}") for number in (1, 2, 3))


def test_a_reader_slower_than_the_ring_gets_a_gap_of_exactly_what_it_missed(sound, tmp_path):
    heard = Recorder(sound, tmp_path, seconds=4, rate=16_000, ring_seconds=1, pause=2.5).finish()
    heard.assert_contiguous()
    assert [gap[3] for gap in heard.gaps] == ["overflow"]
    _, start, end, _, rate = heard.gaps[0]
    assert rate == 16_000
    assert 0.8 * rate < end - start < 3 * rate


def test_without_a_rate_the_device_s_own_is_taken(sound, tmp_path):
    recorder = Recorder(sound, tmp_path, seconds=0.3)
    assert recorder.rate == 44_100
    recorder.finish().assert_contiguous()


def pure_tone(frame: np.ndarray, rate: int) -> float:
    """Its frequency in Hz."""
    spectrum = np.abs(np.fft.rfft(frame * np.hanning(len(frame)), 8 * len(frame)))
    return float(np.argmax(spectrum)) * rate / (8 * len(frame))


def test_what_a_stopped_process_lost_is_a_gap_at_its_place(sound_server, tmp_path):
    sound = sound_server(16_000, 2)
    rate = 192_000  # PulseAudio keeps 4 MB: at 16 kHz that would be half a minute
    recorder = Recorder(sound, tmp_path, rate=rate)
    time_s = np.arange(10 * 16_000) / 16_000
    sound.play(0.5 * np.sin(2 * np.pi * (300 * time_s + 300 * time_s**2)), 16_000, wait=False)
    time.sleep(1.5)
    began = time.monotonic()
    recorder.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    recorder.process.send_signal(signal.SIGCONT)
    stopped = time.monotonic() - began
    time.sleep(1.5)
    recorder.process.send_signal(signal.SIGTERM)
    heard = recorder.finish()
    heard.assert_contiguous()
    (gap,) = heard.gaps
    _, start, end, reason, _ = gap
    assert reason == "interrupted"
    assert 0.5 * rate < end - start < (stopped + 0.3) * rate

    # The tone climbs by 600 Hz a second, so it tells when each of its moments was played.
    frame = rate // 20
    frames = range(start - 8 * frame, start + 8 * frame, frame // 4)
    played_s = np.array(
        [(pure_tone(heard.samples[at : at + frame], rate) - 300) / 600 - at / rate for at in frames]
    )
    jump = int(np.argmax(np.abs(np.diff(played_s))))
    assert played_s[-1] - played_s[0] == pytest.approx((end - start) / rate, abs=0.1)
    assert frames[jump] + frame / 2 == pytest.approx(start, abs=0.15 * rate)


def test_a_sound_server_that_dies_and_returns_leaves_one_hole(sound_server, tmp_path):
    sound = sound_server(16_000, 2)
    recorder = Recorder(sound, tmp_path, rate=16_000)
    began = time.monotonic()
    sound.kill()
    time.sleep(1.5)
    sound.start()
    first = recorder.line()
    gaps = [first, recorder.line()]
    away = time.monotonic() - began
    wanted = chirp(1.0, 16_000)
    sound.play(wanted, 16_000)
    recorder.process.send_signal(signal.SIGTERM)
    heard = recorder.finish()

    heard.assert_contiguous()
    assert heard.gaps == gaps
    assert [gap[3] for gap in gaps] == ["device-lost"] * 2
    assert 1.5 - 0.5 < (gaps[1][2] - gaps[0][1]) / heard.rate < away + 0.5
    match = np.correlate(heard.samples, wanted, "valid")
    assert match.max() > 0.98 * np.dot(wanted, wanted)


def test_stop_ends_the_wait_for_a_lost_device(sound_server, tmp_path):
    sound = sound_server(16_000, 2)
    recorder = Recorder(sound, tmp_path, rate=16_000)
    sound.kill()
    time.sleep(2)
    recorder.process.send_signal(signal.SIGTERM)
    heard = recorder.finish()
    sound.start()
    heard.assert_contiguous()
    assert {gap[3] for gap in heard.gaps} == {"device-lost"}


def recorded_until_error(sound, folder, harm, **patches):
    """What a recorder with other constants has to say after `harm` was done to the server."""
    setting = "".join(f"m.{name} = {value}\n" for name, value in patches.items())
    code = f"import streamer.sources.microphone as m\n{setting}{RECORDER}"
    out = str(folder / "heard.npz")
    process = sound.run(code.format(arguments=(out, 60, 16_000, 30, 0)))
    assert [process.stdout.readline() for _ in range(2)]
    harm()
    try:
        process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    *_, gap, (kind, message) = json.loads(str(np.load(out)["items"]))
    assert kind == "error"
    assert "\n" not in message
    return gap, message


def test_a_device_that_stays_away_is_an_error_after_its_gap(sound_server, tmp_path):
    sound = sound_server(16_000, 2)
    gap, message = recorded_until_error(sound, tmp_path, sound.kill, RECOVERY_S=2)
    sound.start()
    assert gap[3] == "device-lost"
    assert message.startswith("default: lost while recording and not recovered: not connected")


def test_a_sound_server_that_hangs_does_not_hang_us(sound_server, tmp_path):
    sound = sound_server(16_000, 2)
    gap, message = recorded_until_error(sound, tmp_path, sound.freeze, _CALL_S=1)
    sound.kill()
    sound.start()
    assert gap[3] == "device-lost"
    assert "the sound system does not answer" in message


class FakePortAudio:
    """`sounddevice` for what no sound server does on demand: refusals and device overflow."""

    class PortAudioError(Exception):
        pass

    def __init__(self, *, rates=(48_000,), channels=(2,), dtypes=("float32", "int16")):
        self.accepted = (rates, channels, dtypes)
        self.streams = []
        self.time = 100.0

    def InputStream(self, *, device, samplerate, channels, dtype, **rest):  # noqa: N802
        for value, allowed in zip((samplerate, channels, dtype), self.accepted, strict=True):
            if value not in allowed:
                raise self.PortAudioError("Error opening InputStream:\n Invalid", -9997)
        stream = SimpleNamespace(active=True, start=lambda: None, close=lambda: None, **rest)
        stream.dtype, stream.channels = dtype, channels
        self.streams.append(stream)
        return stream

    def deliver(self, frames, at, *, overflow=False):
        """Frames whose first sample the device says it heard at `at` seconds."""
        times = SimpleNamespace(inputBufferAdcTime=at)
        self.streams[-1].callback(
            frames, len(frames), times, SimpleNamespace(input_overflow=overflow)
        )


@pytest.fixture
def fake(monkeypatch):
    fake = FakePortAudio()
    monkeypatch.setattr(microphone, "portaudio", lambda: fake)
    monkeypatch.setattr(microphone, "elapsed", lambda: fake.time)
    return fake


DEVICE = Device(0, "Array", "ALSA", 4, 48_000, True, False)


def steps(first, count):
    """Stereo frames whose mean numbers them."""
    ramp = np.arange(first, first + count, dtype=np.float32)
    return np.stack([ramp - 7, ramp + 7], axis=1)


def numbers(items):
    return [
        item.reason if isinstance(item, Gap) else item.samples.astype(int).tolist()
        for item in items
    ]


def test_what_the_device_dropped_is_a_gap_at_its_place_by_the_device_s_clock(fake):
    with Microphone(DEVICE) as source:
        fake.deliver(steps(0, 3), 10.0)
        fake.deliver(steps(3, 2), 10.0 + (3 + 4_800) / 48_000, overflow=True)
        fake.deliver(steps(5, 2), 10.0 + (5 + 4_800) / 48_000)
        fake.deliver(steps(7, 1), 10.0, overflow=True)  # no clock shows anything
        source.stop()
        items = list(source)
    assert numbers(items) == [
        [0, 1, 2],
        "device-overflow",
        [3, 4, 5, 6],
        "device-overflow",
        [7],
    ]
    assert [(item.start, item.end) for item in items] == [
        (0, 3),
        (3, 4_803),
        (4_803, 4_807),
        (4_807, 4_808),
        (4_808, 4_809),
    ]


def test_an_overflow_that_only_the_machine_s_clock_shows_has_that_length(fake):
    with Microphone(DEVICE) as source:
        for number in range(200):
            overflow = number == 100
            fake.time += 0.02 + (0.1 if overflow else 0)
            fake.deliver(steps(960 * number, 960), 10.0 + number / 50, overflow=overflow)
        source.stop()
        items = list(source)
    (gap,) = [item for item in items if isinstance(item, Gap)]
    assert (gap.start, gap.reason) == (96_000, "device-overflow")
    assert gap.end - gap.start == pytest.approx(4_800, abs=100)
    assert items[-1].end == pytest.approx(192_000 + 4_800, abs=100)


def test_both_overflows_together_still_account_for_every_sample(fake):
    with Microphone(DEVICE, ring_seconds=1) as source:
        fake.deliver(steps(0, 100), 0.0)
        fake.deliver(steps(100, 100), 2_100 / 48_000, overflow=True)  # 2,000 dropped
        fake.deliver(steps(200, 47_950), 2_200 / 48_000)
        for _ in range(3):
            fake.deliver(steps(48_150, 10), 0.0, overflow=True)  # 1 each
        source.stop()
        items = list(source)
    position = 0
    for item in items:
        assert item.start == position
        position = item.end
    assert position == 48_180 + 2_000 + 3
    gaps = [(item.reason, item.end - item.start) for item in items if isinstance(item, Gap)]
    assert gaps == [
        ("overflow", 100),
        ("device-overflow", 2_000),
        ("overflow", 80),
        ("device-overflow", 3),
    ]


def test_drops_that_no_queue_can_hold_are_still_all_counted(fake):
    with Microphone(DEVICE) as source:
        fake.deliver(steps(0, 1), 1.0)
        for number in range(2_500):
            fake.deliver(steps(0, 1), 2.0 + number, overflow=True)
        source.stop()
        items = list(source)
    lost = sum(item.end - item.start for item in items if isinstance(item, Gap))
    assert items[-1].end == 2_501 + lost
    assert lost == pytest.approx(2_500 * 48_000, abs=2_501)


def test_int16_is_scaled_and_downmixed(fake):
    fake.accepted = ((48_000,), (2,), ("int16",))
    with Microphone(DEVICE) as source:
        fake.deliver(np.array([[-32_768, -32_768], [16_384, 0]], np.int16), 0.0)
        source.stop()
        (block,) = source
    assert isinstance(block, Block)
    assert block.samples.tolist() == [-1.0, 0.25]


@pytest.mark.parametrize(
    ("accepted", "opened"),
    [
        (((48_000,), (4,), ("float32",)), (48_000, 4, "float32")),
        (((48_000,), (4, 2), ("int16",)), (48_000, 4, "int16")),
        (((48_000,), (1,), ("float32",)), (48_000, 1, "float32")),
        (((44_100, 16_000), (2,), ("int16",)), (44_100, 2, "int16")),
    ],
)
def test_the_best_format_that_the_device_accepts_is_opened(fake, accepted, opened):
    fake.accepted = accepted
    with Microphone(DEVICE) as source:
        stream = fake.streams[-1]
        assert (source.rate, stream.channels, stream.dtype) == opened
        assert stream.blocksize == source.rate // 50


@pytest.mark.parametrize(("rate", "named"), [(None, "48000 Hz"), (22_050, "22050 Hz")])
def test_a_device_that_refuses_everything_is_named_with_the_rate(fake, rate, named):
    fake.accepted = ((), (), ())
    with pytest.raises(microphone.DeviceError, match="Array: refuses") as caught:
        Microphone(DEVICE, rate=rate).__enter__()
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_stop_wakes_a_reader_that_waits(fake):
    with Microphone(DEVICE) as source:
        heard = []
        reader = threading.Thread(target=lambda: heard.extend(source))
        reader.start()
        fake.deliver(steps(0, 5), 0.0)
        source.stop()
        reader.join(10)
        assert not reader.is_alive()
    assert numbers(heard) == [[0, 1, 2, 3, 4]]


def test_a_reader_far_behind_gets_a_second_at_a_time(fake):
    with Microphone(DEVICE) as source:
        fake.deliver(steps(0, 100_000), 0.0)
        source.stop()
        assert [len(block.samples) for block in source] == [48_000, 48_000, 3_840, 160]
