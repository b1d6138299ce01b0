import io
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from streamer.core.resample import Resampler
from streamer.recognition.vad import VoiceDetector


def decisions(samples, mode=2, frame_ms=20):
    detector = VoiceDetector(mode, frame_ms)
    n = detector.frame_samples
    return np.array([detector(samples[i : i + n]) for i in range(0, len(samples) - n + 1, n)])


@pytest.fixture(scope="module")
def speech():
    """Synthesized speech at 16 kHz, shape (n,)."""
    if not shutil.which("espeak-ng"):
        pytest.skip("espeak-ng is not installed")
    text = "the quick brown fox jumps over the lazy dog and runs away"
    wav = subprocess.run(["espeak-ng", "--stdout", text], capture_output=True, check=True).stdout
    samples, rate = soundfile.read(io.BytesIO(wav), dtype="float32")
    resampler = Resampler(rate)
    return np.concatenate((resampler.push(samples), resampler.flush()))


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_silence_is_no_voice(mode, frame_ms):
    assert not decisions(np.zeros(16_000, np.float32), mode, frame_ms).any()


def test_faint_hiss_is_no_voice():
    hiss = np.random.default_rng(0).normal(0, 1e-3, 32_000).astype(np.float32)
    assert not decisions(hiss)[10:].any(), "it adapts within 0.2 s"


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
def test_speech_is_voice(speech, frame_ms):
    assert decisions(speech, frame_ms=frame_ms).mean() > 0.7


def test_voice_is_found_where_it_is(speech):
    silence = np.zeros(32_000, np.float32)
    voiced = decisions(np.concatenate((silence, speech, silence)))
    assert not voiced[:100].any()
    assert voiced[100 : 100 + len(speech) // 320].mean() > 0.7
    assert not voiced[-50:].any()


def test_samples_beyond_full_scale_are_clipped_and_do_not_wrap(speech):
    loud = speech * (4 / np.abs(speech).max())
    np.testing.assert_array_equal(decisions(loud), decisions(np.clip(loud, -1, 32767 / 32768)))


def test_detectors_do_not_share_what_they_have_heard(speech):
    alone = decisions(speech)
    noise = np.random.default_rng(0).normal(0, 0.3, len(speech)).astype(np.float32)
    first, other = VoiceDetector(2, 20), VoiceDetector(2, 20)
    together = []
    for i in range(0, len(speech) - 319, 320):
        together.append(first(speech[i : i + 320]))
        other(noise[i : i + 320])
    np.testing.assert_array_equal(together, alone)


def test_a_frame_of_another_length_is_our_mistake():
    with pytest.raises(AssertionError, match="160 samples, not 320"):
        VoiceDetector(2, 20)(np.zeros(160, np.float32))
