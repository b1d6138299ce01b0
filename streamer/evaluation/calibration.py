"""Whether confidence means what it says: the chance that a word is right.

A word is right where the alignment of the text with the reference that has the fewest edits
leaves it as it is. The *expected calibration error* sorts all words by confidence, cuts them into
`BINS` parts of equal number, and averages over the words how far the mean confidence of a part is
from the share of its words that are right: 0 is perfect; to say 0.9 of words of which half are
right costs 0.4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import Levenshtein

from streamer.evaluation.metrics import scored

if TYPE_CHECKING:
    from streamer.messages import Word

BINS = 10


@dataclass(slots=True)
class Confidence:
    """Words of final texts: what each claims, and whether it is right; one entry a word."""

    claimed: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def take(self, reference: str, words: Sequence[Word]) -> None:
        """Add the final words of one recording.

        Args:
            reference: what was said, as `scored` gives it.
            words: in order; one that `scored` parts counts as so many.
        """
        parts = [(part, word.confidence) for word in words for part in scored(word.word).split()]
        self.claimed += [claimed for _, claimed in parts]
        self.right += are_right(reference.split(), [part for part, _ in parts])

    def figures(self) -> dict[str, float | None]:
        """The calibration error, the mean confidence, and the share of words that are right."""
        if not self.claimed:
            return {"calibration_error": None, "mean_confidence": None, "words_right": None}
        return {
            "calibration_error": round(calibration_error(self.claimed, self.right), 4),
            "mean_confidence": round(float(np.mean(self.claimed)), 4),
            "words_right": round(float(np.mean(self.right)), 4),
        }


def are_right(said: Sequence[str], heard: Sequence[str]) -> list[bool]:
    """Whether each of the words `heard` stands in what was `said` at its place."""
    right = [False] * len(heard)
    for block in Levenshtein.opcodes(said, heard):
        if block.tag == "equal":
            right[block.dest_start : block.dest_end] = [True] * (block.dest_end - block.dest_start)
    return right


def calibration_error(claimed: Sequence[float], right: Sequence[bool]) -> float:
    """The expected calibration error of confidences, 0 … 1, of words that are right or not.

    Args:
        claimed: shape (words,), at least one.
        right: as many.
    """
    order = np.argsort(claimed, kind="stable")
    off = np.asarray(claimed, float)[order] - np.asarray(right, float)[order]
    # The mean of a part times its share of the words is its sum over all words.
    return float(sum(abs(part.sum()) for part in np.array_split(off, BINS)) / len(off))
