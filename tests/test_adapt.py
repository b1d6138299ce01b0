"""`streamer adapt` as a user runs it, with a voice that the embedded model has not heard."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from streamer.adaptation.examples import Example

from streamer.adaptation.adapt import adapt, rates
from streamer.config import Settings
from streamer.core.ctc import decode
from streamer.evaluation.metrics import error_rates
from streamer.recognition import load_finetuning, load_recognizer, resolve
from training import synthesis
from training.text import Text

ROOT = Path(__file__).parent.parent


def streamer(*arguments):
    return subprocess.Popen(
        [sys.executable, "-m", "streamer", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments):
    process = streamer(*arguments)
    output, errors = process.communicate()
    return process.returncode, output, errors


def write_pairs(folder, sentences, speeches):
    folder.mkdir()
    for number, (sentence, said) in enumerate(zip(sentences, speeches, strict=True)):
        soundfile.write(folder / f"{number:03d}.wav", said.samples, synthesis.SAMPLE_RATE)
        (folder / f"{number:03d}.txt").write_text(sentence.capitalize() + ".\n")


def word_error_rate(recognizer, sentences, speeches):
    heard = []
    for said in speeches:
        samples = said.samples.astype(np.float32) / 32768
        samples = np.pad(samples, (3_200, 3_200))
        samples = np.pad(samples, (0, recognizer.grid.fit(len(samples)) - len(samples)))
        words = decode(recognizer.log_probs(samples), recognizer.vocabulary)
        heard.append(" ".join(word.text for word in words))
    return error_rates(sentences, heard).wer


@pytest.fixture(scope="module")
def sentences():
    """That no voice was heard to say in training."""
    return Text().held_out


@pytest.fixture(scope="module")
def new_voice(sentences):
    return synthesis.festival(sentences[:310])


@pytest.fixture(scope="module")
def short_folder(sentences, new_voice, tmp_path_factory):
    folder = tmp_path_factory.mktemp("short") / "pairs"
    write_pairs(folder, sentences[:40], new_voice[:40])
    return folder


def test_ten_minutes_of_a_new_voice_make_it_better_heard(sentences, new_voice, tmp_path):
    # Fewer epochs than by default, for time; README tells what the default reaches.
    count, learned = 0, 0.0
    while learned < 600:
        learned += len(new_voice[count].samples) / synthesis.SAMPLE_RATE
        count += 1
    assert count <= 260
    write_pairs(tmp_path / "mine", sentences[:count], new_voice[:count])
    output = tmp_path / "model"
    options = ("--model", "embedded-sew", "--output", output, "--epochs", 4, "--train-features")
    code, told, errors = run("adapt", tmp_path / "mine", *options)
    assert code == 0, errors
    assert "Learning on cpu: about" in told
    assert "before" in told
    assert str(output) in told.splitlines()[-1]
    card = (output / "README.md").read_text()
    assert "embedded, adapted" in card

    # On sentences that adaptation never saw, neither to learn from nor to choose by.
    before, after = load_recognizer("embedded-sew"), load_recognizer(str(output))
    test = sentences[count : count + 50], new_voice[count : count + 50]
    was, is_now = word_error_rate(before, *test), word_error_rate(after, *test)
    assert is_now <= was * 0.85

    rng = random.Random(0)
    speak = (synthesis.flite, synthesis.espeak)
    others = [speak[number % 2](sentence, rng) for number, sentence in enumerate(sentences[:100])]
    was = word_error_rate(before, sentences[:100], others)
    assert word_error_rate(after, sentences[:100], others) <= was * 1.2


def test_a_model_that_gets_no_better_is_not_written(new_voice, tmp_path):
    # What the model itself hears is the text: no word is wrong before, so none fewer can be after.
    recognizer = load_recognizer("embedded-sew")
    heard, speeches = [], []
    for said in new_voice[:40]:
        whole = recognizer.grid.fit(len(said.samples)) - len(said.samples)
        samples = np.pad(said.samples, (0, whole))
        words = decode(recognizer.log_probs(samples / np.float32(32768)), recognizer.vocabulary)
        if words:
            heard.append(" ".join(word.text for word in words))
            speeches.append(synthesis.Speech(samples, said.voice))
    write_pairs(tmp_path / "mine", heard, speeches)
    output = tmp_path / "model"
    arguments = ("adapt", tmp_path / "mine", "--model", "embedded-sew", "--output", output)
    code, told, errors = run(*arguments, "--epochs", "1")
    assert code == 0, errors
    assert "0.0% before, no fewer after. Nothing was written: go on with embedded." in told
    assert not output.exists()


def test_wrong_texts_leave_the_model_as_it_was(sentences, new_voice):
    model = load_finetuning(resolve("embedded-sew"), Settings(accelerator="cpu"))
    sound = [said.samples.astype(np.float32) / 32768 for said in new_voice[:24]]
    wrong = [Example(s, "ZZZ QQQ", "wrong") for s in sound[:12]]
    right = [Example(s, t, "right") for s, t in zip(sound[12:], sentences[12:24], strict=True)]
    old = model.weights()
    outcome = adapt(model, wrong, right, epochs=20)
    assert not outcome.better
    assert outcome.after == outcome.before == rates(model, right)
    assert all(value.equal(old[name]) for name, value in model.weights().items())


def test_ctrl_c_ends_it_and_writes_nothing(short_folder, tmp_path):
    arguments = ("adapt", short_folder, "--model", "embedded-sew", "--output", tmp_path / "model")
    process = streamer(*arguments, "--epochs", "60")
    assert "examples" in process.stdout.readline()
    assert "about" in process.stdout.readline() or time.sleep(3) is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not (tmp_path / "model").exists()


def refused(code, *arguments):
    exit_code, told, errors = run("adapt", *arguments)
    assert exit_code == code, errors
    assert told == ""
    [line] = errors.splitlines()
    assert line.startswith("streamer: ")
    return line


def test_what_cannot_work_is_said_in_one_line(short_folder, tmp_path):
    output = ("--model", "embedded-sew", "--output", tmp_path / "new")
    assert "no such folder" in refused(5, tmp_path / "missing", *output)
    (tmp_path / "empty").mkdir()
    assert "nothing to learn from" in refused(5, tmp_path / "empty", *output)
    taken = ("--model", "embedded-sew", "--output", short_folder)
    assert "is there already" in refused(2, short_folder, *taken)
    missing = ("--model", tmp_path / "missing", "--output", tmp_path / "new")
    refused(4, short_folder, *missing)
    assert not (tmp_path / "new").exists()


def test_too_little_speech_is_refused(sentences, new_voice, tmp_path):
    write_pairs(tmp_path / "mine", sentences[:5], new_voice[:5])
    output = ("--model", "embedded-sew", "--output", tmp_path / "new")
    assert "only 5 examples" in refused(5, tmp_path / "mine", *output)


def test_examples_with_digits_are_left_out_and_counted(short_folder, sentences, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for path in short_folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for number in range(3):
        (folder / f"{number:03d}.txt").write_text("Room 12\n")
    arguments = ("adapt", folder, "--model", "embedded-sew", "--output", tmp_path / "new")
    code, told, errors = run(*arguments, "--epochs", "1")
    assert code == 0
    assert "3 of 40 examples are left out: digits" in errors
    assert "to learn from" in told
