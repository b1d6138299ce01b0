"""`streamer adapt` as a user runs it, with a voice that the embedded model has not heard."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from streamer import cli
from streamer.adaptation.adapt import FORGOTTEN, adapt, choose, rates
from streamer.adaptation.others import SPEEDS, other_voices
from streamer.config import Settings
from streamer.core.ctc import decode
from streamer.corpora.examples import Example, find_examples, split_held_out
from streamer.evaluation.metrics import ErrorRates
from streamer.recognition import load_finetuning, resolve
from training import synthesis
from training.text import Text

ROOT = Path(__file__).parent.parent
SENTENCES = 70
"""About three minutes."""


def write_pairs(folder, sentences, speeches):
    folder.mkdir()
    for number, (sentence, said) in enumerate(zip(sentences, speeches, strict=True)):
        soundfile.write(folder / f"{number:03d}.wav", said.samples, synthesis.SAMPLE_RATE)
        (folder / f"{number:03d}.txt").write_text(sentence.capitalize() + ".\n")


def load(model="embedded-sew"):
    return load_finetuning(resolve(str(model)), Settings(accelerator="cpu"))


def as_heard(model, example):
    """The example with what the model hears in it as its text, so that no word is wrong."""
    filled = model.grid.fit(len(example.samples)) - len(example.samples)
    samples = np.pad(example.samples, (0, filled))
    text = " ".join(word.text for word in decode(model.log_probs(samples), model.vocabulary))
    return Example(samples, text, example.source)


@pytest.fixture(scope="module")
def sentences():
    """That no voice was heard to say in training."""
    return Text().held_out[:SENTENCES]


@pytest.fixture(scope="module")
def new_voice(sentences):
    return synthesis.festival(sentences)


@pytest.fixture(scope="module")
def short_folder(sentences, new_voice, tmp_path_factory):
    folder = tmp_path_factory.mktemp("short") / "pairs"
    write_pairs(folder, sentences[:30], new_voice[:30])
    return folder


@pytest.fixture
def run(capsys):
    """`streamer adapt` with the embedded model: exit code, stdout and stderr."""

    def run(*arguments, model="embedded-sew"):
        code = cli.main(["adapt", *map(str, arguments), "--model", str(model)])
        told, errors = capsys.readouterr()
        return code, told, errors

    return run


def test_a_new_voice_is_learned_and_what_that_did_is_told(sentences, new_voice, tmp_path, run):
    # Little speech and few epochs, for time; docs/ctc.md tells what ten minutes do.
    folder, output = tmp_path / "mine", tmp_path / "model"
    write_pairs(folder, sentences, new_voice)
    for number in range(3):
        (folder / f"{number:03d}.txt").write_text("Room 12\n")
    code, told, errors = run(folder, "--output", output, "--epochs", 4)
    assert code == 0, errors
    assert f"3 of {SENTENCES} examples are left out: digits" in errors
    assert "to learn from" in told
    assert "Learning on cpu: about" in told
    assert str(output) in told.splitlines()[-1]
    assert "embedded-sew, adapted" in (output / "README.md").read_text()

    # What was said of both models is so.
    usable = [e for e in find_examples([folder]).examples if "12" not in e.text]
    for examples, line in (
        (split_held_out(usable)[1], r"Held-out words wrong: (\S+)% before, (\S+)% after"),
        (other_voices(), r"Words of other voices wrong: (\S+)% before, (\S+)% after"),
    ):
        before, after = re.search(line, told).groups()
        assert 100 * rates(load(), examples).wer == pytest.approx(float(before), abs=2)
        assert 100 * rates(load(output), examples).wer == pytest.approx(float(after), abs=2)


def test_a_model_that_gets_no_better_is_not_written(short_folder, tmp_path, run):
    # What the model itself hears is the text: no word is wrong before, so none fewer can be after.
    model = load()
    heard = [as_heard(model, example) for example in find_examples([short_folder]).examples]
    folder, output = tmp_path / "mine", tmp_path / "model"
    folder.mkdir()
    for number, example in enumerate(example for example in heard if example.text):
        soundfile.write(folder / f"{number}.wav", example.samples, synthesis.SAMPLE_RATE)
        (folder / f"{number}.txt").write_text(example.text)
    code, told, errors = run(folder, "--output", output, "--epochs", 1)
    assert code == 0, errors
    assert "no fewer after. Nothing was written: go on with embedded-sew." in told
    assert not output.exists()


def test_where_nothing_is_gained_the_weights_are_the_old_ones(short_folder):
    model = load()
    examples = find_examples([short_folder]).examples
    wrong = [Example(example.samples, "ZZZ QQQ", "wrong") for example in examples[:6]]
    right = [as_heard(model, example) for example in examples[6:9]]
    old = model.weights()
    outcome = adapt(model, wrong, right, [as_heard(model, examples[9])], epochs=2)
    assert not outcome.better
    assert outcome.after == outcome.before
    assert outcome.others_after == outcome.others_before
    assert all(value.equal(old[name]) for name, value in model.weights().items())


def reached(*shares):
    """Letters wrong of the held-out part and of other voices, at shares 0, a half and 1."""
    return {
        share: (ErrorRates(2 * mine, mine, 99), None if other is None else ErrorRates(0, other, 99))
        for share, (mine, other) in zip((0.0, 0.5, 1.0), shares, strict=True)
    }


NEARLY, MUCH = 0.2 + 0.7 * FORGOTTEN, 0.2 + 0.9 * FORGOTTEN
"""Letters of other voices wrong where 0.2 were: just not too many, and too many."""


@pytest.mark.parametrize(
    ("table", "share", "held_back"),
    [
        (reached((0.4, 0.2), (0.4, 0.2), (0.4, 0.2)), 0.0, False),
        (reached((0.4, 0.2), (0.5, 0.1), (0.6, 0.1)), 0.0, False),
        (reached((0.4, 0.2), (0.35, 0.2), (0.3, 0.2)), 1.0, False),
        (reached((0.4, 0.2), (0.305, 0.2), (0.3, 0.2)), 0.5, False),
        (reached((0.4, 0.2), (0.35, NEARLY), (0.3, NEARLY)), 1.0, False),
        (reached((0.4, 0.2), (0.35, NEARLY), (0.3, MUCH)), 0.5, True),
        (reached((0.4, 0.2), (0.35, MUCH), (0.3, MUCH)), 0.0, True),
        (reached((0.4, 0.2), (0.305, NEARLY), (0.3, MUCH)), 0.5, False),
        (reached((0.4, None), (0.35, None), (0.3, None)), 1.0, False),
    ],
)
def test_it_goes_as_far_as_pays_and_as_other_voices_allow(table, share, held_back):
    assert choose(table) == (share, held_back)


def test_other_voices_are_the_bundled_readers_at_several_speeds():
    voices = other_voices()
    lengths = [voice.seconds * speed for voice, speed in zip(voices, SPEEDS, strict=True)]
    assert lengths == pytest.approx([lengths[1]] * len(SPEEDS), abs=0.01)
    assert {voice.text.split()[-1] for voice in voices} == {"for"}


def test_ctrl_c_ends_it_and_writes_nothing(short_folder, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "streamer", "adapt", short_folder, "--model", "embedded-sew",
         "--output", tmp_path / "model", "--epochs", "20"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert "examples" in process.stdout.readline()
    assert "about" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert not (tmp_path / "model").exists()


def test_what_cannot_work_is_said_in_one_line(short_folder, sentences, new_voice, tmp_path, run):
    new = tmp_path / "new"
    (tmp_path / "empty").mkdir()
    write_pairs(tmp_path / "few", sentences[:5], new_voice[:5])
    for code, says, folder, output, model in (
        (5, "no such folder", tmp_path / "missing", new, "embedded-sew"),
        (5, "nothing to learn from", tmp_path / "empty", new, "embedded-sew"),
        (5, "only 5 examples", tmp_path / "few", new, "embedded-sew"),
        (2, "is there already", short_folder, short_folder, "embedded-sew"),
        (4, "missing", short_folder, new, tmp_path / "missing"),
    ):
        exit_code, told, errors = run(folder, "--output", output, model=model)
        assert (exit_code, told) == (code, ""), errors
        [line] = errors.splitlines()
        assert line.startswith("streamer: ")
        assert says in line
    assert not new.exists()
