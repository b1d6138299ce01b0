"""What a session asks of the text of one utterance, whichever kind of model recognizes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamer.messages import Reading, Window, Word


@dataclass(frozen=True, slots=True)
class Preview:
    """The words of an utterance so far: `stable` ones only grow, `tentative` ones may change."""

    stable: tuple[str, ...]
    tentative: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FinalText:
    """The text of a whole utterance, which lies between model samples `start` and `end`.

    `words` are spelled for people and timed in seconds of the stream, `raw` is as the model spells
    them, `retracted` counts the stable words that they contradict. No words: it was no speech.
    """

    start: int
    end: int
    words: tuple[Word, ...]
    raw: str
    retracted: int


class Hypothesis(Protocol):
    """One utterance's text: pure, and its speaker's own."""

    @property
    def draft(self) -> tuple[int, ...]:
        """Tokens that a decoder of the next window may try first."""

    @property
    def settled_until(self) -> int:
        """The model sample before which no preview will change a word any more; 0 for none."""

    def update(self, window: Window, reading: Reading) -> Preview:
        """Take what was recognized of a preview, or of what is likely to be the final window."""

    def close(self, window: Window, reading: Reading) -> FinalText:
        """Take what was recognized of the final window. Nothing may be updated afterwards."""

    def following(self) -> Hypothesis:
        """A new one for the utterance after this, once this was closed."""


def contradicted(stable: list[str], final: list[str]) -> int:
    """How many of the `stable` words the `final` text does not have at their place.

    The stable words are aligned to a beginning of the final ones with the fewest edits; those
    substituted or deleted are counted.
    """
    # One row of the edit distance at a time; each cell holds (edits, stable words lost).
    row = [(j, 0) for j in range(len(final) + 1)]
    for i, word in enumerate(stable, start=1):
        above, row = row, [(i, i)]
        for j, other in enumerate(final, start=1):
            same = word == other
            row.append(
                min(
                    (above[j - 1][0] + (not same), above[j - 1][1] + (not same)),
                    (above[j][0] + 1, above[j][1] + 1),
                    (row[j - 1][0] + 1, row[j - 1][1]),
                )
            )
    return min(row)[1]


def beginning(shown: Sequence[str], words: Sequence[str]) -> int:
    """How many of `words` what was `shown` stands for: the beginning of fewest edits.

    Of several the longest: a wrong last word more likely stands for another than beside one.
    """
    row = list(range(len(words) + 1))
    for i, word in enumerate(shown, start=1):
        above, row = row, [i]
        for j, other in enumerate(words, start=1):
            row.append(min(above[j - 1] + (word != other), above[j] + 1, row[j - 1] + 1))
    least = min(row)
    return max(j for j, edits in enumerate(row) if edits == least)
