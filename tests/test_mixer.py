from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

import streamer
from streamer.cli import DEMO
from streamer.messages import Final
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.sources.files import AudioFile, read_audio
from streamer.sources.mixer import FRAME_MS, Mixer

RATE = 16_000
FRAME = RATE * FRAME_MS // 1_000


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """Ten seconds of speech, half of full scale at most."""
    samples, rate = read_audio(DEMO)
    assert rate == RATE
    return (samples[: 10 * RATE] * (0.5 / np.abs(samples).max())).astype(np.float32)


def mixed(frames: np.ndarray, sizes: tuple[int, ...] = (1_600,)) -> tuple[np.ndarray, str]:
    """The mono of all frames, given in pieces of such sizes in turn, and the remark."""
    mixer = Mixer(RATE)
    pieces, at, turn = [], 0, 0
    while at < len(frames):
        size = sizes[turn % len(sizes)]
        pieces.append(mixer.push(frames[at : at + size]))
        at, turn = at + size, turn + 1
        assert mixer.waiting < FRAME
    return np.concatenate([*pieces, mixer.flush()]), mixer.remark


def noise(shape: tuple[int, ...] | int, level_db: float, seed: int = 1) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(shape) * 10 ** (level_db / 20)
    return samples.astype(np.float32)


def stereo(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.stack((left, right), axis=1) + noise((len(left), 2), -80)


def delayed(samples: np.ndarray, milliseconds: float) -> np.ndarray:
    late = int(milliseconds * RATE / 1_000)
    return np.concatenate((np.zeros(late, np.float32), samples[: len(samples) - late]))


@pytest.mark.parametrize("delay_ms", [0, 0.3, 0.6, 1, 3])
@pytest.mark.parametrize("gain", [1.0, 0.3])
def test_of_channels_that_agree_the_mean_is_taken(
    speech: np.ndarray, delay_ms: float, gain: float
) -> None:
    frames = stereo(speech, gain * delayed(speech, delay_ms))
    mono, remark = mixed(frames)
    assert remark == ""
    assert mono == pytest.approx(frames.mean(axis=1), abs=1e-6)


@pytest.mark.parametrize(
    ("right_gain", "dc", "told"),
    [
        (-1.0, 0.0, "2 turned over"),
        (-0.6, 0.1, "2 turned over"),
        (0.0, 0.0, "2 left out"),
        (0.0, 0.2, "2 left out"),
        (0.02, 0.0, "2 left out"),
    ],
)
def test_a_channel_that_cancels_or_is_dead_does_not_weaken_the_voice(
    speech: np.ndarray, right_gain: float, dc: float, told: str
) -> None:
    mono, remark = mixed(stereo(speech, right_gain * speech + np.float32(dc)))
    assert told in remark
    assert "\n" not in remark
    wanted = speech * max(1.0 if abs(right_gain) < 0.1 else (1 - right_gain) / 2, 0.5)
    voice = wanted[RATE:]
    heard = mono[RATE:] - mono[RATE:].mean()
    assert np.dot(heard, voice) / np.dot(voice, voice) == pytest.approx(1.0, abs=0.02)


def test_a_voice_is_turned_over_from_its_first_frame_on(speech: np.ndarray) -> None:
    onset = int(np.argmax(np.abs(speech) > 0.05)) // FRAME * FRAME
    quiet = np.zeros(RATE, np.float32)
    voice = np.concatenate((quiet, speech[onset : onset + RATE]))
    mono, _ = mixed(stereo(voice, -voice))
    first = slice(RATE + FRAME, RATE + 5 * FRAME)
    assert np.dot(mono[first], voice[first]) > 0.9 * np.dot(voice[first], voice[first])


def test_each_side_of_a_call_is_heard_when_it_speaks(speech: np.ndarray) -> None:
    half = len(speech) // 2
    left, right = speech.copy(), speech.copy()
    left[half:], right[:half] = 0, 0
    mono, _ = mixed(stereo(left, right))
    for part in (slice(0, half), slice(half, None)):
        assert np.dot(mono[part], speech[part]) > 0.45 * np.dot(speech[part], speech[part])


@pytest.mark.parametrize("sizes", [(1,), (7, 320, 1), (319, 321, 5_000), (160_000,)])
def test_the_result_does_not_depend_on_how_the_audio_was_split(
    speech: np.ndarray, sizes: tuple[int, ...]
) -> None:
    frames = stereo(speech, -speech)[: 2 * RATE + 77]
    assert np.array_equal(mixed(frames, sizes)[0], mixed(frames)[0])


def test_one_channel_passes_at_once_and_int16_is_scaled() -> None:
    mixer = Mixer(RATE)
    assert mixer.push(np.array([[-32_768], [16_384]], np.int16)).tolist() == [-1.0, 0.5]
    assert mixer.waiting == 0
    assert len(mixer.flush()) == 0


@pytest.mark.parametrize("fed_as", ["file", "array"])
def test_speech_on_channels_that_cancel_is_read_and_told_once(
    speech: np.ndarray,
    fed_as: str,
    recognizer: CtcRecognizer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    frames = np.stack((speech, -speech), axis=1)
    path = tmp_path / "opposite.wav"
    soundfile.write(path, frames, RATE, subtype="FLOAT")

    def text(*items: object) -> str:
        transcriber = streamer.Transcriber(recognizer, RATE, previews=False)
        events = [event for item in items for event in transcriber.feed(item)]  # type: ignore[arg-type]
        events += transcriber.finish()
        assert transcriber.heard_s == pytest.approx(10)
        return " ".join(event.text for event in events if isinstance(event, Final))

    if fed_as == "file":
        with AudioFile(path) as file:
            heard = text(*file)
    else:
        heard = text(*np.array_split(frames, 30))
    assert heard == text(speech) != ""
    (line,) = capsys.readouterr().err.splitlines()
    assert "number 2 turned over" in line
