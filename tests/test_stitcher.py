import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from streamer.core.ctc import GreedyDecoder, Vocabulary, decode
from streamer.core.hypothesis import contradicted
from streamer.core.stitcher import Stitcher

TOKENS = ("<pad>", "|", *"ABCDEHILNOPRSTUWY")
VOCABULARY = Vocabulary(TOKENS, blank=0, delimiter=1, special=frozenset())
RIGHT, SETTLE = 10, 24
PAUSE = "_" * 30
"""After so much a clear word is sure."""


def emission(path, peak=0.999):
    """Log-probabilities whose most probable path is `path`: letters, `_` for blank."""
    ids = [0 if token == "_" else TOKENS.index(token) for token in path]
    probabilities = np.full((len(ids), len(TOKENS)), (1 - peak) / (len(TOKENS) - 1))
    probabilities[np.arange(len(ids)), ids] = peak
    return np.log(probabilities).astype(np.float32)


def stitching(right_context=RIGHT, decoder=GreedyDecoder(VOCABULARY)):  # noqa: B008
    return Stitcher(
        VOCABULARY,
        decoder,
        right_context=right_context,
        settle_frames=SETTLE,
        settles=sure,
    )


def sure(word, heard):
    """As a fitted rule has it: clear letters, and some audio after them."""
    return word.confidence > 0.9 and heard >= 20


def heard_out(stitcher, log_probs):
    """Heard twice, before as much silence at its end as makes words sure, and with it."""
    stitcher.preview(0, log_probs[:-SETTLE])
    stitcher.preview(0, log_probs)


def texts(words):
    return [word.text for word in words]


def shown(stitcher):
    return texts(stitcher.stable) + texts(stitcher.tentative)


@st.composite
def paths(draw, min_words=3, max_words=12):
    """What a network could emit: runs, blanks inside words, pauses, delimiters of any length."""
    path = "_" * draw(st.integers(0, 6))
    for _ in range(draw(st.integers(min_words, max_words))):
        for letter in draw(st.text("ABCDELO", min_size=1, max_size=6)):
            path += letter * draw(st.integers(1, 2)) + "_" * draw(st.integers(0, 2))
        path += "_" * draw(st.integers(0, 4)) + "|" * draw(st.integers(1, 3))
        path += "_" * draw(st.integers(0, 8))
    return path if draw(st.booleans()) else path.rstrip("|_")


@st.composite
def windows(draw, frames):
    """Spans that begin and end ever later and leave no hole."""
    first, end = 0, 0
    spans = []
    while end < frames:
        end = min(frames, end + draw(st.integers(1, 40)))
        spans.append((first, end))
        first = draw(st.integers(max(first, end - 60), end))
    return spans


@settings(max_examples=200, deadline=None)
@given(data=st.data(), path=paths())
def test_no_word_is_doubled_or_lost_wherever_the_windows_lie(data, path):
    truth = emission(path)
    stitcher = stitching()
    before = []
    for first, end in data.draw(windows(len(truth))):
        stitcher.preview(first, truth[first:end])
        assert shown(stitcher) == texts(decode(truth[:end], VOCABULARY))
        assert texts(stitcher.stable)[: len(before)] == before
        before = texts(stitcher.stable)
    words, _ = stitcher.finish(truth, split=False)
    assert words == decode(truth, VOCABULARY)
    assert contradicted(before, texts(words)) == 0


@settings(max_examples=200, deadline=None)
@given(data=st.data(), path=paths(), seed=st.integers(0, 1000))
def test_stable_only_grows_even_if_the_network_contradicts_itself(data, path, seed):
    generator = np.random.default_rng(seed)
    truth = emission(path)
    stitcher = stitching()
    before = []
    for first, end in data.draw(windows(len(truth))):
        heard = truth[first:end].copy()
        heard[generator.random(len(heard)) < 0.1] = emission("A")
        stitcher.preview(first, heard)
        assert stitcher.stable[: len(before)] == before
        before = list(stitcher.stable)


class Fickle:
    """Finds other words each time, as a reader that knows language may when it hears more."""

    has_language_model = True

    def __init__(self, generator):
        self.generator = generator
        self.asked = []

    def __call__(self, log_probs, after=()):
        self.asked.append((len(log_probs), list(after)))
        words = decode(log_probs, VOCABULARY)
        return [replace(word, text=str(self.generator.choice(list("AB")))) for word in words]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), path=paths(min_words=8, max_words=20), seed=st.integers(0, 1000))
