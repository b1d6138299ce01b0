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

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from streamer.core.ctc import Decoder, FrameWord, Vocabulary
    from streamer.messages import LogProbs


class Stitcher:
    """The emission of one segment, as far as it is known. Frames count from its beginning.

    Args:
        vocabulary: what the columns of the emissions mean.
        decoder: what decodes them.
        right_context: frames that must follow a word before it is stable.
        settle_frames: for how many frames it must have been decoded the same before.
        settles: whether a word with so many frames after it is sure to stay.

    Attributes:
        emission: what is known, shape (frames, vocabulary).
        carried: its first frames that belong to a word which a split cut off from the segment
            before.
        stable, tentative: the words; `stable` only grows.
        unchanged: for each tentative word, how many frames have become known since it was first
            read as it is.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        decoder: Decoder,
        *,
        right_context: int,
        settle_frames: int,
        settles: Callable[[FrameWord, int], bool],
    ) -> None:
        self._vocabulary = vocabulary
        self._decode = decoder
        self._right_context = right_context
        self._settle_frames = settle_frames
        self._settles = settles
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
            if unchanged[index] < self._settle_frames or not self._settles(word, known - word.end):
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
        following = Stitcher(
            self._vocabulary,
            self._decode,
            right_context=self._right_context,
            settle_frames=self._settle_frames,
            settles=self._settles,
        )
        ahead = self.emission[self.carried + len(log_probs) :]
        self.foresee(log_probs)
        assert self._whole
        self.emission, words = self._whole[0], list(self._whole[1])
        if not split:
            return words, following
        # What was carried here and goes on to the end is no word, and must not grow for ever.
        parted = self._vocabulary.parts_words
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
