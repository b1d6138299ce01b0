from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import RECORDING

from streamer.messages import Gap
from streamer.sources import doctor
from streamer.sources.doctor import (
    check_system,
    judge_background,
    judge_capture,
    judge_level,
)
from streamer.sources.files import read_audio

RATE = 16_000

PROGRAM = """
import dataclasses, json, sys
from streamer.sources.doctor import check_audio
for check in check_audio({device!r}, {seconds!r}):
    print(json.dumps([check.name, check.verdict, check.message]), flush=True)
"""


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Three seconds of speech without a pause before it, its peak at half of full scale."""
    samples, rate = read_audio(RECORDING)
    assert rate == RATE
    loud = samples[np.argmax(np.abs(samples) > 0.05) :][: 3 * RATE]
    return (loud * (0.5 / np.abs(loud).max())).astype(np.float32)


def noise(level_db: float, seconds: float = 2.0) -> np.ndarray:
    random = np.random.default_rng(1)
    samples = random.standard_normal(int(seconds * RATE)) * 10 ** (level_db / 20)
    return samples.astype(np.float32)


def test_speech_is_ok_and_its_level_is_told(speech):
    check = judge_level(speech + noise(-60, 3), RATE)
    assert check.verdict == "ok", check
    assert check.message.startswith("-1")


@pytest.mark.parametrize("value", [0.0, 0.01, -1.0])
def test_one_value_all_the_time_is_a_muted_microphone(value):
    samples = np.full(RATE, value, np.float32)
    samples[::7] += 1 / 32_768
    check = judge_level(samples, RATE)
    assert check.verdict == "problem"
    assert "muted" in check.message


def test_a_quiet_room_is_not_taken_for_a_muted_microphone():
    check = judge_level(noise(-80), RATE)
    assert check.verdict == "warning"
    assert "-80 dB" in check.message
    assert "muted" not in check.message


def test_clipped_speech_is_told_and_a_single_peak_is_not(speech):
    check = judge_level(np.clip(speech * 20, -1, 1), RATE)
    assert check.verdict == "warning"
    assert "clipping" in check.message
    peaked = speech.copy()
    peaked[1_000] = 1.0
    assert judge_level(peaked, RATE).verdict == "ok"


def test_speech_too_quiet_for_the_voice_detector_is_told(speech):
    assert judge_level(speech / 10, RATE).verdict == "ok"
    check = judge_level(speech / 300 + np.float32(0.2), RATE)  # the constant makes it no louder
    assert check.verdict == "warning"
    assert "raise the input volume" in check.message


def test_loud_steady_noise_is_no_speech():
    check = judge_level(noise(-25), RATE)
    assert check.verdict == "warning"
    assert "noise" in check.message


@pytest.mark.parametrize(
    ("constant", "hertz", "named"),
    [
        (0.1, 0, [("offset", "+0.100")]),
        (-0.02, 50, [("offset", "-0.020"), ("hum", "mains hum of 50 Hz")]),
        (0.0, 60, [("hum", "mains hum of 60 Hz")]),
        (0.0, 20, [("hum", "rumble around 20 Hz")]),
        (0.0005, 0, []),
        (0.0, 120, []),
    ],
)
def test_an_offset_and_hum_are_named_and_do_not_count_as_level(speech, constant, hertz, named):
    hum = 0.1 * np.sin(2 * np.pi * hertz * np.arange(len(speech)) / RATE)
    samples = (0.2 * speech + constant + hum).astype(np.float32)
    checks = list(judge_background(samples, RATE))
    assert [check.name for check in checks] == [name for name, _ in named]
    for check, (_, part) in zip(checks, named, strict=True):
        assert check.verdict == "warning"
        assert part in check.message
    if hertz != 120:
        loudest, alone = (judge_level(heard, RATE) for heard in (samples, 0.2 * speech))
        assert loudest.message.split(",")[0] == alone.message.split(",")[0]


def test_a_capture_shorter_than_a_frame_is_judged():
    short = np.array([0.0, 0.5], np.float32)
    assert judge_level(short, RATE).verdict in ("ok", "warning")
    assert len(list(judge_background(short, RATE))) <= 2


def test_what_was_lost_is_told_in_seconds_with_its_reasons():
    gaps = [
        Gap(0, 800, RATE, "overflow"),
        Gap(900, 1_700, RATE, "device-overflow"),
        Gap(1_800, 2_600, RATE, "overflow"),
    ]
    check = judge_capture(RATE - 2_400, gaps, RATE)
    assert check.verdict == "warning"
    assert "0.15 s of 1.00 s" in check.message
    assert "(overflow, device-overflow)" in check.message
    assert judge_capture(RATE, [], RATE).verdict == "ok"
    assert judge_capture(0, [Gap(0, 5, RATE, "device-lost")], RATE).verdict == "problem"


def test_missing_packages_are_a_problem_with_the_command_that_helps(monkeypatch):
    wanted = ["numpy>=2.0", "no-such-package>=1; python_version>'3'", "absent>=1; extra == 'dev'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: wanted)
    python, packages = check_system()
    assert python.verdict == "ok"
    assert packages.verdict == "problem"
    assert packages.message == "missing no-such-package: run `pip install no-such-package`"


def test_installed_packages_are_listed_with_their_versions(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: ["numpy>=2.0"])
    _, packages = check_system()
    assert (packages.verdict, packages.message) == ("ok", f"numpy {np.__version__}")


def test_without_portaudio_the_first_line_says_what_to_install(tmp_path):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    code = "import sys; sys.path.insert(0, sys.argv[1])\n"
    code += PROGRAM.format(device="", seconds=1.0)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    (only,) = map(json.loads, done.stdout.splitlines())
    assert only[:2] == ["portaudio", "problem"]
    assert "libportaudio2" in only[2]


@pytest.fixture(scope="module")
def own_sound(sound_server):
    """A server that no other test plays into: its silence is digital."""
    return sound_server(32_000, 1)


def diagnosis(sound, *, device="", seconds=2.0, played=None):
    """The checks of `streamer doctor` by name, while `played` sounds."""
    process = sound.run(PROGRAM.format(device=device, seconds=seconds))
    checks = {}
    try:
        for line in process.stdout:
            name, verdict, message = json.loads(line)
            checks[name] = (verdict, message)
            if name == "opens" and played is not None:
                sound.play(played, RATE)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()
    return checks


def test_a_microphone_that_hears_nothing_at_all_is_reported_as_muted(own_sound):
    checks = diagnosis(own_sound, seconds=1.0)
    assert list(checks) == ["portaudio", "inputs", "opens", "capture", "level"]
    assert {verdict for verdict, _ in list(checks.values())[:4]} == {"ok"}
    assert "default" in checks["opens"][1]
    assert "44100 samples a second" in checks["opens"][1]
    assert checks["level"][0] == "problem"
    assert "muted" in checks["level"][1]


def test_speech_into_the_microphone_is_ok(own_sound, speech):
    checks = diagnosis(own_sound, seconds=3.0, played=speech)
    assert {verdict for verdict, _ in checks.values()} == {"ok"}, checks


def test_an_overdriven_microphone_is_reported_as_clipping(own_sound, speech):
    checks = diagnosis(own_sound, played=np.clip(speech * 20, -1, 1))
    assert checks["level"][0] == "warning"
    assert "clipping" in checks["level"][1]


def test_a_loopback_is_pointed_out(own_sound):
    checks = diagnosis(own_sound, device="speaker_monitor", seconds=0.2)
    assert checks["loopback"][0] == "warning"
    assert "speaker_monitor" in checks["loopback"][1]


def test_an_unknown_microphone_is_the_last_line(own_sound):
    checks = diagnosis(own_sound, device="banjo")
    assert list(checks) == ["portaudio", "inputs"]
    assert checks["inputs"][0] == "problem"
    assert "banjo" in checks["inputs"][1]


def test_a_device_that_delivers_nothing_ends_the_wait(monkeypatch):
    class Stuck:
        """Opens, and then blocks until it is stopped."""

        rate = RATE

        def __init__(self):
            self.bell = doctor.threading.Event()
            self.stop = self.bell.set

        def __iter__(self):
            assert self.bell.wait(30)
            yield Gap(0, 5, RATE, "device-lost")

    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.1)
    blocks, gaps = doctor._listen(Stuck(), 0.1)
    assert blocks == []
    assert judge_capture(0, gaps, RATE).verdict == "problem"
