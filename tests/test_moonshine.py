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

from streamer.cli import _check_model
from streamer.config import Settings
from streamer.recognition import moonshine_files
from streamer.recognition.checkpoints import resolve
from streamer.recognition.moonshine import Moonshine, continuation, token_limit, without_loop
from streamer.recognition.moonshine_decoder import Decoder, DecoderState

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


def test_doctor_says_where_the_files_are_and_whether_they_are_whole(tmp_path):
    check = next(_check_model(Settings(model="moonshine-tiny")))
    assert (check.verdict, check.message) == ("ok", f"whole, in {model_folder()}")
    folder = shutil.copytree(model_folder(), tmp_path / "model")
    (folder / FILES[0]).write_bytes(b"")
    check = next(_check_model(Settings(model=str(folder))))
    assert check.verdict == "problem"
    assert FILES[0] in check.message


# --- words --------------------------------------------------------------------------------------


def test_recorded_speech_is_written_with_case_and_punctuation(moonshine, speech_dir):
    samples, truth = clip(speech_dir, "1688-142285-0002.flac")
    writing = moonshine.write(samples)
    assert word_errors(truth, writing.text) <= len(truth.split()) // 4
    assert writing.text[0].isupper()
    assert writing.text.endswith((".", "?", "!"))
    assert writing.ended == "end"
    assert len(writing.tokens) == len(writing.probabilities)
    assert tuple(token for word in writing.words for token in word.tokens) == writing.tokens
    assert all(0 < word.probability <= 1 for word in writing.words)


@pytest.mark.parametrize("length", [0, 1, 894, 895, 4_800, 160_000])
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


# --- drafts -------------------------------------------------------------------------------------


def drafts(tokens: tuple[int, ...], random: np.random.Generator) -> dict[str, list[int]]:
    """Right ones, wrong ones, and what nobody would give on purpose."""
    right, half = list(tokens), list(tokens[: len(tokens) // 2])
    noise = random.integers(0, 32_768, 300).tolist()
    return {
        "right": right,
        "without the end": right[:-3],
        "one wrong": [*half, 777, *right[len(half) + 1 :]],
        "one missing": right[1:],
        "random": noise,
        "half, then random": half + noise,
        "said twice": right * 2,
        "the same again and again": half + half[-1:] * 200,
        "begin and end inside": [*half, 1, 2, 1, 0, *right],
        "no tokens at all": [-1, 32_768, 10**9],
    }


@pytest.mark.parametrize(
    "name",
    [
        "1688-142285-0002.flac",
        "1998-15444-0001.flac",
    ],
)
def test_what_is_written_does_not_depend_on_the_draft(moonshine, speech_dir, name):
    assert moonshine.uses_drafts
    samples, _ = clip(speech_dir, name)
    random = np.random.default_rng(0)
    before: tuple[int, ...] = ()
    for seconds in (0.7, 1.5, 2.6):
        window = samples[: int(seconds * 16_000)]
        writing = moonshine.write(window)
        for kind, draft in drafts(writing.tokens, random).items():
            assert moonshine.write(window, draft) == writing, (seconds, kind)
        assert moonshine.write(window, before) == writing, seconds
        before = writing.tokens


@pytest.mark.parametrize(
    ("tokens", "draft", "follows"),
    [
        ([5, 9, 7, 8], [5, 6, 7, 8, 9, 10], [9, 10]),  # another token
        ([5, 7, 8], [5, 6, 7, 8, 9, 10], [9, 10]),  # one less
        ([5, 7], [5, 6, 7, 8], []),  # one token alone may stand anywhere
        ([1, 2, 0, 1, 2], [1, 2, 3, 1, 2, 4], [4]),  # the nearer place
        ([5], [5, 6], []),
        ([5, 6], [], []),
    ],
)
def test_a_draft_goes_on_after_a_difference(tokens, draft, follows):
    assert continuation(tokens, draft) == follows


def test_a_text_that_goes_round_is_the_same_with_any_draft(moonshine, monkeypatch):
    """The decoder is replaced: recordings that make this model go round are rare."""
    text = [50, 51, *[60, 61, 62, 63] * 9]
    monkeypatch.setattr(moonshine, "_decoder", Scripted(text))
    silence = np.zeros(96_000, np.float32)
    written = [moonshine.write(silence, text[:length]) for length in (0, 5, 14, 38)]
    assert written[0].ended == "loop"
    assert written[0].tokens == (50, 51, 60, 61, 62, 63)
    assert all(writing == written[0] for writing in written)


class Scripted:
    """A decoder that wants one text, whatever it is given."""

    independent = True
    vocabulary = 32_768

    def __init__(self, text: list[int]) -> None:
        self._text = text

    def begin(self, hidden: object) -> DecoderState:
        return DecoderState({})

    def extend(self, state: DecoderState, tokens: list[int]) -> np.ndarray:
        logits = np.zeros((len(tokens), self.vocabulary), np.float32)
        for row in logits:
            row[self._text[state.length] if state.length < len(self._text) else 2] = 20
            row[2] += state.length / 100
            state.length += 1
        return logits


def test_where_the_processor_rounds_differently_drafts_are_left_alone(monkeypatch, speech_dir):
    monkeypatch.setattr(Decoder, "_is_independent", lambda decoder: False)
    moonshine = Moonshine(model_folder())
    assert not moonshine.uses_drafts
    lengths = []
    extend = Decoder.extend

    def counted(decoder: Decoder, state: DecoderState, tokens: list[int]) -> object:
        lengths.append(len(tokens))
        return extend(decoder, state, tokens)

    monkeypatch.setattr(Decoder, "extend", counted)
    samples, _ = clip(speech_dir, "1688-142285-0002.flac")
    moonshine.write(samples, moonshine.write(samples).tokens)
    assert set(lengths) == {1}


def test_several_threads_share_one_model(moonshine, speech_dir):
    samples, _ = clip(speech_dir, "1688-142285-0002.flac")
    windows = [samples[: 16_000 * n] for n in (1, 2)]
    alone = [moonshine.write(window) for window in windows]
    found: dict[int, object] = {}

    def write(number: int) -> None:
        found[number] = [moonshine.write(window) for window in windows]

    threads = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[number] == alone for number in range(3))
