"""Joins the emissions of overlapping windows into words that stay and words that may change.

Theory of operation. Frames are joined, not strings. A segment's emission is a *settled* prefix,
which never changes, followed by the newest window's frames, and between them what earlier windows
gave where that one does not reach back so far. What a CTC path spells in an unchanging prefix is
unchanging too: the words that a delimiter closes inside it are the *stable* ones.

The prefix grows to a place between two words once the words before it are sure: likely to stay,
with enough audio after them (an encoder that looks both ways is unreliable near the edge), and
read the same for a while. So no seam lies inside a sure word. A word that is not sure stays
tentative, with all that follow it, until a window or the final text says more.

Reading takes time where language is a part of it, so each window's is from the last place between
two words on before which no window will change a frame any more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from streamer.core.ctc import FrameWord, Vocabulary, doubt

if TYPE_CHECKING:
    from streamer.core.ctc import Decoder
    from streamer.messages import LogProbs


STAY_BIAS, STAY_BY_FRAME = 1.31, 0.0531
STAY_BY_DOUBT, STAY_BY_DOUBT_WITH_LM = 5.19, 2.37
LONG_HEARD = 40
"""Fitted on previews of held-out speech by `python -m training.staying`; frames of 20 ms."""
SURE, UNCHANGED = 0.93, 24
"""A word that is less likely to stay, or was read otherwise fewer frames before, waits for another
window or the final text. Measured, see docs/quality.md."""


def chance_to_stay(word: FrameWord, heard: int, *, with_lm: bool) -> float:
    """How likely a word that was read from a preview is to be in the final text, 0 … 1.

    A word at the edge of what was heard is often cut, and one of doubtful letters often misheard:
    a logistic curve of the frames heard after it and of the square root of the doubt, which counts
    for less where the reader knows language.
    """
    logit = STAY_BIAS + STAY_BY_FRAME * min(heard, LONG_HEARD)
    logit -= (STAY_BY_DOUBT_WITH_LM if with_lm else STAY_BY_DOUBT) * math.sqrt(doubt(word))
    return 0.5 + 0.5 * math.tanh(0.5 * logit)


class Stitcher:
    """The emission of one segment, as far as it is known. Frames count from its beginning.

    Args:
        vocabulary: what the columns of the emissions mean.
        decoder: what decodes them.
        right_context: frames that must follow a word before it is stable.

    Attributes:
        emission: what is known, shape (frames, vocabulary).
        carried: its first frames that belong to a word which a split cut off from the segment
            before.
        stable, tentative: the words; `stable` only grows.
        unchanged: for each tentative word, how many frames have become known since it was first
            read as it is.
    """

    def __init__(self, vocabulary: Vocabulary, decoder: Decoder, right_context: int) -> None:
        self._vocabulary = vocabulary
        self._decode = decoder
        self._right_context = right_context
        self.emission: LogProbs = np.zeros((0, len(vocabulary.tokens)), np.float32)
        self.carried = self._settled = 0
        self._closed: list[FrameWord] = []  # words that previews do not read again, up to here:
        self._read_from = 0
        self._whole: tuple[LogProbs, list[FrameWord]] | None = None
        self._previous: list[FrameWord] = []
        self._since: list[int] = []  # frames known when each of these was first read as it is
        self.stable: list[FrameWord] = []
        self.tentative: list[FrameWord] = []
        self.unchanged: list[int] = []

    def preview(self, first: int, log_probs: LogProbs) -> LogProbs:
        """Take the emission of a window of a segment that is still being spoken.

        Args:
            first: the frame of the segment that row 0 is.
            log_probs: shape (frames, vocabulary); no frame that is context only.

        Returns:
            The emission that the tentative words were read from.
        """
        first += self.carried
        if first > len(self.emission):
            # Previews were dropped and the windows have slid past frames that nobody recognized.
            # Words must not be joined across the hole: the final text will fill it.
            self.tentative = self._decode(log_probs)
            self.unchanged = [0] * len(self.tentative)
            self._previous, self._since = [], []
            return log_probs
        kept = max(self._settled, first)
        self.emission = np.concatenate((self.emission[:kept], log_probs[kept - first :]))
        words = self._words(kept)
        known = len(self.emission)
        same = [one.text == other.text for one, other in zip(words, self._previous, strict=False)]
        same += [False] * (len(words) - len(same))
        self._since = [self._since[i] if same[i] else known for i in range(len(words))]
        unchanged = [known - since for since in self._since]
        reliable = known - self._right_context
        for index in range(len(self.stable), len(words)):
            word = words[index]
            if word.closed is None or word.end > reliable:
                break
            if unchanged[index] < UNCHANGED or self.chance_to_stay(word, known) < SURE:
                break
            self._settled = max(self._settled, _parting(words, index))
        closed = [
            word for word in words if word.closed is not None and word.closed <= self._settled
        ]
        self.stable, self.tentative = closed, words[len(closed) :]
        self.unchanged = unchanged[len(closed) :]
        if self._settled > self._read_from:
            self._closed, self._read_from = list(self.stable), self._settled
        self._previous = words
        return self.emission

    def chance_to_stay(self, word: FrameWord, frames: int) -> float:
        """As the function, for a word of which so many frames of emission are known."""
        return chance_to_stay(word, frames - word.end, with_lm=self._decode.has_language_model)

    def _words(self, kept: int) -> list[FrameWord]:
        """The words of the emission, whose frames before `kept` are as they were."""
        if kept < self._read_from:  # the whole utterance was heard once more
            self._closed, self._read_from = list(self.stable), self._settled
        words = self._previous
        while len(self._closed) < len(words):
            index = len(self._closed)
            if words[index].closed is None or _parting(words, index) > kept:
                break
            self._closed.append(words[index])
            self._read_from = _parting(words, index)
        before = [word.text for word in self._closed]
        read = self._decode(self.emission[self._read_from :], before)
        return [*self._closed, *(word.later(self._read_from) for word in read)]

    def foresee(self, log_probs: LogProbs) -> None:
        """Read the segment's emission now, as `finish` will be asked to if nothing more is said."""
        emission = np.concatenate((self.emission[: self.carried], log_probs))
        if self._whole is None or not np.array_equal(self._whole[0], emission):
            self._whole = emission, self._decode(emission)

    def finish(self, log_probs: LogProbs, *, split: bool) -> tuple[list[FrameWord], Stitcher]:
        """Read the whole segment's emission.

        Args:
            log_probs: shape (frames, vocabulary), the segment's frames and no context.
            split: whether the segment goes on in the next one.

        Returns:
            Its words, whose frames count from the beginning of `emission`, and the stitcher of
            the next segment. After a split that one knows the frames of a last word that may
            have been cut in two, and what previews have told of the audio behind the cut.
        """
        following = Stitcher(self._vocabulary, self._decode, self._right_context)
        ahead = self.emission[self.carried + len(log_probs) :]
        self.foresee(log_probs)
        assert self._whole
        self.emission, words = self._whole[0], list(self._whole[1])
        if not split:
            return words, following
        # What was carried here and goes on to the end is no word, and must not grow for ever.
        parted = self._vocabulary.delimiter is not None
        if parted and words and words[-1].closed is None and words[-1].start > 0:
            rest = self.emission[words.pop().start :]
            following.carried = len(rest)
            ahead = np.concatenate((rest, ahead))
        following.emission = ahead
        return words, following


def _parting(words: Sequence[FrameWord], index: int) -> int:
    """The frame between a closed word and the next, or after it."""
    closed = words[index].closed
    assert closed is not None
    following = words[index + 1].start if index + 1 < len(words) else closed
    # Between the delimiter and the next letter a letter that moves by a frame does no harm.
    return (closed + following) // 2


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
