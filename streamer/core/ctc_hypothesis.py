"""One utterance's text by a CTC network: frames are stitched, then decoded, then judged.

What is worth showing, what is noise and how sure a word is depends on the network: the numbers
come with its checkpoint (`CtcRules`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from itertools import compress, takewhile
from typing import TYPE_CHECKING

from streamer.core.ctc import certainty, doubt
from streamer.core.hypothesis import FinalText, Preview, contradicted
from streamer.core.stitcher import Stitcher
from streamer.messages import SAMPLE_RATE, Word

if TYPE_CHECKING:
    from collections.abc import Callable

    from streamer.config import Settings
    from streamer.core.ctc import Calibration, Decoder, FrameGrid, FrameWord, Vocabulary
    from streamer.core.window_planner import WindowShape
    from streamer.messages import LogProbs, Reading, Window


@dataclass(frozen=True, slots=True)
class CtcRules:
    """How live text is made of one network's emissions; frames are the network's own.

    A word of a preview stays with a chance that is a logistic curve of the frames heard after it
    (up to `stay_frames`) and of the square root of the doubt about its letters, which counts for
    less with a language model (`stay_by_doubt_with_lm`); `training/staying.py` fits it.

    It is stable from a chance of `settle_chance` once it was decoded the same for `settle_frames`;
    it is shown from `show_chance`, or if it was decoded the same before, but not within
    `show_after_frames` of the newest audio.

    A text of up to `short_letters` must be `short_factor` times as certain as others: noise most
    often spells a word or two. One of fewer than `sparse_letters_a_second` is noise unless a word
    in it has a confidence of `sparse_confidence`: a hiss that is taken for speech for seconds
    spells one or two letters, and none of them surely.

    Frames nearer than `edge_ms` to the left edge of a window that begins inside speech are not
    used; `context_ms` of audio beyond a split are recognized with either side.
    """

    stay_bias: float
    stay_by_frame: float
    stay_frames: int
    stay_by_doubt: float
    stay_by_doubt_with_lm: float
    settle_chance: float
    settle_frames: int
    show_chance: float
    show_after_frames: int
    short_letters: int
    short_factor: float
    sparse_letters_a_second: float
    sparse_confidence: float
    edge_ms: int
    context_ms: int

    def chance_to_stay(self, word: FrameWord, heard: int, *, with_lm: bool) -> float:
        """How likely a word that was decoded from a preview is to be in the final text, 0 … 1.

        A word at the edge of what was heard, by `heard` frames, is often cut, and one of doubtful
        letters often misheard.
        """
        logit = self.stay_bias + self.stay_by_frame * min(heard, self.stay_frames)
        slope = self.stay_by_doubt_with_lm if with_lm else self.stay_by_doubt
        logit -= slope * math.sqrt(doubt(word))
        return 0.5 + 0.5 * math.tanh(0.5 * logit)


@dataclass(frozen=True, slots=True)
class CtcModel:
    """What a hypothesis knows of its recognizer. All of it is shared and read-only.

    `calibration` tells what a word's confidence is worth, where that is known.
    """

    vocabulary: Vocabulary
    shape: WindowShape
    decoder: Decoder
    rules: CtcRules
    calibration: Calibration | None = None

    @property
    def grid(self) -> FrameGrid:
        """How samples become frames."""
        return self.shape.grid

    def chance_to_stay(self, word: FrameWord, heard: int) -> float:
        """See `CtcRules`; a decoder that knows language makes up for doubt."""
        with_lm = self.decoder.has_language_model
        return self.rules.chance_to_stay(word, heard, with_lm=with_lm)


class CtcHypothesis:
    """See `streamer.core.hypothesis.Hypothesis`.

    Args:
        model: its recognizer's.
        settings: of which `right_context_ms`, `min_certainty` and `raw` are read.
        stitcher: of this utterance; a new one where not given.
        follows_split: whether the utterance was cut from the one before.

    Attributes:
        stitcher: what is known of the utterance's frames, and the words that they spell.
    """

    draft = ()
    settled_until = 0

    def __init__(
        self,
        model: CtcModel,
        settings: Settings,
        stitcher: Stitcher | None = None,
        *,
        follows_split: bool = False,
    ) -> None:
        self._model = model
        self._settings = settings
        self._raw = settings.raw or model.vocabulary.mixed_case
        right_context = settings.right_context_ms * SAMPLE_RATE // 1000 // model.grid.hop
        self.stitcher = stitcher or Stitcher(
            model.vocabulary,
            model.decoder,
            right_context=right_context,
            settle_frames=model.rules.settle_frames,
            settles=partial(_settles, model),
        )
        self._follows_split = follows_split
        self._next: CtcHypothesis | None = None
        self._stable: list[FrameWord] = []
        self._spelled: list[str] = []  # as they were shown

    def update(self, window: Window, reading: Reading) -> Preview:
        """Stitch the window's frames to those that are known."""
        log_probs, left = _emission(reading), self._left(window)
        if window.kind == "likely_final":
            self.stitcher.foresee(log_probs[left:])
        first = (window.start - window.speech_start) // self._model.grid.hop + left
        emission = self.stitcher.preview(first, log_probs[left:])
        stable, tentative = self.stitcher.stable, self.stitcher.tentative
        if self._is_noise([*stable, *tentative], emission):
            tentative = []
            stable = stable[: len(self._stable)]
        worth = map(partial(self._worth_showing, len(emission)), tentative, self.stitcher.unchanged)
        tentative = list(compress(tentative, takewhile(bool, worth)))
        spelled = self._spell([*stable, *tentative], opening=not window.continues)
        # A phrase of hotwords that is now complete must not change how its first word was shown.
        spelled[: len(self._spelled)] = self._spelled
        self._stable, self._spelled = stable, spelled[: len(stable)]
        return Preview(tuple(spelled[: len(stable)]), tuple(spelled[len(stable) :]))

    def close(self, window: Window, reading: Reading) -> FinalText:
        """Decode the whole utterance's frames."""
        log_probs, hop = _emission(reading), self._model.grid.hop
        inside = log_probs[self._left(window) : len(log_probs) - self._right(window)]
        words, following = self.stitcher.finish(inside, split=window.split)
        self._next = CtcHypothesis(
            self._model, self._settings, following, follows_split=window.split
        )
        if self._is_noise(words, self.stitcher.emission):
            words = []
        raw = [word.text for word in words]
        spelled = self._spell(words, opening=not window.continues)
        # What was shown of the audio behind a split belongs to the next segment.
        ours = len(self.stitcher.emission) - following.carried
        shown = [w.text for w in self._stable if not window.split or w.end <= ours]
        first = window.speech_start - self.stitcher.carried * hop
        calibration: Callable[[FrameWord], float] = self._model.calibration or _own_confidence
        return FinalText(
            start=first,
            end=window.speech_end - following.carried * hop,
            words=tuple(
                Word(
                    text,
                    (first + word.start * hop) / SAMPLE_RATE,
                    (first + word.end * hop) / SAMPLE_RATE,
                    round(calibration(word), 4),
                )
                for text, word in zip(spelled, words, strict=True)
            ),
            raw=" ".join(raw),
            retracted=contradicted(shown, raw),
        )

    def following(self) -> CtcHypothesis:
        """One that knows the frames of a word that a split may have cut in two."""
        assert self._next
        return self._next

    def _left(self, window: Window) -> int:
        """How many of the window's first frames are context only."""
        grid, shape = self._model.grid, self._model.shape
        outside = max(0, window.speech_start - window.start)
        whole_from = window.speech_start - (shape.context if self._follows_split else 0)
        edge = shape.edge if window.start > whole_from else 0
        return max(outside, edge) // grid.hop

    def _right(self, window: Window) -> int:
        """How many of its last frames are context only."""
        if not window.split:
            return 0
        grid = self._model.grid
        edge = grid.receptive - grid.hop
        return (window.start + len(window.samples) - edge - window.speech_end) // grid.hop

    def _worth_showing(self, frames: int, word: FrameWord, unchanged: int) -> bool:
        """Whether a word that may change should be seen, `frames` of its emission being known.

        What is shown and changed a moment later is harder to read than what comes later.
        """
        heard = frames - word.end
        if heard < self._model.rules.show_after_frames:
            return False
        return (
            unchanged > 0
            or self._model.chance_to_stay(word, heard) >= self._model.rules.show_chance
        )

    def _is_noise(self, words: list[FrameWord], emission: LogProbs) -> bool:
        """The second gate: a voice detector takes much for speech that a recognizer does not."""
        rules = self._model.rules
        letters = sum(len(word.text) for word in words)
        least = self._settings.min_certainty
        if letters <= rules.short_letters:
            least = min(1.0, rules.short_factor * least)
        seconds = len(emission) * self._model.grid.hop / SAMPLE_RATE
        if letters < rules.sparse_letters_a_second * seconds and all(
            word.confidence < rules.sparse_confidence for word in words
        ):
            return True
        return certainty(emission, self._model.vocabulary) < least

    def _spell(self, words: list[FrameWord], *, opening: bool) -> list[str]:
        raw = [word.text for word in words]
        return raw if self._raw else self._model.decoder.spell(raw, opening=opening)


def _settles(model: CtcModel, word: FrameWord, heard: int) -> bool:
    # All utterances of a stream share it: bound to one, it would keep every other in memory.
    return model.chance_to_stay(word, heard) >= model.rules.settle_chance


def _emission(reading: Reading) -> LogProbs:
    assert reading.emission is not None
    return reading.emission


def _own_confidence(word: FrameWord) -> float:
    return word.confidence
