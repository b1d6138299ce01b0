from __future__ import annotations

import numpy as np
import pytest

import streamer
from streamer.cli import DEMO
from streamer.config import Settings
from streamer.core.highpass import HighPass
from streamer.messages import SAMPLE_RATE, Final
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.sources.files import read_audio


def filtered(
    samples: np.ndarray, sizes: tuple[int, ...] = (1_600,), rate: int = SAMPLE_RATE
) -> np.ndarray:
    """The output for all samples, given in pieces of such sizes in turn."""
    high_pass = HighPass(rate)
    pieces, at, turn = [], 0, 0
    while at < len(samples):
        size = sizes[turn % len(sizes)]
        pieces.append(high_pass.push(samples[at : at + size]))
        at, turn = at + size, turn + 1
    return np.concatenate([*pieces, high_pass.flush()])


def tone(hertz: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(2 * rate) / rate).astype(np.float32)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000, 192_000])
def test_hum_goes_and_the_voice_stays(rate: int) -> None:
    for hertz, least_db, most_db in [
        (20, -200, -44), (50, -200, -44), (60, -200, -44), (120, -1, 0.01), (200, -0.1, 0.01),
        (3_000, -0.1, 0.01),
    ]:  # fmt: skip
        settled = filtered(tone(hertz, rate), rate=rate)[rate:]
        level = 20 * np.log10(np.sqrt(2 * np.mean(settled.astype(np.float64) ** 2)))
        assert least_db < level < most_db, hertz


@pytest.mark.parametrize("value", [0.2, -1.0])
def test_a_constant_goes_without_a_click(value: float) -> None:
    output = filtered(np.full(SAMPLE_RATE, value, np.float32))
    assert np.abs(output).max() < 0.006 * abs(value)
    assert np.ptp(output) < 1e-6


@pytest.mark.parametrize("sizes", [(1,), (7, 320, 1), (319, 5_000), (32_000,)])
def test_the_result_does_not_depend_on_how_the_audio_was_split(sizes: tuple[int, ...]) -> None:
    samples = np.random.default_rng(1).standard_normal(SAMPLE_RATE).astype(np.float32)
    once = filtered(samples)
    assert len(once) == len(samples)
    assert np.array_equal(filtered(samples, sizes), once)


@pytest.mark.parametrize("length", [0, 1, 319, 320, 321])
def test_a_stretch_of_any_length_comes_out_whole(length: int) -> None:
    assert len(filtered(np.ones(length, np.float32), (100,))) == length


def finals(recognizer: CtcRecognizer, samples: np.ndarray) -> list[Final]:
    transcriber = streamer.Transcriber(
        recognizer, SAMPLE_RATE, Settings(model="embedded-sew"), previews=False
    )
    events = [*transcriber.feed(samples), *transcriber.finish()]
    return [event for event in events if isinstance(event, Final) and event.text]


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    samples, rate = read_audio(DEMO)
    assert rate == SAMPLE_RATE
    return samples


def spans(found: list[Final]) -> np.ndarray:
    """Which hundredths of a second are speech."""
    speech = np.zeros(10_000, bool)
    for final in found:
        speech[int(final.start * 100) : int(final.end * 100)] = True
    return speech


@pytest.mark.parametrize("harm", ["offset", "20 Hz", "50 Hz", "60 Hz", "pop"])
def test_what_lies_below_the_voice_costs_no_words(
    recognizer: CtcRecognizer, speech: np.ndarray, harm: str
) -> None:
    time_s = np.arange(len(speech)) / SAMPLE_RATE
    loud = np.sqrt(np.mean(speech[np.abs(speech) > 0.02].astype(np.float64) ** 2))
    if harm == "offset":
        added = np.full(len(speech), np.abs(speech).max() / 5)
    elif harm == "pop":
        added = 0.8 * np.exp(-time_s / 0.3)
    else:
        added = 2 * loud * np.sqrt(2) * np.sin(2 * np.pi * float(harm[:2]) * time_s + 1)
    clean = finals(recognizer, speech)
    heard = finals(recognizer, (speech + added).astype(np.float32))
    assert np.sum(spans(heard) != spans(clean)) < 0.1 * np.sum(spans(clean))
    words = " ".join(final.text for final in clean).split()
    kept = " ".join(final.text for final in heard).split()
    assert len(set(words) - set(kept)) <= 0.1 * len(set(words))
