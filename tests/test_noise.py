"""The count of words that noise becomes."""

import numpy as np
import soundfile
from conftest import RECORDING

from streamer.sources.files import read_audio
from training import noise


def test_speech_is_counted_and_noise_is_not(tmp_path, capsys):
    samples, rate = read_audio(RECORDING)
    hiss = np.random.default_rng(0).standard_normal(rate * 5) * 0.01
    soundfile.write(tmp_path / "hiss.wav", hiss, rate)
    soundfile.write(tmp_path / "speech.wav", samples[: rate * 8], rate)
    (tmp_path / "noise.tsv").write_text("file\nhiss.wav\nspeech.wav\n")
    noise.main([str(tmp_path / "noise.tsv"), "--minutes", "0.4"])
    hissed, spoken, counted = capsys.readouterr().out.splitlines()
    assert hissed == "hiss.wav: no word"
    assert len(spoken.split()) > 4
    assert counted.startswith("0.4 minutes: ")
    assert int(counted.split(": ")[1].split()[0]) > 3
