"""The count of words that noise becomes."""

import numpy as np
import pytest
import soundfile
from conftest import RECORDING

from streamer.messages import Final, Partial
from streamer.sources.files import read_audio
from training import noise


@pytest.mark.parametrize("model", ["embedded-sew", "moonshine-tiny"])
def test_speech_is_counted_and_noise_is_not(tmp_path, capsys, model):
    samples, rate = read_audio(RECORDING)
    hiss = np.random.default_rng(0).standard_normal(rate * 5) * 0.01
    soundfile.write(tmp_path / "hiss.wav", hiss, rate)
    soundfile.write(tmp_path / "speech.wav", samples[: rate * 8], rate)
    (tmp_path / "noise.tsv").write_text("file\nhiss.wav\nspeech.wav\n")
    noise.main([str(tmp_path / "noise.tsv"), "--minutes", "0.2", "--model", model])
    *made, hissed, spoken, counted = capsys.readouterr().out.splitlines()
    assert made == [f"{kind}: no word" for kind in noise.KINDS]
    assert hissed == "hiss.wav: no word"
    assert len(spoken.split()) > 4
    assert counted.startswith("0.8 minutes: ")
    assert counted.endswith(f"({model})")
    assert int(counted.split(": ")[1].split()[0]) > 3


def test_words_that_vanish_are_counted_as_shown_for_a_moment(recognizer, monkeypatch):
    scripted = [
        Partial(0, 0.0, 1.0, "", "oh", 1.0),
        Partial(0, 0.0, 2.0, "", "oh no", 2.0),
        Final(0, 0.0, 2.0, "", "", (), 2.0),
        Partial(1, 3.0, 4.0, "", "well", 4.0),
        Final(1, 3.0, 4.0, "Well.", "WELL", (), 4.0),
    ]
    monkeypatch.setattr(noise.Transcriber, "finish", lambda self: scripted)
    assert noise.words_of(recognizer, 16_000, []) == (["Well."], ["oh no"], 0.0)


@pytest.mark.parametrize("kind", noise.KINDS)
def test_made_sounds_are_loud_enough_and_not_cut(kind):
    [first, second] = noise.pieces(kind, noise.PIECE_S + 1)
    assert len(first) == len(second) == noise.PIECE_S * 16_000
    assert first.dtype == np.float32
    assert not np.array_equal(first, second) or kind == "silence"
    assert np.isfinite(first).all()