def test_stable_only_grows_even_if_the_reader_changes_its_mind(data, path, seed):
    truth = emission(path)
    read = Fickle(np.random.default_rng(seed))
    stitcher = stitching(decoder=read)
    before = []
    for first, end in data.draw(windows(len(truth))):
        stitcher.preview(first, truth[first:end])
        assert stitcher.stable[: len(before)] == before
        before = list(stitcher.stable)
        assert shown(stitcher)[: len(read.asked[-1][1])] == read.asked[-1][1]


def test_previews_read_only_what_they_can_change():
    truth = emission("SO_|_WE_|_" * 30 + PAUSE)
    read = Fickle(np.random.default_rng(0))
    stitcher = stitching(decoder=read)
    for end in range(40, len(truth), 20):
        stitcher.preview(max(0, end - 80), truth[max(0, end - 80) : end])
    assert max(frames for frames, _ in read.asked) <= 80 + 5, "the window and a word"
    assert max(len(after) for _, after in read.asked) > 30
    assert len(shown(stitcher)) == 60


def test_what_was_foreseen_is_not_read_again():
    truth = emission("_SO_|_WE_|_")
    read = Fickle(np.random.default_rng(0))
    stitcher = stitching(decoder=read)
    stitcher.foresee(truth)
    words, _ = stitcher.finish(truth, split=False)
    assert len(read.asked) == 1
    assert len(words) == 2
    other = stitching(decoder=read)
    other.foresee(truth)
    other.finish(truth[:-2], split=False)
    assert len(read.asked) == 3


def test_an_unsure_word_and_those_after_it_stay_tentative_until_it_is_sure():
    rest = emission("_|_CAN_|_SET_|_" + PAUSE)
    doubtful = np.concatenate((emission("SO_|_"), emission("WE", 0.6), rest))
    stitcher = stitching(0)
    heard_out(stitcher, doubtful)
    assert (texts(stitcher.stable), texts(stitcher.tentative)) == (["SO"], ["WE", "CAN", "SET"])
    stitcher.preview(0, emission("SO_|_WE_|_CAN_|_SET_|_" + PAUSE))
    assert texts(stitcher.stable) == ["SO", "WE", "CAN", "SET"]


def test_a_window_that_reaches_back_corrects_what_is_not_stable():
    stitcher = stitching(0)
    rest = emission("_|_CAN_|_" + PAUSE)
    unsure = np.concatenate((emission("SO_|_"), emission("WE", 0.6), rest))
    stitcher.preview(0, unsure[:-SETTLE])
    stitcher.preview(8, unsure[8:])  # has slid past the unsure word
    assert texts(stitcher.stable) == ["SO"]
    whole = emission("SO_|_HE_|_CAN_|_" + PAUSE)
    stitcher.preview(0, whole)
    assert shown(stitcher) == ["SO", "HE", "CAN"]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), path=paths(min_words=8, max_words=25))
def test_a_word_on_a_cut_appears_exactly_once(data, path):
    truth = emission(path)
    cuts = data.draw(st.lists(st.integers(40, max(40, len(truth) - 1)), max_size=4, unique=True))
    bounds = [0, *sorted(cuts), len(truth)]
    # No word is that long; what lasts from cut to cut is dealt with below.
    assume(all(end - start > 30 for start, end in itertools.pairwise(bounds)))
    stitcher = stitching()
    said = []
    for start, end in itertools.pairwise(bounds):
        ahead = data.draw(st.integers(start, len(truth)))
        stitcher.preview(0, truth[start:ahead])
        words, stitcher = stitcher.finish(truth[start:end], split=end < len(truth))
        said += words
    assert texts(said) == texts(decode(truth, VOCABULARY))


def test_a_cut_word_moves_to_the_next_segment_with_its_letters():
    stitcher = stitching()
    words, following = stitcher.finish(emission("__SO_|__HEL"), split=True)
    assert texts(words) == ["SO"]
    assert following.carried == 3
    words, _ = following.finish(emission("L_LO_|"), split=False)
    assert texts(words) == ["HELLO"]
    assert (words[0].start, words[0].end) == (0, 7)


def test_previews_read_a_carried_word_whole_as_often_as_they_come():
    _, following = stitching(0).finish(emission("__SO_|__HEL"), split=True)
    truth = emission("L_LO_|_" + PAUSE + "WE_|_" + PAUSE)
    for end in (20, 30, 40, 50, len(truth)):
        following.preview(0, truth[:end])
        assert shown(following)[0] == "HELLO"
    assert texts(following.stable)[0] == "HELLO"
    following.preview(0, truth)  # the whole utterance once more
    assert shown(following) == ["HELLO", "WE"]


