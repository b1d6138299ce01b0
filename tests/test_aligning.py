import numpy as np
import pytest
from conftest import RECORDINGS

from streamer.evaluation.aligning import Aligner, WordTimeErrors
from streamer.evaluation.delays import TimedWord
from streamer.messages import SAMPLE_RATE, Word
from streamer.sources.files import read_audio

SAID = "The lad was proved to be of good character and the son of respectable parents."


@pytest.fixture(scope="module")
def samples():
    audio, rate = read_audio(RECORDINGS / "LJ002-0173.ogg")
    assert rate == SAMPLE_RATE
    return audio


@pytest.fixture(scope="module")
def words(recognizer, samples):
    return Aligner(recognizer).words(SAID, samples)


def said(*words):
    return [TimedWord(text, start, end) for text, start, end in words]


def spoken(*words):
    return [Word(text, start, end, 1.0) for text, start, end in words]


def errors(truth, words):
    found = WordTimeErrors()
    found.take(truth, words)
    return found


def test_every_word_lies_in_its_place_inside_the_clip(words, samples):
    assert [word.text for word in words] == SAID.upper().rstrip(".").split()
    bounds = [bound for word in words for bound in (word.start, word.end)]
    assert bounds == sorted(bounds)
    assert 0 <= bounds[0] < bounds[-1] <= len(samples) / SAMPLE_RATE
    [good] = [word for word in words if word.text == "GOOD"]
    assert good.end - good.start < 0.5


def test_they_move_with_the_speech(recognizer, words, samples):
    quiet = np.random.default_rng(0).standard_normal(SAMPLE_RATE, np.float32) * np.float32(1e-3)
    later = Aligner(recognizer).words(SAID, np.concatenate((quiet, samples)))
    moved = [after.end - before.end for before, after in zip(words, later, strict=True)]
    assert np.median(moved) == pytest.approx(1.0, abs=0.03)


def test_the_ruler_is_the_same_for_every_model(writer, words, samples):
    assert Aligner(writer).words(SAID, samples) == words


def test_a_hyphened_word_is_two_and_nothing_gives_none(recognizer, samples):
    aligner = Aligner(recognizer)
    assert aligner.words("", samples) == []
    found = aligner.words("The lad was well-proved", samples)
    assert [word.text for word in found] == ["THE", "LAD", "WAS", "WELL", "PROVED"]


def test_errors_are_distances_of_words_that_are_right():
    truth = said(("HELLO", 1.0, 1.5), ("BIG", 1.6, 1.8), ("WORLD", 2.0, 2.5))
    words = spoken(("Hello,", 0.9, 1.6), ("pig", 3.0, 4.0), ("world.", 2.05, 2.3))
    found = errors(truth, words)
    assert found.start == pytest.approx([0.1, 0.05])
    assert found.end == pytest.approx([0.1, 0.2])


def test_words_too_many_or_too_few_shift_no_others():
    truth = said(("A", 1.0, 1.5), ("B", 2.0, 2.5), ("C", 3.0, 3.5))
    assert errors(truth, spoken(("a", 1.0, 1.5), ("c", 3.0, 3.5))).start == [0, 0]
    more = spoken(("a", 1.0, 1.5), ("x", 1.6, 1.7), ("b", 2.0, 2.5), ("c", 3.0, 3.5))
    assert errors(truth, more).end == [0, 0, 0]


def test_digits_do_not_count_and_what_is_written_as_one_word_counts_as_two():
    truth = said(("ROOM", 1.0, 1.5), ("12", 1.5, 2.0), ("WELL", 2.0, 2.4), ("KNOWN", 2.4, 2.9))
    found = errors(truth, spoken(("Room", 1.0, 1.5), ("12", 0.0, 0.1), ("well-known", 2.0, 2.9)))
    assert found.start == pytest.approx([0, 0, 0])
    assert found.end == pytest.approx([0, 0, 0])


def test_recordings_add_up_and_no_words_add_nothing():
    found = errors(said(("A", 1.0, 1.5)), spoken(("a", 1.1, 1.5)))
    found.take(said(("A", 1.0, 1.5)), spoken(("a", 1.2, 1.5)))
    found.take(said(("A", 1.0, 1.5)), ())
    found.take((), spoken(("a", 1.2, 1.5)))
    assert found.start == pytest.approx([0.1, 0.2])
