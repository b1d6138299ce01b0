"""Every demo runs as its docstring says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from conftest import RECORDING, REPOSITORY, Sound, mostly

DEMOS = REPOSITORY / "demos"
TRUTH = RECORDING.with_suffix(".txt").read_text()
OPENING = TRUTH.splitlines()[0].rstrip(".")
ENV = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(REPOSITORY)}


def run(name: str, *arguments: Path, stdin: bytes | None = None) -> str:
    done = subprocess.run(
        [sys.executable, DEMOS / name, *arguments],
        env=ENV,
        input=stdin,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def test_a_file() -> None:
    shown = run("transcribe_a_file.py", RECORDING)
    assert shown.startswith(OPENING)
    times = re.findall(r"^ *([\d.]+) +([\d.]+) +[01]\.\d\d +\w", shown, re.MULTILINE)
    assert len(times) > 40


def test_an_array() -> None:
    assert run("transcribe_an_array.py", RECORDING, RECORDING).count(OPENING) == 2


def test_blocks_by_hand(tmp_path: Path) -> None:
    samples, rate = soundfile.read(RECORDING)
    soundfile.write(tmp_path / "talk.wav", samples, rate)
    shown = run("feed_blocks_by_hand.py", stdin=(tmp_path / "talk.wav").read_bytes())
    assert OPENING in shown.splitlines()[0]
    assert len(shown.splitlines()) > 5


def test_a_microphone(sound: Sound) -> None:
    process = subprocess.Popen(
        [sys.executable, DEMOS / "listen_to_a_microphone.py"],
        env={**sound.env, "STREAMER_MODEL": "embedded-sew", "STREAMER_RING_SECONDS": "300"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    samples, rate = soundfile.read(RECORDING, dtype="float32")
    try:
        while not sound.is_recorded() and process.poll() is None:
            time.sleep(0.2)
        sound.play(samples[: 10 * rate], rate)
        assert process.stdout
        os.read(process.stdout.fileno(), 1)  # the model is loaded
    finally:
        process.send_signal(signal.SIGINT)
    shown, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    finished = re.sub("… .*\n", "", shown)
    assert mostly(" ".join(TRUTH.splitlines()[:3]), finished), "Ctrl-C finishes the last words"
    assert "… " in shown


def test_there_is_a_test_for_every_demo() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    for demo in DEMOS.glob("*.py"):
        assert f'"{demo.name}"' in source


@pytest.mark.parametrize("demo", sorted(DEMOS.glob("*.py")), ids=lambda path: path.name)
def test_a_demo_uses_the_public_api_alone(demo: Path) -> None:
    source = demo.read_text(encoding="utf-8")
    assert "streamer._" not in source
    assert "from streamer." not in source
