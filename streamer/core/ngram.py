"""A word n-gram model with backoff, as ARPA files hold it."""

from __future__ import annotations

import math
from collections.abc import Mapping

BEGINNING, UNKNOWN = "<s>", "<unk>"
"""How the files call a sentence's beginning and a word that is not in them."""
NEVER = -20.0
"""Of an unknown word, where the model gives it no probability: natural logarithm."""


class NGram:
    """Probabilities of words after words. All logarithms are natural.

    Args:
        probabilities: of each n-gram, its words joined by single spaces, the last after the others.
        backoffs: of n-grams that others begin with, by which shorter ones are multiplied.
        order: words of the longest n-grams.

    Attributes:
        order: words of the longest n-grams.
        start: the context at the beginning of an utterance.
    """

    def __init__(
        self, probabilities: Mapping[str, float], backoffs: Mapping[str, float], order: int
    ) -> None:
        self._probabilities, self._backoffs, self.order = probabilities, backoffs, order
        self.start = BEGINNING if order > 1 and BEGINNING in probabilities else ""
        self._best: dict[str, float] = {}
        for word in self.words():
            probability = probabilities[word]
            for end in range(1, len(word) + 1):
                if probability > self._best.get(word[:end], -math.inf):
                    self._best[word[:end]] = probability

    def __contains__(self, word: str) -> bool:
        return word in self._probabilities

    def words(self) -> list[str]:
        """All words that are known."""
        return [word for word in self._probabilities if " " not in word and word[0] != "<"]

    def ahead(self, beginning: str) -> float | None:
        """Of the known words that begin so, the best one's probability without a context."""
        return self._best.get(beginning)

    def score(self, context: str, word: str) -> tuple[float, str]:
        """The logarithm of a word's probability after a context, and the context after it."""
        if word not in self._probabilities:
            word = UNKNOWN
        total = 0.0
        while True:
            found = f"{context} {word}" if context else word
            probability = self._probabilities.get(found)
            if probability is not None or not context:
                break
            total += self._backoffs.get(context, 0.0)
            context = context.partition(" ")[2]
        if probability is None:
            return total + NEVER, ""
        # Where an n-gram is not there no longer one that ends with it is.
        while found.count(" ") >= self.order - 1 and found:
            found = found.partition(" ")[2]
        return total + probability, found
