"""The writer, heard on recorded speech."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import model_error, word_errors

from streamer.recognition import moonshine_files
from streamer.recognition.checkpoints import resolve
from streamer.recognition.moonshine import Moonshine, token_limit, without_loop

FILES = list(moonshine_files.SHA256)


def model_folder() -> Path:
    return resolve("moonshine-tiny").folder


@pytest.fixture(scope="module")
def moonshine() -> Moonshine:
    return Moonshine(model_folder())


def clip(speech_dir: Path, name: str) -> tuple[np.ndarray, str]:
    """A 16 kHz recording and what is said in it."""
    for line in (speech_dir / "eval.tsv").read_text(encoding="utf-8").splitlines():
        file, transcript, *_ = line.split("\t")
        if file.endswith(f"/{name}"):
            samples, rate = soundfile.read(speech_dir / file, dtype="float32")
            assert rate == 16_000
            return samples, transcript
    raise AssertionError(name)


# --- files --------------------------------------------------------------------------------------


def test_a_folder_with_the_files_is_taken(tmp_path):
    folder = shutil.copytree(model_folder(), tmp_path / "model")
    assert resolve(str(folder)).folder == folder
    moonshine_files.verify(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, name):
    folder = shutil.copytree(model_folder(), tmp_path / "model")
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    message = model_error(Moonshine, folder)
    assert name in message
    assert "pip install" in message


@pytest.mark.parametrize("installed", [False, True])
def test_a_package_that_lacks_the_model_is_named_with_what_to_install(monkeypatch, installed):
    package = "json" if installed else "no_such_package"
    monkeypatch.setattr(moonshine_files, "_PACKAGE", package)
    message = model_error(resolve, "moonshine-tiny")
    assert "pip install 'moonshine-voice>=0.0.73,<0.1'" in message


def test_neither_torch_nor_the_package_that_holds_the_model_is_loaded():
    code = (
        "import sys, numpy as np\n"
        "from streamer.recognition.checkpoints import resolve\n"
        "from streamer.recognition.moonshine import Moonshine\n"
        "Moonshine(resolve('moonshine-tiny').folder).write(np.zeros(16000, np.float32))\n"
        "assert not {'torch', 'transformers', 'moonshine_voice'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- words --------------------------------------------------------------------------------------


def test_recorded_speech_is_written_with_case_and_punctuation(moonshine, speech_dir):
    samples, truth = clip(speech_dir, "1688-142285-0002.flac")
    writing = moonshine.write(samples)
    assert word_errors(truth, writing.text) <= len(truth.split()) // 4
    assert writing.text[0].isupper()
    assert writing.text.endswith((".", "?", "!"))
    assert writing.ended == "end"
    assert len(writing.tokens) == len(writing.probabilities)
    covered = [at for word in writing.words for at in range(word.first, word.end)]
    assert covered == list(range(len(writing.tokens)))
    assert all(0 < word.probability <= 1 for word in writing.words)


@pytest.mark.parametrize("length", [0, 1, 894, 895, 1_600, 4_800, 480_000])
@pytest.mark.parametrize("loudness", [0.0, 0.1])
def test_windows_without_words_or_too_short_for_them_do_no_harm(moonshine, length, loudness):
    noise = np.random.default_rng(0).standard_normal(length).astype(np.float32) * loudness
    assert len(moonshine.write(noise).tokens) <= token_limit(length)


@pytest.mark.parametrize(
    ("tokens", "kept"),
    [
        ([5, 6] * 5, None),
        ([5, 6] * 6, 2),
        ([5] * 11, None),
        ([9, *[5] * 12], 2),
        ([9, 8, *[1, 2, 3, 4] * 3], 6),
        ([9, 8, *[1, 2, 3, 4] * 2, 1, 2, 3], None),
        ([], None),
    ],
)
def test_a_text_that_goes_round_keeps_its_first_turn(tokens, kept):
    assert without_loop(tokens) == kept


def test_several_threads_share_one_model(moonshine, speech_dir):
    samples, _ = clip(speech_dir, "1688-142285-0002.flac")
    windows = [samples[: 16_000 * n] for n in (1, 2, 3, 4)]
    alone = [moonshine.write(window) for window in windows]
    found: dict[int, object] = {}

    def write(number: int) -> None:
        found[number] = [moonshine.write(window) for window in windows]

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == alone for number in range(4))
