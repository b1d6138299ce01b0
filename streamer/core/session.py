"""One speaker's whole state, free of I/O.

    session.feed(block)              -> windows to recognize
    session.accept(window, emission) -> events to show
    session.finish()                 -> the last windows

The recognizer is called in between, by whoever drives the session: in real time for a
microphone, faster for a file, batched with others on a server. Windows must be accepted in the
order in which they were given; previews (not `last`) may be left out.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from itertools import compress, takewhile
from typing import TYPE_CHECKING

import numpy as np

from streamer.core.ctc import GreedyDecoder, certainty
from streamer.core.resample import Resampler
from streamer.core.segmenter import Segmenter
from streamer.core.stitcher import Stitcher, contradicted
from streamer.errors import InputError
from streamer.messages import (
    SAMPLE_RATE,
    Block,
    Final,
    Gap,
    Partial,
    SessionEnded,
    Window,
    Word,
)

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.core.ctc import Calibration, Decoder, FrameGrid, FrameWord, Vocabulary
    from streamer.core.segmenter import Detector
    from streamer.messages import LogProbs

SHOWN_CHANCE, SHOWN_AFTER_MS = 0.77, 160
"""A word that may still change is shown when it is likely to stay or was read the same before, but
not at the very edge of what was heard. Measured, see docs/quality.md."""
SHORT_TEXT_LETTERS = 8
SHORT_TEXT_FACTOR = 4 / 3
"""So few letters must be so much more certain: a word or two is what noise most often spells. Of
489 recorded utterances this drops seven, none of them understood; of 354 stretches of noise at
six settings it lets through two, and none at the default settings."""
SPARSE_LETTERS_A_SECOND, SURE_IN_SPARSE_TEXT = 0.5, 0.9
"""Speech has ten letters a second; a hiss that is taken for it for seconds spells one or two, and
none of them surely."""


def require_numbers(block: Block, rate: int) -> None:
    """Raise an `InputError` that says where, if a sample of the block is not a finite number."""
    bad = np.flatnonzero(~np.isfinite(block.samples))
    if len(bad):
        at = (block.start + int(bad[0])) / rate
        raise InputError(f"the audio holds a sample that is no number (NaN) at {at:.3f} s")


class Session:
    """Blocks at `source_rate` in, windows out; emissions in, events out.

    Args:
        source_rate: samples a second of the blocks.
        settings: segmentation, cadence and text.
        vocabulary, grid: the recognizer's.
        detector: a voice detector of this session's own.
        previews: whether partial transcripts are wanted.
        calibration: the recognizer's; without one, a word's confidence is the geometric mean of
            its letters' probabilities.
        decoder: what decodes the emissions; greedy where not given.

    Event times are seconds on the stream's clock; `at` is the stream time of the sample that made
    the event possible, which a driver with a real clock replaces by the time it is shown.
    """

    def __init__(
        self,
        source_rate: int,
        settings: Settings,
        vocabulary: Vocabulary,
        grid: FrameGrid,
        detector: Detector,
        *,
        previews: bool = True,
        calibration: Calibration | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        self._rate = source_rate
        self._calibration = calibration
        self._settings = settings
        self._vocabulary = vocabulary
        self._raw = settings.raw or vocabulary.mixed_case
        self._grid = grid
        self._resampler = Resampler(source_rate)
        self._segmenter = Segmenter(settings, grid, detector, previews=previews)
        right_context = settings.right_context_ms * SAMPLE_RATE // 1000 // grid.hop
        self._decoder = decoder or GreedyDecoder(vocabulary)
        self._stitcher = Stitcher(vocabulary, self._decoder, right_context)
        self._shown: tuple[str, str] = ("", "")
        self._stable: list[FrameWord] = []
        self._lengths: deque[int] = deque()  # source samples of each segment to be accepted
        self._unbroken_from = 0  # no audio is missing since this source sample
        self._received = 0
        self._lost = 0
        self._speech = 0
        self._retracted = 0

    def feed(self, item: Block | Gap) -> list[Window]:
        """Take the next block, or the news that audio is missing.

        Raises:
            InputError: a sample is not a finite number; the blocks before are not affected.
            ValueError: the item does not begin where the one before ended.
        """
        if item.start != self._received:
            raise ValueError(f"expected sample {self._received}, got {item.start}")
        if isinstance(item, Gap):
            return self._skip(item)
        require_numbers(item, self._rate)
        self._received = item.end
        return self._measured(self._segmenter.push(self._resampler.push(item.samples)))

    def finish(self) -> list[Window]:
        """End the stream; nothing may be fed afterwards. Gives what the tail still needs."""
        windows = self._segmenter.push(self._resampler.flush())
        return self._measured(windows + self._segmenter.flush())

    def _skip(self, gap: Gap) -> list[Window]:
        """Words are not joined across missing audio: the open utterance ends before it."""
        windows = self.finish()
        self._received = self._unbroken_from = gap.end
        self._lost += gap.end - gap.start
        self._resampler = Resampler(self._rate)
        self._segmenter.skip_to(round(gap.end * SAMPLE_RATE / self._rate))
        return windows

    def _measured(self, windows: list[Window]) -> list[Window]:
        """Note how much was received for each segment: later on that could include a gap."""
        for window in windows:
            if window.last:
                self._lengths.append(self._source(window.offset) - self._source(window.onset))
        return windows

    def accept(self, window: Window, log_probs: LogProbs) -> list[Partial | Final]:
        """Take a window's emission, shape (frames, vocabulary): what can be shown now."""
        if window.last:
            return self._finalize(window, log_probs)
        if window.whole:
            self._stitcher.foresee(log_probs[window.left :])
        first = (window.start - window.onset) // self._grid.hop + window.left
        emission = self._stitcher.preview(first, log_probs[window.left :])
        return self._partial(window, emission)

    def ended(self) -> SessionEnded:
        """The account of everything received, once the last window has been accepted."""
        return SessionEnded(
            captured=self._received,
            speech=self._speech,
            silence=self._received - self._lost - self._speech,
            lost=self._lost,
            rate=self._rate,
            retracted=self._retracted,
        )

    def _partial(self, window: Window, emission: LogProbs) -> list[Partial | Final]:
        stable, tentative = self._stitcher.stable, self._stitcher.tentative
        if self._is_noise([*stable, *tentative], emission):
            tentative = []
            stable = stable[: len(self._stable)]
        unchanged = self._stitcher.unchanged
        worth = map(partial(self._worth_showing, len(emission)), tentative, unchanged)
        tentative = list(compress(tentative, takewhile(bool, worth)))
        spelled = self._spell([*stable, *tentative], opening=not window.continues)
        # A phrase of hotwords that is now complete must not change how its first word was shown.
        settled = self._shown[0].split()
        spelled[: len(settled)] = settled
        self._stable = stable
        shown = (" ".join(spelled[: len(stable)]), " ".join(spelled[len(stable) :]))
        if shown == self._shown:
            return []
        self._shown = shown
        return [
            Partial(
                segment=window.segment,
                start=_seconds(window.onset),
                end=_seconds(window.offset),
                stable=shown[0],
                tentative=shown[1],
                at=_seconds(window.due),
            )
        ]

    def _worth_showing(self, frames: int, word: FrameWord, unchanged: int) -> bool:
        """Whether a word that may change should be seen, `frames` of its emission being known.

        What is shown and changed a moment later is harder to read than what comes later.
        """
        heard = frames - word.end
        heard_ms = heard * self._grid.hop * 1000 // SAMPLE_RATE
        if heard_ms < SHOWN_AFTER_MS:
            return False
        return unchanged > 0 or self._stitcher.chance_to_stay(word, frames) >= SHOWN_CHANCE

    def _finalize(self, window: Window, log_probs: LogProbs) -> list[Partial | Final]:
        inside = log_probs[window.left : len(log_probs) - window.right]
        split = window.right > 0
        stitcher = self._stitcher
        words, self._stitcher = stitcher.finish(inside, split=split)
        if self._is_noise(words, stitcher.emission):
            words = []
        raw = [word.text for word in words]
        spelled = self._spell(words, opening=not window.continues)
        # What was shown of the audio behind a split belongs to the next segment.
        ours = len(stitcher.emission) - self._stitcher.carried
        shown = [word.text for word in self._stable if not split or word.end <= ours]
        self._retracted += contradicted(shown, raw)
        was_shown = self._shown != ("", "")
        self._shown, self._stable = ("", ""), []
        length = self._lengths.popleft()
        if not words and not was_shown:
            return []
        if words:
            self._speech += length
        first = window.onset - stitcher.carried * self._grid.hop
        timed = tuple(
            Word(
                text,
                _seconds(first + word.start * self._grid.hop),
                _seconds(first + word.end * self._grid.hop),
                round(self._calibration(word) if self._calibration else word.confidence, 4),
            )
            for text, word in zip(spelled, words, strict=True)
        )
        return [
            Final(
                segment=window.segment,
                start=_seconds(first),
                end=_seconds(window.offset - self._stitcher.carried * self._grid.hop),
                text=" ".join(spelled),
                raw=" ".join(raw),
                words=timed,
                at=_seconds(window.due),
            )
        ]

    def _is_noise(self, words: list[FrameWord], emission: LogProbs) -> bool:
        """The second gate: a voice detector takes much for speech that a recognizer does not."""
        letters = sum(len(word.text) for word in words)
        least = self._settings.min_certainty
        if letters <= SHORT_TEXT_LETTERS:
            least = min(1.0, SHORT_TEXT_FACTOR * least)
        seconds = len(emission) * self._grid.hop / SAMPLE_RATE
        if letters < SPARSE_LETTERS_A_SECOND * seconds and all(
            word.confidence < SURE_IN_SPARSE_TEXT for word in words
        ):
            return True
        return certainty(emission, self._vocabulary) < least

    def _spell(self, words: list[FrameWord], *, opening: bool) -> list[str]:
        raw = [word.text for word in words]
        return raw if self._raw else self._decoder.spell(raw, opening=opening)

    def _source(self, model_sample: int) -> int:
        """Of the audio since the last gap, the source sample that is nearest."""
        nearest = round(model_sample * self._rate / SAMPLE_RATE)
        return min(max(nearest, self._unbroken_from), self._received)


def _seconds(model_sample: int) -> float:
    return model_sample / SAMPLE_RATE
