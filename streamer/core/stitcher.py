"""Joins the emissions of overlapping windows into words that stay and words that may change.

Theory of operation. Frames are joined, not strings. A segment's emission is a *settled* prefix,
which never changes, followed by the newest window's frames from there on. The prefix only grows,
and what a CTC path spells in an unchanging prefix is unchanging too: the words that a delimiter
closes inside it are the *stable* ones.

The prefix grows to a place between two words once the words before it have enough audio after
them (an encoder that looks both ways is unreliable near the edge) and were spelled the same in
the window before. So a seam never lies inside a word. Where a word is so long that the windows
slide past its beginning, the prefix grows into it: what the next window cannot see is settled by
the last one that saw it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamer.core.ctc import FrameWord, Vocabulary, decode

if TYPE_CHECKING:
    from streamer.messages import LogProbs


class Stitcher:
    """The emission of one segment, as far as it is known. Frames count from its beginning.

    Args:
        vocabulary: what the columns of the emissions mean.
        right_context: frames that must follow a word before it is stable.
        carried: frames of a word that a split cut off from the segment before, if any.
    """

    def __init__(
        self, vocabulary: Vocabulary, right_context: int, carried: LogProbs | None = None
    ) -> None:
        self._vocabulary = vocabulary
        self._right_context = right_context
        empty = np.zeros((0, len(vocabulary.tokens)), np.float32)
        self.emission: LogProbs = empty if carried is None else carried
        self.carried = self._settled = len(self.emission)
        self._previous: list[str] = []
        self.stable: list[FrameWord] = []
        self.tentative: list[FrameWord] = []

    def preview(self, first: int, log_probs: LogProbs) -> None:
        """Take the emission of a window of a segment that is still being spoken.

        Args:
            first: the frame of the segment that row 0 is.
            log_probs: shape (frames, vocabulary); no frame that is context only.
        """
        first += self.carried
        if first > len(self.emission):
            # Previews were dropped and the windows have slid past frames that nobody recognized.
            # Words must not be joined across the hole: the final text will fill it.
            self.tentative = decode(log_probs, self._vocabulary)
            self._previous = []
            return
        self._settled = max(self._settled, first)
        self.emission = np.concatenate(
            (self.emission[: self._settled], log_probs[self._settled - first :])
        )
        words = decode(self.emission, self._vocabulary)
        reliable = len(self.emission) - self._right_context
        for index in range(len(self.stable), len(words)):
            word = words[index]
            agreed = self._previous[index : index + 1] == [word.text]
            if not agreed or word.closed is None or word.end > reliable:
                break
            # Between the delimiter and the next letter a letter that moves by a frame does no harm.
            following = words[index + 1].start if index + 1 < len(words) else word.closed
            self._settled = max(self._settled, (word.closed + following) // 2)
        closed = [
            word for word in words if word.closed is not None and word.closed <= self._settled
        ]
        self.stable, self.tentative = closed, words[len(closed) :]
        self._previous = [word.text for word in words]

    def finish(self, log_probs: LogProbs, *, split: bool) -> tuple[list[FrameWord], LogProbs]:
        """Read the whole segment's emission.

        Args:
            log_probs: shape (frames, vocabulary), the segment's frames and no context.
            split: whether the segment goes on in the next one.

        Returns:
            Its words, and the frames of a last word that the split may have cut in two: they
            belong before the next segment's. Frames count from the segment's beginning; those of
            a word that was carried here may be negative.
        """
        emission = np.concatenate((self.emission[: self.carried], log_probs))
        words = decode(emission, self._vocabulary)
        rest = emission[:0]
        if split and words and words[-1].closed is None:
            rest = emission[words[-1].start :]
            words = words[:-1]
        return words, rest


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
