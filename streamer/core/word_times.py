"""When the words of a text were said: forced alignment on a CTC network's emission.

A CTC network hears when letters are spoken, whoever wrote them. The most probable path that spells
the text gives each word its frames. What the network has no letters for (digits, signs) is a
wildcard on the path: it takes what lies between its neighbours.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from streamer.core.alignment import align

if TYPE_CHECKING:
    from streamer.core.ctc import Vocabulary
    from streamer.messages import LogProbs

WILDCARD_COST = 0.1
"""Nats a frame for a wildcard, below the frame's best token: letters and blanks take their own
frames first."""

_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ`´", "'"))


def spelled(word: str, vocabulary: Vocabulary) -> list[int]:
    """The ids of a word's letters; none if it holds what has no letters, such as a digit."""
    plain = unicodedata.normalize("NFKD", word.translate(_APOSTROPHES))
    if any(letter.isnumeric() for letter in plain):
        return []
    ids = {token: id_ for id_, token in enumerate(vocabulary.tokens)}
    letters = (ids.get(letter.upper(), ids.get(letter.lower())) for letter in plain)
    return [letter for letter in letters if letter is not None]


def word_frames(
    words: Sequence[str], emission: LogProbs, vocabulary: Vocabulary
) -> list[tuple[int, int]]:
    """The frames of each word, from `start` (inclusive) to `end` (exclusive).

    They are in order, inside the emission, and none is empty as long as there are as many frames
    as words.

    Args:
        words: as written; punctuation does not matter.
        emission: shape (frames, vocabulary).
        vocabulary: what its columns mean; it has a delimiter.
    """
    assert vocabulary.delimiter is not None
    if not words:
        return []
    wildcard = len(vocabulary.tokens)
    text: list[int] = []
    bounds: list[tuple[int, int]] = []
    for word in words:
        if text:
            text.append(vocabulary.delimiter)
        letters = spelled(word, vocabulary) or [wildcard]
        bounds.append((len(text), len(text) + len(letters)))
        text += letters
    repeats = sum(one == other for one, other in pairwise(text))
    if len(emission) < len(text) + repeats:
        return _in_proportion(words, len(emission))
    joker = emission.max(axis=1, keepdims=True) - np.float32(WILDCARD_COST)
    path = align(text, np.concatenate((emission, joker), axis=1), vocabulary)
    places = _places(path.tolist(), text, vocabulary)
    frames = [(places[first][0], places[end - 1][1]) for first, end in bounds]
    for index, (first, end) in enumerate(bounds):
        if text[first:end] == [wildcard]:
            before = frames[index - 1][1] if index else frames[index][0]
            after = frames[index + 1][0] if index + 1 < len(frames) else frames[index][1]
            frames[index] = before, max(before + 1, after)
    return frames


def spelling_cost(words: Sequence[str], emission: LogProbs, vocabulary: Vocabulary) -> float | None:
    """How much less probable the text is than what the network spells by itself, in nats a letter.

    Words of a voice that the network hears come near to what it spells; words that were made up for
    a noise do not. `None` for a text without letters, infinite where there are too few frames.

    Args:
        words: as written.
        emission: shape (frames, vocabulary).
        vocabulary: what its columns mean.
    """
    assert vocabulary.delimiter is not None
    text: list[int] = []
    for word in words:
        if letters := spelled(word, vocabulary):
            text += [vocabulary.delimiter, *letters] if text else letters
    if not text:
        return None
    if len(emission) < len(text) + sum(one == other for one, other in pairwise(text)):
        return math.inf
    path = align(text, emission, vocabulary)
    lost = emission.max(axis=1) - emission[np.arange(len(path)), path]
    return float(lost.sum()) / len(text)


def _places(
    path: Sequence[int], text: Sequence[int], vocabulary: Vocabulary
) -> list[tuple[int, int]]:
    """Where each token of the text lies on a path that spells it."""
    hidden = {vocabulary.blank, *vocabulary.special}
    runs: list[tuple[int, int, int]] = []
    for frame, token in enumerate(path):
        if frame and token == path[frame - 1]:
            runs[-1] = runs[-1][0], runs[-1][1], frame + 1
        else:
            runs.append((token, frame, frame + 1))
    # Beside the text's own delimiters, others may stand where they show as little.
    places: list[tuple[int, int]] = []
    for token, start, end in runs:
        if token in hidden:
            continue
        if len(places) < len(text) and token == text[len(places)]:
            places.append((start, end))
    assert len(places) == len(text), "the path spells the text"
    return places


def _in_proportion(words: Sequence[str], frames: int) -> list[tuple[int, int]]:
    """Too few frames for the letters: each word as long as its spelling, and at least one frame."""
    ends = np.cumsum([len(word) for word in words]) / sum(len(word) for word in words) * frames
    places: list[tuple[int, int]] = []
    at = 0
    for index, end in enumerate(ends):
        left = len(words) - 1 - index
        stop = max(at + 1, min(round(float(end)), frames - left))
        places.append((at, stop))
        at = stop
    return places
