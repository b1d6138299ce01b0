"""The recipe itself, for two minutes: from nothing to a checkpoint that `streamer` loads."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from streamer.recognition import load_recognizer

ROOT = Path(__file__).parent.parent


def train(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "training.train", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **options,
    )


def log_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    command = [sys.executable, "-m", "training.prepare", "--corpus", str(folder)]
    hours = ["--flite-hours", "0.3", "--espeak-hours", "0.15"]
    subprocess.run([*command, *hours], cwd=ROOT, check=True, capture_output=True)
    return folder


def test_preparing_again_makes_nothing_anew(small_corpus):
    before = {path: path.stat().st_mtime_ns for path in small_corpus.iterdir()}
    kinds = {path.name.rsplit("-", 1)[0] for path in before}
    assert kinds == {"flite", "espeak", "heldout-flite", "heldout-espeak", "heldout-ked"}
    command = [sys.executable, "-m", "training.prepare", "--corpus", str(small_corpus)]
    hours = ["--flite-hours", "0.3", "--espeak-hours", "0.15"]
    subprocess.run([*command, *hours], cwd=ROOT, check=True, capture_output=True)
    assert {path: path.stat().st_mtime_ns for path in small_corpus.iterdir()} == before


def test_two_minutes_from_nothing(small_corpus, tmp_path):
    run = tmp_path / "run"
    options = ["--corpus", small_corpus, "--layers", "3", "--hours", "1.0", "--mel-hours", "0.3"]
    often = ["--evaluate-every", "15", "--evaluate-clips", "4"]
    first = train("--run", run, *options, *often)
    # Stopped in the middle, as the user of a laptop does, and gone on with.
    while not (run / "log.jsonl").is_file() or "letters" not in (run / "log.jsonl").read_text():
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.5)
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 0, output
    heard = log_of(run)[-1]["heard_h"]
    assert 0.3 < heard < 1.0

    refused = train("--run", run, *options)
    output, _ = refused.communicate()
    assert refused.returncode != 0
    assert "--resume" in output.splitlines()[-1]

    second = train("--run", run, "--resume")
    output, _ = second.communicate()
    assert second.returncode == 0, output
    log = log_of(run)
    hours = [row["heard_h"] for row in log]
    assert hours == sorted(hours)
    assert hours[-1] == pytest.approx(1.0, abs=0.02)
    losses = [row["loss"] for row in log if "loss" in row]
    mel = [loss["mel"] for loss in losses if "mel" in loss]
    assert mel[-1] < 0.9  # of the variance: better than knowing the mean
    spelled = [loss["letters/flite"] for loss in losses if "letters/flite" in loss]
    # Not the first row: where the log-mel stage ends within it, its mean is over those steps too.
    assert spelled[-1] < 0.9 * max(spelled)
    phones = [loss["phone_frames"] for loss in losses if "phone_frames" in loss]
    assert phones[-1] < 0.9 * phones[0]
    rates = next(row["held_out"] for row in reversed(log) if "held_out" in row)
    assert set(rates) == {"flite", "espeak", "ked"}

    recognizer = load_recognizer(str(run / "checkpoint"))
    sound = np.random.default_rng(0).standard_normal(16_080, np.float32)
    assert recognizer.log_probs(sound).shape == (50, 32)


def test_a_killed_run_goes_on_from_its_last_save(small_corpus, tmp_path):
    run = tmp_path / "run"
    options = ["--corpus", small_corpus, "--layers", "3", "--hours", "9", "--mel-hours", "0"]
    first = train("--run", run, *options, "--evaluate-every", "4", "--evaluate-clips", "1")
    while not (run / "state.pt").is_file():
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.2)
    first.kill()
    first.communicate()
    second = train("--run", run, "--resume")
    while len(log_of(run)) < 4:
        assert second.poll() is None, second.stdout.read()
        time.sleep(0.2)
    second.send_signal(signal.SIGTERM)
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0, output
    hours = [row["heard_h"] for row in log_of(run)]
    assert hours[-1] > hours[0] > 0


def test_there_must_be_something_to_resume(tmp_path):
    refused = train("--run", tmp_path, "--resume")
    output, _ = refused.communicate()
    assert refused.returncode != 0
    assert "nothing to resume" in output.splitlines()[-1]
