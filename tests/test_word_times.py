from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from conftest import RECORDINGS
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import TOKENS, VOCABULARY, spelled

from streamer.core.word_times import spelled as letters_of
from streamer.core.word_times import word_frames
from streamer.recognition.checkpoint_files import SEW_TINY_LETTERS
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.sources.files import read_audio


def emission(text: str) -> np.ndarray:
    """One letter a frame: `-` is a blank, `|` a delimiter."""
    return spelled(
        ["-|".find(letter) if letter in "-|" else TOKENS.index(letter) for letter in text]
    )


@pytest.mark.parametrize(
    ("words", "heard", "frames"),
    [
        ("Ab, cab.", "-AB-|CAB-", [(1, 3), (5, 8)]),
        ("a A", "-A-|-A-", [(1, 2), (5, 6)]),
        ("bad 27 cab", "BAD|-EFGH-|CAB", [(0, 3), (3, 11), (11, 14)]),  # what no letter spells
        ("& bad", "-EF-|BAD-", [(1, 5), (5, 8)]),
        ("Bäd", "-BAD-", [(1, 4)]),
    ],
)
def test_words_lie_where_their_letters_are(
    words: str, heard: str, frames: list[tuple[int, int]]
) -> None:
    assert word_frames(words.split(), emission(heard), VOCABULARY) == frames


@pytest.mark.parametrize(
    ("word", "spelling"),
    [("Don’t", "DON'T"), ("naïve,", "NAIVE"), ("3rd", ""), ("—", ""), ("O'Brien's", "O'BRIEN'S")],
)
def test_a_word_is_spelled_in_the_letters_that_there_are(word: str, spelling: str) -> None:
    found = letters_of(word, SEW_TINY_LETTERS)
    assert "".join(SEW_TINY_LETTERS.tokens[letter] for letter in found) == spelling


@settings(max_examples=200, deadline=None)
@given(
    words=st.lists(st.text("ABCDEFGH7&'", min_size=1, max_size=8), max_size=12),
    columns=st.lists(st.integers(0, len(TOKENS) - 1), min_size=1, max_size=90),
)
def test_times_are_in_order_inside_and_none_is_empty(words: list[str], columns: list[int]) -> None:
    frames = word_frames(words, spelled(columns), VOCABULARY)
    assert len(frames) == len(words)
    if len(columns) >= len(words):
        assert all(0 <= start < end <= len(columns) for start, end in frames)
        assert all(before[1] <= after[0] for before, after in pairwise(frames))


def test_a_readers_words_lie_where_the_network_hears_them(recognizer: CtcRecognizer) -> None:
    """The same words, given as text, as its own decoder finds by itself."""
    samples, _ = read_audio(RECORDINGS / "synthesized.flac")
    window = samples[: recognizer.grid.fit(6 * 16_000)]
    log_probs = recognizer.log_probs(window)
    found = recognizer.decoder(log_probs)
    frames = word_frames([word.text for word in found], log_probs, recognizer.vocabulary)
    assert len(found) > 8
    for word, (start, end) in zip(found, frames, strict=True):
        assert abs(word.start - start) <= 3
        assert abs(word.end - end) <= 3
