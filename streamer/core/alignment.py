"""Where in an emission a given text is: its most probable path, frame by frame (Viterbi)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from streamer.core.ctc import Path, Vocabulary
    from streamer.messages import LogProbs


def align(text: Sequence[int], log_probs: LogProbs, vocabulary: Vocabulary) -> Path:
    """The most probable of the paths that spell a text.

    Args:
        text: ids of its letters and of one delimiter between each two words.
        log_probs: shape (frames, vocabulary); frames enough for the text, and at least one.
        vocabulary: what the columns mean.

    Returns:
        A token's id for each frame. A delimiter after the last word is on the path where that is
        more probable than none.
    """
    # States are a gap before each token and one after the last. Gaps hold what is never shown;
    # around the text and after a delimiter another delimiter shows as little.
    hidden = np.array(sorted({vocabulary.blank} | vocabulary.special))
    silent = hidden[log_probs[:, hidden].argmax(axis=1)]
    tokens = np.empty((len(log_probs), 2 * len(text) + 1), np.intp)
    tokens[:, 0::2] = silent[:, None]
    tokens[:, 1::2] = text
    if vocabulary.delimiter is not None:
        loose = [0, 2 * len(text), *(2 * i + 2 for i in _places(text, vocabulary.delimiter))]
        parts = log_probs[:, vocabulary.delimiter] > log_probs[np.arange(len(silent)), silent]
        tokens[np.ix_(parts, loose)] = vocabulary.delimiter
    emission = np.take_along_axis(log_probs, tokens, axis=1).astype(np.float64)
    skipping = np.full(tokens.shape[1], -np.inf)
    skipping[3::2] = np.where(np.diff(np.array(text, np.intp)) != 0, 0.0, -np.inf)

    # Two states that nothing comes from stand before the first.
    scores = np.full(tokens.shape[1] + 2, -np.inf)
    scores[2:4] = emission[0, :2]
    moves = np.zeros(tokens.shape, np.int8)
    for frame in range(1, len(emission)):
        score, step, skip = scores[2:], scores[1:-1], scores[:-2] + skipping
        best = np.maximum(score, step)
        moves[frame] = np.where(skip > best, 2, step > score)
        scores[2:] = np.maximum(best, skip) + emission[frame]
    score = scores[2:]
    state = len(score) - 1
    if len(score) > 1 and score[-2] > score[-1]:
        state -= 1
    path = np.empty(len(tokens), np.intp)
    for frame in range(len(tokens) - 1, -1, -1):
        path[frame] = tokens[frame, state]
        state -= int(moves[frame, state])
    return path


def _places(text: Sequence[int], token: int) -> list[int]:
    return [place for place, other in enumerate(text) if other == token]
