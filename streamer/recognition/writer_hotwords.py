"""Words to expect, for models that write tokens: a phrase takes a word's place where it explains
the sound nearly as well.

A bonus on the logits of a phrase's first token would begin phrases that then cannot be gone on
with. So the model writes its own word first. Then each phrase that might have begun in the same
place is written instead, all its tokens in one run: it is taken if its tokens' logarithmic
probability, and a bonus for each of them, are more than the word's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from streamer.recognition.moonshine_files import Tokenizer

BONUS = 1.5
"""Nats for each token of a phrase; chosen by ``python -m training.writer_biasing``."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A phrase that may begin at some place."""

    tokens: tuple[int, ...]
    first: float
    """The logarithmic probability of its first token there."""


@dataclass(frozen=True, slots=True)
class Found:
    """A phrase that is better than the model's own word."""

    tokens: tuple[int, ...]
    probability: float
    """That it is the phrase rather than the word."""


class Phrases:
    """Words and phrases as tokens.

    Args:
        phrases: as they are to be written. One without a capital gets one where a sentence begins.
        tokenizer: of the model.
        bonus: in nats, for each token.
    """

    def __init__(
        self, phrases: Sequence[str], tokenizer: Tokenizer, *, bonus: float = BONUS
    ) -> None:
        self._bonus = bonus
        spellings = dict.fromkeys(
            spelling
            for phrase in phrases
            for spelling in (phrase, phrase[:1].upper() + phrase[1:])
            if spelling == phrase or phrase.islower()
        )
        self._phrases = [tuple(tokenizer.encode(spelling)) for spelling in spellings]
        self._first = np.array([phrase[0] for phrase in self._phrases], np.int64)
        self._ends_word = tokenizer.ends_word

    def candidates(self, logits: Any) -> list[Candidate]:
        """All of them, for a place where these are the logits: shape (tokens,)."""
        first = _logs(logits)[self._first]
        return [*map(Candidate, self._phrases, map(float, first))]

    def promising(
        self, candidates: Sequence[Candidate], own: Sequence[int], probabilities: Sequence[float]
    ) -> list[Candidate]:
        """Those that can be better than the model's own word: none, if that is one of them.

        Args:
            candidates: of the place where the word begins.
            own: the word's tokens.
            probabilities: of them.
        """
        if any(tuple(own[: len(one.tokens)]) == one.tokens for one in candidates):
            return []
        least = _log(probabilities)
        return [one for one in candidates if one.first + self._bonus * len(one.tokens) > least]

    def best(
        self,
        candidates: Sequence[Candidate],
        probabilities: Sequence[float],
        write: Callable[[Sequence[int]], Any],
    ) -> Found | None:
        """The most probable candidate, if it is better than the model's own word.

        Args:
            candidates: that are promising.
            probabilities: of the word's tokens.
            write: gives the logits after each of some tokens that are written in its place: shape
                (those, tokens).
        """
        own = most = _log(probabilities)
        found = None
        for one in candidates:
            if one.first + self._bonus * len(one.tokens) <= most:
                continue
            logs = _logs(write(one.tokens))
            following = one.tokens[1:]
            score = one.first + float(logs[np.arange(len(following)), list(following)].sum())
            score += float(np.logaddexp.reduce(logs[-1][self._ends_word]))
            score += self._bonus * len(one.tokens)
            if score > most:
                most = score
                found = Found(one.tokens, 1 / (1 + math.exp(max(own - score, -50.0))))
        return found


def _log(probabilities: Sequence[float]) -> float:
    return sum(map(math.log, probabilities))


def _logs(logits: Any) -> Any:
    """Logarithmic probabilities along the last axis."""
    peak = logits.max(axis=-1, keepdims=True)
    total = np.exp(logits - peak).sum(axis=-1, keepdims=True)
    return logits - peak - np.log(total)
