"""`streamer listen` on real parts: PortAudio and a sound server on one side, a terminal on the
other."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pexpect
import pyte
import pytest
import soundfile
from conftest import RECORDING, Sound, mostly, word_errors, words

from streamer import live
from streamer.cli import DEMO
from streamer.messages import Block

TRUTH = RECORDING.with_suffix(".txt").read_text(encoding="utf-8")
ARGUMENTS = ["-m", "streamer", "listen", "--model", "embedded-sew"]


def listen(sound: Sound, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *ARGUMENTS, "--format", "jsonl", *arguments],
        env=sound.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def play_recording(sound: Sound) -> None:
    audio, rate = soundfile.read(RECORDING, dtype="float32")
    if sound.channels == 2:
        audio = np.repeat(audio[:, None], 2, axis=1)
    sound.play(audio, rate)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2)])
def test_what_is_played_is_what_is_read(
    sound_server: Callable[[int, int], Sound], rate: int, channels: int
) -> None:
    sound = sound_server(rate, channels)
    process = listen(sound)
    assert process.stdout
    events: list[dict[str, Any]] = [json.loads(process.stdout.readline())]
    time.sleep(1)
    play_recording(sound)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    rest, errors = process.communicate(timeout=30)
    events += [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 130, errors
    assert errors == ""
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("session", "end")
    assert "gap" not in kinds
    heard = " ".join(e["text"] for e in events if e["event"] == "final")
    assert word_errors(TRUTH, heard) <= 0.15 * len(words(TRUTH)), heard
    partials = [event for event in events if event["event"] == "partial"]
    assert len(partials) > 20
    assert any(partial["stable"] for partial in partials)
    for event in events[1:-1]:
        assert event["at"] >= event["end"] - 0.25, "shown before it can have been heard"
    end = events[-1]
    assert end["lost"] == 0
    assert end["captured"] == pytest.approx(end["speech"] + end["silence"], abs=2e-6)
    assert end["speech"] > 10


FROM_PYTHON = """
import sys, threading
import streamer, streamer.live
load = streamer.live.load_recognizer
def load_when_told(settings):
    print("loading", flush=True)
    sys.stdin.readline()
    return load(settings)
streamer.live.load_recognizer = load_when_told
# However slowly this machine loads it.
settings = streamer.Settings(model="embedded-sew", lm="none", ring_seconds=300)
with streamer.listen(settings) as listener:
    def end():
        sys.stdin.readline()
        listener.stop()
    threading.Thread(target=end).start()
    for event in listener:
        print(type(event).__name__, getattr(event, "text", ""), flush=True)
assert next(listener, None) is None
listener.close()
"""


def test_a_program_hears_from_the_call_on_and_gets_the_last_words(sound: Sound) -> None:
    """What is said while the model is loaded too; and the sentence that `stop` falls into."""
    process = sound.run(FROM_PYTHON)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "loading\n"
    audio, rate = soundfile.read(RECORDING, dtype="float32")
    sound.play(audio[: 9 * rate], rate)
    process.stdin.write("load\n")
    process.stdin.write("stop\n")
    shown, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert shown.splitlines()[-1].strip() == "SessionEnded"
    heard = " ".join(re.findall("^Final (.*)", shown, re.MULTILINE))
    assert mostly(" ".join(TRUTH.splitlines()[:2]), heard), shown


def test_unknown_and_ambiguous_devices_are_one_line(sound: Sound) -> None:
    for name in ("no such microphone", "e"):
        process = listen(sound, "--device", name)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == 3, errors
        assert len(errors.strip().splitlines()) == 1
        assert out == ""


def test_a_server_that_is_killed_loses_no_word_said_before(sound: Sound) -> None:
    process = listen(sound)
    assert process.stdout
    process.stdout.readline()
    time.sleep(1)
    play_recording(sound)
    sound.kill()
    try:
        time.sleep(4)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    finally:
        sound.start()
    events = [json.loads(line) for line in rest.splitlines()]
    assert process.returncode == 130
    heard = " ".join(e["text"] for e in events if e["event"] == "final")
    assert word_errors(TRUTH, heard) <= 0.15 * len(words(TRUTH)), heard
    end = events[-1]
    assert end["event"] == "end"
    assert end["captured"] == pytest.approx(end["speech"] + end["silence"] + end["lost"], abs=2e-6)


def test_the_clock_on_the_screen_is_the_streams_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts what was captured before anything was recognized."""
    monkeypatch.setattr(live, "STATUS_EVERY_S", 0.0)
    meter = live._Meter(SimpleNamespace(rate=16_000, name="Mic"), "m")
    second = np.zeros(16_000, np.float32)
    for at, lag_s, clock in ((0, 7.5, 8.5), (1, 6.5, 8.5), (9, 0.0, 10.0)):
        status = meter.read(Block(16_000 * at, second), lag_s)
        assert status
        assert status.elapsed_s == clock


