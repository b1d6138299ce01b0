"""The default recognizer, real models on recorded speech: Moonshine writes, the SEW follows."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import RECORDINGS, word_errors, words

from streamer.config import Settings
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Event, Final, Partial, Reading, SessionEnded, Window
from streamer.recognition.writer import WriterRecognizer
from streamer.sources.files import read_audio


class Noting:
    """The writer, and the windows that it was asked for."""

    def __init__(self, writer: WriterRecognizer) -> None:
        self.writer = writer
        self.windows: list[Window] = []
        self.readings: list[Reading] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.writer, name)

    def recognize(self, batch: list[Window]) -> list[Reading]:
        readings = self.writer.recognize(batch)
        self.windows += batch
        self.readings += readings
        return readings


def clips() -> list[tuple[np.ndarray, str]]:
    with (RECORDINGS / "clips.tsv").open(newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t"))
    return [(read_audio(RECORDINGS / row["file"])[0], row["transcript"]) for row in rows]


def heard(
    recognizer: object, samples: np.ndarray, *, block: int = 320, previews: bool = True
) -> list[Event]:
    transcriber = Transcriber(recognizer, SAMPLE_RATE, Settings(), previews=previews)  # type: ignore[arg-type]
    events: list[Event] = []
    for start in range(0, len(samples), block):
        events += transcriber.feed(samples[start : start + block])
    return events + transcriber.finish()


def finals(events: list[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final) and event.text]


@pytest.fixture(scope="module")
def talk() -> tuple[np.ndarray, str]:
    """All clips with half a second of a quiet room between them."""
    parts, texts = [], []
    room = np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2).astype(np.float32) * 1e-4
    for samples, text in clips():
        parts += [samples, room]
        texts.append(text)
    return np.concatenate(parts), " ".join(texts)


@pytest.fixture(scope="module")
def session(writer: WriterRecognizer, talk: tuple[np.ndarray, str]) -> tuple[list[Event], Noting]:
    noting = Noting(writer)
    return heard(noting, talk[0]), noting


def test_a_readers_words_are_right_and_punctuated(
    session: tuple[list[Event], Noting], talk: tuple[np.ndarray, str]
) -> None:
    text = " ".join(final.text for final in finals(session[0]))
    assert word_errors(talk[1], text) <= 0.12 * len(words(talk[1]))
    assert text[0].isupper()
    assert text.count(".") + text.count(",") >= 4
    assert all(final.raw == final.text for final in finals(session[0]))


def test_files_have_the_text_of_the_live_path(
    writer: WriterRecognizer, session: tuple[list[Event], Noting], talk: tuple[np.ndarray, str]
) -> None:
    from_file = finals(heard(writer, talk[0], block=len(talk[0]), previews=False))
    assert [final.text for final in from_file] == [final.text for final in finals(session[0])]
    assert [final.words for final in from_file] == [final.words for final in finals(session[0])]


def test_a_final_is_what_the_writer_says_of_the_same_audio(
    writer: WriterRecognizer, session: tuple[list[Event], Noting]
) -> None:
    noting = session[1]
    final = {window.segment: window for window in noting.windows if window.kind != "preview"}
    for event in finals(session[0]):
        window = final[event.segment]
        alone = Window(0, 0, window.samples, 0, len(window.samples), "final", False, False, 0)
        [reading] = writer.recognize([alone])
        assert reading.words is not None
        assert event.text.lower() == " ".join(word.text for word in reading.words).lower()


def test_words_are_timed_in_order_inside_their_segment_where_they_were_said(
    session: tuple[list[Event], Noting],
) -> None:
    for event in finals(session[0]):
        for word in event.words:
            assert event.start <= word.start < word.end <= event.end
            assert 0 < word.confidence <= 1
        assert all(one.end <= other.start for one, other in pairwise(event.words))
        # A word a third of a second, within wide limits: they are not all at one place.
        assert event.words[-1].end - event.words[0].start > 0.15 * len(event.words)


def test_half_of_the_words_are_stable_before_the_final_and_stay(
    session: tuple[list[Event], Noting],
) -> None:
    events, _ = session
    stable: dict[int, str] = {}
    for event in events:
        if isinstance(event, Partial):
            assert event.stable.startswith(stable.get(event.segment, ""))
            stable[event.segment] = event.stable
    long = [final for final in finals(events) if final.end - final.start > 4]
    assert len(long) >= 2
    settled = sum(len(stable[final.segment].split()) for final in long)
    assert settled >= 0.5 * sum(len(final.words) for final in long)
    ended = events[-1]
    assert isinstance(ended, SessionEnded)
    assert ended.retracted <= 0.06 * settled


def test_long_talk_without_a_pause_keeps_previews_short(
    writer: WriterRecognizer, talk: tuple[np.ndarray, str]
) -> None:
    """Clips run together without their pauses; the final still hears the whole utterance."""
    parts = [samples[2_400:-2_400] for samples, _ in clips()]
    breathless = np.concatenate([*parts, *parts])[: 26 * SAMPLE_RATE]
    noting = Noting(writer)
    settings = Settings(hangover_ms=2_000)
    transcriber = Transcriber(noting, SAMPLE_RATE, settings)  # type: ignore[arg-type]
    events: list[Event] = []
    for start in range(0, len(breathless), 1_600):
        events += transcriber.feed(breathless[start : start + 1_600])
    events += transcriber.finish()
    lengths = [len(w.samples) / SAMPLE_RATE for w in noting.windows if w.kind == "preview"]
    assert max(lengths) < 14
    assert max(len(w.samples) / SAMPLE_RATE for w in noting.windows if w.kind == "final") > 20
    [final] = finals(events)
    shown = [event for event in events if isinstance(event, Partial)][-2]
    known = words(f"{shown.stable} {shown.tentative}")
    assert word_errors(final.text, " ".join(known)) < 0.35 * len(final.words)


def test_silence_and_noise_become_no_word(writer: WriterRecognizer) -> None:
    chance = np.random.default_rng(0)
    seconds = np.arange(6 * SAMPLE_RATE) / SAMPLE_RATE
    hiss = chance.standard_normal(len(seconds)) * (0.02 + 0.02 * (seconds % 2 > 1))
    tones = 0.1 * np.sin(2 * np.pi * 440 * seconds) * (seconds % 1 > 0.5)
    taps = np.zeros(len(seconds))
    taps[:: SAMPLE_RATE // 3] = 0.9
    for samples in (hiss, tones, taps, np.zeros(len(seconds))):
        events = heard(writer, samples.astype(np.float32), block=1_600)
        assert not [e for e in events if isinstance(e, Final | Partial)], events[:3]


def test_recorded_noise_becomes_no_word(writer: WriterRecognizer, speech_dir: Path) -> None:
    with (speech_dir / "noise.tsv").open(newline="") as table:
        files = [row["file"] for row in csv.DictReader(table, delimiter="\t")]
    for file in files:
        samples, rate = read_audio(speech_dir / file)
        transcriber = Transcriber(writer, rate, Settings(), previews=False)
        events = transcriber.feed(samples[: 12 * rate]) + transcriber.finish()
        assert (file, [final.text for final in finals(events)]) == (file, [])


def test_a_text_that_ends_too_early_is_gone_on_with(
    writer: WriterRecognizer, speech_dir: Path
) -> None:
    samples, _ = read_audio(speech_dir / "eval/libri_test_other/1688-142285-0000.flac")
    text = " ".join(final.text for final in finals(heard(writer, samples, previews=False)))
    assert words(text)[-2:] == ["STEEL", "ANON"]
