"""The recipe itself, for a minute: from nothing to a checkpoint that `streamer` loads."""

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
    log = run / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def wait_for(process, ready):
    while not ready():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.2)


def prepare(folder):
    command = [sys.executable, "-m", "training.prepare", "--corpus", str(folder)]
    little = ["--flite-hours", "0.06", "--espeak-hours", "0.03", "--held-out", "6"]
    subprocess.run([*command, *little], cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    prepare(folder)
    return folder


def test_preparing_again_makes_nothing_anew(small_corpus):
    before = {path: path.stat().st_mtime_ns for path in small_corpus.iterdir()}
    kinds = {path.name.rsplit("-", 1)[0] for path in before}
    assert kinds == {"flite", "espeak", "heldout-flite", "heldout-espeak", "heldout-ked"}
    prepare(small_corpus)
    assert {path: path.stat().st_mtime_ns for path in small_corpus.iterdir()} == before


def test_from_nothing_to_a_checkpoint_stopped_and_killed_on_the_way(small_corpus, tmp_path):
    run = tmp_path / "run"

    def logged(name):
        return any(name in loss for loss in losses())

    def losses():
        return [row["loss"] for row in log_of(run) if "loss" in row]

    # More hours than anybody waits for: the run ends when it is told to.
    options = ["--corpus", small_corpus, "--layers", "3", "--hours", "9", "--mel-hours", "0.01"]
    often = ["--evaluate-every", "5", "--evaluate-clips", "1", "--batch-seconds", "8"]
    first = train("--run", run, *options, *often)
    # Stopped in the middle, as the user of a laptop does, and gone on with.
    wait_for(first, lambda: logged("letters/flite"))
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=300)
    assert first.returncode == 0, output
    assert logged("mel")
    stopped = log_of(run)

    refused = train("--run", run, *options)
    output, _ = refused.communicate()
    assert refused.returncode != 0
    assert "--resume" in output.splitlines()[-1]

    # Killed, as when the battery is empty: it goes on from its last save.
    second = train("--run", run, "--resume")
    wait_for(second, lambda: "held_out" in log_of(run)[-1] and len(log_of(run)) > len(stopped))
    second.kill()
    second.communicate()
    heard = log_of(run)[-1]["heard_h"]

    third = train("--run", run, "--resume", "--hours", str(heard + 0.01))
    output, _ = third.communicate()
    assert third.returncode == 0, output
    log = log_of(run)
    hours = [row["heard_h"] for row in log]
    assert hours[-1] == pytest.approx(heard + 0.01, abs=0.005)
    assert 0 < hours[0] <= stopped[-1]["heard_h"] < heard
    assert all(np.isfinite(value) for loss in losses() for value in loss.values())
    assert {"mel", "letters/flite", "phones"} <= {name for loss in losses() for name in loss}
    assert set(log[-1]["held_out"]) == {"flite", "espeak", "ked"}

    recognizer = load_recognizer(str(run / "checkpoint"))
    sound = np.random.default_rng(0).standard_normal(16_080, np.float32)
    assert recognizer.log_probs(sound).shape == (50, 32)


def test_there_must_be_something_to_resume(tmp_path):
    refused = train("--run", tmp_path, "--resume")
    output, _ = refused.communicate()
    assert refused.returncode != 0
    assert "nothing to resume" in output.splitlines()[-1]