class Terminal:
    """A program on a terminal of its own, and the screen that a person would see."""

    def __init__(self, sound: Sound, *arguments: str, columns: int = 80, rows: int = 24) -> None:
        env = {**sound.env, "TERM": "xterm-256color"}
        env.pop("NO_COLOR", None)
        self.process = pexpect.spawn(
            sys.executable,
            [*ARGUMENTS, *arguments],
            env=env,
            dimensions=(rows, columns),
            timeout=30,
        )
        self.before = termios.tcgetattr(self.process.child_fd)
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)

    def watch(self, until: Callable[[str], bool], seconds: float = 30) -> str:
        """Read the screen until it shows something; the screen at that moment."""
        deadline = time.monotonic() + seconds
        while not until("\n".join(self.screen.display)):
            assert time.monotonic() < deadline, "\n".join(self.screen.display)
            try:
                self._stream.feed(self.process.read_nonblocking(65536, timeout=0.2))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                self.process.close()
                break
        return "\n".join(line.rstrip() for line in self.screen.display)

    def end(self) -> str:
        return self.watch(lambda _: not self.process.isalive() and self._drained())

    def _drained(self) -> bool:
        try:
            self._stream.feed(self.process.read_nonblocking(65536, timeout=0.2))
        except (pexpect.EOF, pexpect.TIMEOUT, ValueError):
            self.process.close()
            return True
        return False


def test_a_session_in_a_terminal(sound: Sound) -> None:
    terminal = Terminal(sound)
    terminal.watch(lambda shown: "dB" in shown)
    audio, rate = soundfile.read(RECORDING, dtype="float32")
    sound.play(audio, rate, wait=False)
    first = " ".join(TRUTH.splitlines()[:3])
    # A frame may be read in two pieces: the status line stands below the words.
    terminal.watch(lambda shown: mostly(first, shown) and "dB" in shown)
    assert terminal.screen.cursor.hidden
    terminal.process.sendintr()
    last = terminal.end()
    assert terminal.process.exitstatus == 130
    assert mostly(first, last)
    assert not terminal.screen.cursor.hidden
    assert "dB" not in last, "the live region is gone"


def test_the_terminal_is_as_before(sound: Sound) -> None:
    terminal = Terminal(sound)
    terminal.watch(lambda shown: "dB" in shown)
    terminal.process.sendintr()
    deadline = time.monotonic() + 10
    after = None
    while terminal.process.isalive() and time.monotonic() < deadline:
        after = termios.tcgetattr(terminal.process.child_fd)
        terminal.watch(lambda _: True)
        time.sleep(0.05)
    assert after == terminal.before


def test_without_a_sound_server_the_demo_is_played(sound: Sound, tmp_path: Path) -> None:
    env = {**sound.env, "PULSE_SERVER": f"unix:{tmp_path}/nobody", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, *ARGUMENTS, "--or-demo", "--format", "text"],
        env=env,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    assert "bundled recording" in done.stderr
    assert mostly(DEMO.with_suffix(".txt").read_text(encoding="utf-8"), done.stdout)
    alone = subprocess.run(
        [sys.executable, *ARGUMENTS], env=env, capture_output=True, text=True, timeout=60
    )
    assert alone.returncode == 3
    assert len(alone.stderr.strip().splitlines()) == 1, alone.stderr
