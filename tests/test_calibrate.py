"""The fit of confidences, on words whose truth is known, and as one command on a checkpoint."""

import json
import random
import shutil

import numpy as np
import pytest

from streamer.config import Settings
from streamer.core.ctc import Calibration, FrameWord
from streamer.evaluation.calibration import calibration_error
from streamer.recognition import load_recognizer, resolve
from training import calibrate, corpus, synthesis
from training.text import Text


def words(calibration, count):
    """Words of three to ten letters that are right as often as `calibration` says."""
    rng = np.random.default_rng(0)
    heard = calibrate.Heard()
    for letters, confidence in zip(
        rng.integers(3, 11, count), rng.uniform(0.4, 1, count), strict=True
    ):
        word = FrameWord("A" * letters, 0, 9, None, confidence)
        heard.words.append(word)
        heard.right.append(rng.random() < calibration(word))
    return heard


def test_the_curve_that_words_came_from_is_found():
    found = calibrate.fit(words(Calibration(2.5, 1.5), 20_000))
    assert found.bias == pytest.approx(2.5, abs=0.2)
    assert found.slope == pytest.approx(1.5, abs=0.2)


def test_what_is_fitted_means_what_it_says():
    truth = Calibration(1.5, 5.0)
    heard = words(truth, 8_000)
    half = calibrate.Heard(heard.words[::2], heard.right[::2])
    found = calibrate.fit(half)
    claimed = [found(word) for word in heard.words[1::2]]
    assert calibration_error(claimed, heard.right[1::2]) < 0.03
    raw = [word.confidence for word in heard.words[1::2]]
    assert calibration_error(raw, heard.right[1::2]) > 0.3


@pytest.fixture(scope="module")
def small_corpus(tmp_path_factory):
    """Held-out sentences by flite."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(0)
    said = [(text, synthesis.flite(text, rng)) for text in Text().held_out[:24]]
    clips = [corpus.Clip(speech.samples, text, speech.voice) for text, speech in said]
    corpus.write_shard(folder, "heldout-flite-000", clips)
    return folder


def test_one_command_calibrates_a_checkpoint(small_corpus, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(resolve("embedded-sew").folder, folder)
    (folder / "calibration.json").unlink()
    calibrate.main([str(folder), "--corpus", str(small_corpus)])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    greedy, with_lm = (row for row in rows if row[0] == "| all")
    before, after = float(greedy[4]), float(greedy[6].strip(" |"))
    assert after < before
    assert float(greedy[2]) < float(with_lm[2]), "more words are right with the language model"
    written = json.loads((folder / "calibration.json").read_text())
    for lm, reader in (("none", written["greedy"]), ("", written["lm"])):
        calibration = load_recognizer(Settings(model=str(folder), lm=lm)).calibration
        assert calibration == Calibration(reader["bias"], reader["slope"])


def test_without_clips_there_is_nothing_to_fit(tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(resolve("embedded-sew").folder, folder)
    before = (folder / "calibration.json").read_bytes()
    with pytest.raises(SystemExit, match="no clips"):
        calibrate.main([str(folder), "--corpus", str(tmp_path)])
    assert (folder / "calibration.json").read_bytes() == before