def test_a_word_that_only_lacks_its_delimiter_is_not_lost_at_a_cut():
    stitcher = stitching()
    words, following = stitcher.finish(emission("_SO_|_YES____"), split=True)
    assert texts(words) == ["SO"]
    words, _ = following.finish(emission("____"), split=False)
    assert texts(words) == ["YES"]


def test_the_segment_after_a_cut_knows_what_was_previewed_of_it():
    truth = emission("SO_|_WE_|__CAN_|_SET_|_")
    stitcher = stitching(0)
    stitcher.preview(0, truth)
    _, following = stitcher.finish(truth[:10], split=True)
    assert len(following.emission) == following.carried + 13
    # Previews of the beginning were dropped, and there is no hole nevertheless.
    following.preview(8, truth[18:])
    assert shown(following) == ["CAN", "SET"]


def test_what_never_ends_is_not_carried_for_ever():
    stitcher = stitching()
    said = []
    for _ in range(20):
        words, stitcher = stitcher.finish(emission("_A_B" * 10), split=True)
        said += texts(words)
        assert stitcher.carried <= 40
    assert "".join(said).count("A") >= 180


def test_a_model_without_a_delimiter_is_cut_where_it_is_cut():
    unparted = Vocabulary(TOKENS, 0, None, frozenset({1}))
    stitcher = Stitcher(
        unparted,
        GreedyDecoder(unparted),
        right_context=RIGHT,
        settle_frames=SETTLE,
        settles=sure,
    )
    words, following = stitcher.finish(emission("_A_B"), split=True)
    assert texts(words) == ["AB"]
    assert following.carried == 0


@pytest.mark.parametrize(
    ("ends", "stable_at"),
    [
        ((10, 30, 42, 43), 43),  # before that too little audio follows
        ((20, 43, 44), 44),  # and here it was read for too short a while
        ((43, 60, 65, 70), 70),
    ],
)
def test_a_word_becomes_stable_once_it_was_read_so_for_a_while_and_enough_follows(ends, stable_at):
    truth = emission("_SO_|" + "_" * 80)
    stitcher = stitching(40)
    for end in ends:
        stitcher.preview(0, truth[:end])
        assert (end, texts(stitcher.stable)) == (end, ["SO"] if end >= stable_at else [])


def test_another_reading_begins_the_while_anew():
    stitcher = stitching(0)
    told = []
    for silence, word in ((30, "SO"), (40, "SO"), (50, "NO"), (60, "SO"), (70, "SO"), (90, "SO")):
        stitcher.preview(0, emission(f"_{word}_|" + "_" * silence))
        told.append((texts(stitcher.stable), stitcher.unchanged))
    assert told == [([], [0]), ([], [10]), ([], [0]), ([], [0]), ([], [10]), (["SO"], [])]


def test_a_word_that_was_spelled_otherwise_before_is_tentative():
    stitcher = stitching(0)
    stitcher.preview(0, emission("_SO_|_" + PAUSE))
    stitcher.preview(0, emission("_NO_|_" + PAUSE))
    assert (texts(stitcher.stable), texts(stitcher.tentative)) == ([], ["NO"])


def test_stable_words_withstand_a_later_window():
    stitcher = stitching(0)
    heard_out(stitcher, emission("_SO_|_" + PAUSE + "_WE"))
    stitcher.preview(0, emission("_NO_|_" + PAUSE + "_WE_ARE_|"))
    assert texts(stitcher.stable) == ["SO"]
    assert texts(stitcher.tentative) == ["WEARE"]


def test_a_hole_freezes_stable_and_joins_nothing():
    truth = emission("SO_|_" + PAUSE + "WE_|__CAN_|_SET_|_IT_|__")
    stitcher = stitching(0)
    heard_out(stitcher, truth[:36])
    assert texts(stitcher.stable) == ["SO"]
    known = stitcher.emission.copy()
    for end in (55, 57, 59):
        read = stitcher.preview(43, truth[43:end])
        assert texts(stitcher.stable) == ["SO"]
        assert texts(stitcher.tentative) == texts(decode(truth[43:end], VOCABULARY))
        assert np.array_equal(read, truth[43:end])
    assert np.array_equal(stitcher.emission, known)
    assert texts(stitcher.finish(truth, split=False)[0]) == ["SO", "WE", "CAN", "SET", "IT"]


def test_frames_that_windows_slide_past_are_settled_inside_a_word():
    path = "_" + "A_B_" * 20 + "|" + PAUSE
    truth = emission(path)
    stitcher = stitching()
    for end in range(16, len(path), 8):
        first = max(0, end - 24)
        stitcher.preview(first, truth[first:end])
    for _ in range(2):
        stitcher.preview(len(path) - 34, truth[-34:])
    assert texts(stitcher.stable) == ["AB" * 20]
