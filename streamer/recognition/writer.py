"""Two ears: Moonshine, or another writer, writes, and the embedded SEW follows.

window ─┬─ writer ──► words, with probabilities
        └─ SEW ─────► emission: when they were said, and whether it was speech
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from streamer.core.ctc import FrameGrid, certainty, decode
from streamer.core.window_planner import PADDING_LEVEL, WindowShape
from streamer.core.word_times import word_frames
from streamer.core.writer_hypothesis import WriterHypothesis, WriterModel
from streamer.messages import SAMPLE_RATE, Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamer.config import Settings
    from streamer.core.writer_hypothesis import WriterRules
    from streamer.messages import LogProbs, Samples, Window
    from streamer.recognition.ctc_recognizer import CtcRecognizer
    from streamer.recognition.moonshine import Writing

_STEP = SAMPLE_RATE // 50
_SHAPE = WindowShape(
    FrameGrid(hop=_STEP, receptive=_STEP, stride=_STEP),
    context=48 * _STEP,
    hangover_ms=700,
)
"""A writer needs the words around a word. Where 500 ms of silence end an utterance, 107 of those
684 words are wrong, at 600 ms 102, at 700 ms 101, at 800 ms 99, and 98 in whole clips."""
_AROUND_S = -(-2 * _SHAPE.context // SAMPLE_RATE)
"""What a window may hold around its utterance, on both sides."""
_PREVIEW_TAIL = 3 * SAMPLE_RATE // 10
"""Zeros behind a preview: half of what is made up at its edge goes away."""
_ROOM, _ROOM_LEVEL = SAMPLE_RATE // 5, np.float32(1e-3)
_MISSED_SHARE, _MISSED_LETTERS = 0.4, 8
"""A text with fewer than this share of the letters that the follower has, of so many at least, is
asked for once more, with faint noise around it: now and then a writer says nothing of speech that
is plain to hear. Otherwise a final window is written as it is: of 684 words of LibriSpeech's
test-other, cut into utterances, 99 were wrong so, 105 with zeros behind, 121 with such noise."""

_SURE_END, _BEHIND_LETTERS = 0.9, 5
"""A text whose end is less probable is gone on with where the follower hears so many letters
behind its last word. Of 700 clips none is; of 95 utterances that were cut in the middle of a talk
one was, and twelve words with it."""


class Writer(Protocol):
    """What writes: `Moonshine`, `TorchWriter` or `CtcWriter`; immutable, and shared by threads."""

    @property
    def accelerator(self) -> str:
        """Where it computes: `cpu`, `cuda` or `mps`."""

    @property
    def preview_ms(self) -> int:
        """How far apart previews must be for the machine to keep up; 0 where it always does."""

    @property
    def longest_s(self) -> int:
        """How much audio a window may have, in seconds; 0 for any."""

    def write(
        self,
        samples: Samples,
        draft: Sequence[int] = (),
        *,
        cut: bool = False,
        at_least: int = 0,
    ) -> Writing:
        """Write down what is said in a window.

        Args:
            samples: shape (n,), at 16 kHz.
            draft: tokens that are expected; they change nothing but the time.
            cut: whether the window may end inside a sentence.
            at_least: so many tokens there are before the text may end.
        """


class WriterRecognizer:
    """See `streamer.recognition.Recognizer`.

    Args:
        writer: shared.
        follower: shared.
        name: what the model is called.
        settings: that it was loaded with.
        rules: how live text is made of its words.
        previewer: another writer, for what is still being spoken.

    Attributes:
        model: what its hypotheses know of it.
        accelerator: where the writer computes.
        shape: which windows it wants.
    """

    uses_language_model = False

    def __init__(
        self,
        writer: Writer,
        follower: CtcRecognizer,
        name: str,
        settings: Settings,
        rules: WriterRules,
        previewer: Writer | None = None,
    ) -> None:
        self.name = name
        self.accelerator = writer.accelerator
        self._previewer = previewer or writer
        longest = min((w.longest_s for w in (writer, self._previewer) if w.longest_s), default=0)
        self.shape = replace(
            _SHAPE,
            preview_ms=self._previewer.preview_ms,
            longest_s=longest and longest - _AROUND_S,
        )
        self.hotwords, self.lm = settings.hotwords, settings.lm
        self.model = WriterModel(follower.vocabulary, follower.grid, rules)
        self._slide_after = rules.slide_after_ms * SAMPLE_RATE // 1000
        self._writer = writer
        self._follower = follower

    def hypothesis(self, settings: Settings) -> WriterHypothesis:
        """The text of a stream's first utterance."""
        return WriterHypothesis(self.model, settings)

    def recognize(self, batch: Sequence[Window]) -> list[Reading]:
        """Words and, where the hypothesis needs them, emissions."""
        return [self._recognize(window) for window in batch]

    def _recognize(self, window: Window) -> Reading:
        samples, preview = window.samples, window.kind == "preview"
        emission = None
        # Once words were believed, the follower is asked only where the window is to slide.
        if not (preview and window.draft and len(samples) <= self._slide_after):
            emission = self._emission(samples)
            least = self.model.rules.doubtful_share * window.min_certainty
            if certainty(emission, self._follower.vocabulary) <= least:
                return Reading(emission, ())  # whatever is written of it would not be believed
        if preview:
            tailed = _followed_by(samples, _PREVIEW_TAIL)
            return Reading(emission, self._previewer.write(tailed, window.draft, cut=True).words)
        assert emission is not None
        heard = sum(len(word.text) for word in decode(emission, self._follower.vocabulary))
        # Another model's tokens would mean other words.
        draft = window.draft if self._previewer is self._writer else ()
        writing = self._writer.write(samples, draft)
        if heard >= _MISSED_LETTERS and _letters(writing) < _MISSED_SHARE * heard:
            again = self._writer.write(_in_room(samples))
            writing = max(writing, again, key=_letters)
            if writing is again:  # its times count from the noise
                return Reading(emission, tuple(replace(w, span=None) for w in writing.words))
        elif writing.end_probability < _SURE_END:
            writing = self._written_to_its_end(samples, writing, emission)
        return Reading(emission, writing.words)

    def _written_to_its_end(
        self, samples: Samples, writing: Writing, emission: LogProbs
    ) -> Writing:
        """The same, or gone on with where the follower hears words behind the last one."""
        vocabulary = self._follower.vocabulary
        frames = word_frames([word.text for word in writing.words], emission, vocabulary)
        last = frames[-1][1] if frames else 0
        behind = sum(len(w.text) for w in decode(emission, vocabulary) if w.start >= last)
        if behind < _BEHIND_LETTERS:
            return writing
        longer = self._writer.write(samples, writing.tokens, at_least=len(writing.tokens) + 1)
        gained = _letters(longer) - _letters(writing)
        return longer if gained >= _MISSED_SHARE * behind else writing

    def _emission(self, samples: Samples) -> LogProbs:
        grid = self._follower.grid
        return self._follower.log_probs(_padded(samples, grid.fit(len(samples)) - len(samples)))


def _followed_by(samples: Samples, zeros: int) -> Samples:
    return np.concatenate((samples, np.zeros(zeros, np.float32)))


def _padded(samples: Samples, missing: int) -> Samples:
    """With faint noise behind it: zeros would be a new sound to a network with group norm."""
    noise = np.random.default_rng(0).standard_normal(missing, np.float32)
    return np.concatenate((samples, noise * np.float32(PADDING_LEVEL)))


def _in_room(samples: Samples) -> Samples:
    room = np.random.default_rng(0).standard_normal((2, _ROOM), np.float32) * _ROOM_LEVEL
    return np.concatenate((room[0], samples, room[1]))


def _letters(writing: Writing) -> int:
    return sum(letter.isalpha() for word in writing.words for letter in word.text)
