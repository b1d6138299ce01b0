"""Other ways to make live text with the same recognizer: what ours is compared with.

All hear the utterances that our voice detection finds and recognize them as ours does: what
becomes no final text is recognized as a preview, so that only the policy differs. Each is as
published, in as few lines as say it. Two of them join frames, which only CTC models have.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypeGuard

import numpy as np

from streamer.core.highpass import HighPass
from streamer.core.resample import Resampler
from streamer.core.window_planner import WindowPlanner
from streamer.evaluation.metrics import scored
from streamer.messages import SAMPLE_RATE, Block, Final, Partial, Window
from streamer.recognition.vad import VoiceDetector

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.core.ctc import FrameWord
    from streamer.messages import LogProbs, Reading, Samples, WindowKind
    from streamer.recognition import Recognizer
    from streamer.recognition.ctc_recognizer import CtcRecognizer


def is_ctc(recognizer: Recognizer) -> TypeGuard[CtcRecognizer]:
    """Whether words are decoded from frames, not written."""
    from streamer.recognition.ctc_recognizer import CtcRecognizer

    return isinstance(recognizer, CtcRecognizer)


def whole_window(samples: Samples, kind: WindowKind, draft: tuple[int, ...] = ()) -> Window:
    """A window that is all there is of an utterance; `samples` of shape (n,)."""
    return Window(
        segment=0,
        start=0,
        samples=samples,
        speech_start=0,
        speech_end=len(samples),
        kind=kind,
        split=False,
        continues=False,
        due=len(samples),
        draft=draft,
    )


def emission_of(recognizer: CtcRecognizer, samples: Samples, kind: WindowKind) -> LogProbs:
    """Log-probabilities of a window, brought to a length without partial frames by a cut."""
    grid = recognizer.grid
    frames = grid.frames(len(samples))
    whole = (frames - 1) * grid.hop + grid.receptive if frames else 0
    [reading] = recognizer.recognize([whole_window(samples[:whole], kind)])
    assert reading.emission is not None
    return reading.emission


@dataclass(frozen=True, slots=True)
class HeardWord:
    """A word of a window; it lies between samples `start` and `end` of it."""

    text: str
    start: int
    end: int


class Baseline(ABC):
    """One policy over the utterances of a stream.

    Args:
        recognizer: shared with all others.
        rate: samples a second of the blocks.
        settings: of voice detection and cadence.
        now: the stream's clock, in seconds.
    """

    settles: ClassVar[bool] = True
    """Whether it calls words stable before the final."""

    def __init__(
        self, recognizer: Recognizer, rate: int, settings: Settings, now: Callable[[], float]
    ) -> None:
        self.recognizer, self._settings, self._now = recognizer, settings, now
        self._patience = settings.preview_ms / 1000
        self._resampler = Resampler(rate)
        self._high_pass = HighPass()
        # Previews that reach back to the beginning: each is the utterance as far as it is known.
        growing = replace(settings, preview_window_ms=settings.max_utterance_s * 1000)
        detector = VoiceDetector(settings.vad_mode, settings.vad_frame_ms)
        self._planner = WindowPlanner(growing, recognizer.shape, detector)
        self._draft: tuple[int, ...] = ()
        self.begin()

    @abstractmethod
    def begin(self) -> None:
        """Forget the utterance before."""

    @abstractmethod
    def hear(self, utterance: Samples) -> tuple[list[str], list[str]]:
        """The open utterance so far, shape (n,) → stable and tentative words."""

    @abstractmethod
    def close(self, utterance: Samples) -> list[str]:
        """The whole utterance → its final words."""

    def feed(self, block: Block) -> list[Partial | Final]:
        """Take the next block and give what can be shown now."""
        samples = self._high_pass.push(self._resampler.push(block.samples))
        return self._handle(self._planner.push(samples))

    def finish(self) -> list[Partial | Final]:
        """End the audio: the last words."""
        samples = self._high_pass.push(self._resampler.flush())
        rest = self._planner.push(np.append(samples, self._high_pass.flush()))
        return self._handle(rest + self._planner.flush())

    def _handle(self, windows: list[Window]) -> list[Partial | Final]:
        events: list[Partial | Final] = []
        grid = self.recognizer.shape.grid
        edge = grid.receptive - grid.hop
        for window in windows:
            inside = window.samples[window.speech_start - window.start :]
            start, end = window.speech_start / SAMPLE_RATE, window.speech_end / SAMPLE_RATE
            if window.kind == "final":
                ours = window.speech_end - window.speech_start + edge
                kept = inside[:ours] if window.split else inside
                text = " ".join(self.close(kept))
                events.append(Final(window.segment, start, end, text, text, (), self._now()))
                self._draft = ()
                self.begin()
            elif self._now() - window.due / SAMPLE_RATE <= self._patience:
                stable, tentative = map(" ".join, self.hear(inside))
                events.append(Partial(window.segment, start, end, stable, tentative, self._now()))
        return events

    def shown(self, samples: Samples) -> list[str]:
        """The words of a preview."""
        if is_ctc(self.recognizer):
            return _texts(self.recognizer.decoder(emission_of(self.recognizer, samples, "preview")))
        return [word.text for word in self._written(samples, "preview").words or ()]

    def words(self, samples: Samples) -> list[HeardWord]:
        """The words of a window, recognized as well as can be, with their places."""
        if is_ctc(self.recognizer):
            hop = self.recognizer.grid.hop
            found = self.recognizer.decoder(emission_of(self.recognizer, samples, "final"))
            return [HeardWord(word.text, word.start * hop, word.end * hop) for word in found]
        final = self.recognizer.hypothesis(self._settings).close(
            whole_window(samples, "final"), self._written(samples, "final")
        )
        return [
            HeardWord(word.word, round(word.start * SAMPLE_RATE), round(word.end * SAMPLE_RATE))
            for word in final.words
        ]

    def _written(self, samples: Samples, kind: WindowKind) -> Reading:
        [reading] = self.recognizer.recognize([whole_window(samples, kind, self._draft)])
        self._draft = tuple(token for word in reading.words or () for token in word.tokens)
        return reading


class FrameBaseline(Baseline):
    """A policy that joins the frames of several windows: of a CTC model alone."""

    recognizer: CtcRecognizer

    def emission(self, samples: Samples, *, draft: bool = False) -> LogProbs:
        """Log-probabilities of a window without its last partial frame."""
        return emission_of(self.recognizer, samples, "preview" if draft else "final")


class GrowingBuffer(Baseline):
    """The whole utterance decoded again at every step: what small live demos do."""

    settles = False

    def begin(self) -> None:
        """Nothing is kept."""

    def hear(self, utterance: Samples) -> tuple[list[str], list[str]]:
        """Everything may change until the end."""
        return [], self.shown(utterance)

    def close(self, utterance: Samples) -> list[str]:
        """The offline text."""
        return _texts(self.words(utterance))


class ChunkedPipeline(FrameBaseline):
    """The chunked CTC pipeline of `transformers` on live audio (`ffmpeg_microphone_live`).

    A chunk grows until it is full and is shown as it grows; then the frames between its strides
    are kept and shown, and the next one begins so that its own are next to them. Sizes: five
    seconds, as its documentation's live example, and the default stride of a sixth on both sides.
    Chunks are joined as the pipeline joins those of files, frame by frame: shown one after
    another, as live, they would break the words at their seams.
    """

    CHUNK = 5 * SAMPLE_RATE
    STRIDE = CHUNK // 6 // 640 * 640
    """On the grid of all networks of this family."""

    def begin(self) -> None:
        """No chunk is full."""
        self._start = 0
        self._kept: list[LogProbs] = []

    def hear(self, utterance: Samples) -> tuple[list[str], list[str]]:
        """Words of full chunks are stable; the growing chunk's are not."""
        full = len(self._kept)
        self._fill(utterance)
        # The step that fills a chunk shows no more than what is kept of it.
        growing = utterance[self._start :] if len(self._kept) == full else utterance[:0]
        return self._read(growing)

    def close(self, utterance: Samples) -> list[str]:
        """The frames of all chunks, read as one."""
        self._fill(utterance)
        stable, tentative = self._read(utterance[self._start :])
        return stable + tentative

    def _fill(self, utterance: Samples) -> None:
        hop = self.recognizer.grid.hop
        while len(utterance) - self._start >= self.CHUNK:
            frames = self.emission(utterance[self._start : self._start + self.CHUNK])
            first = self.STRIDE // hop if self._start else 0
            self._kept.append(frames[first : (self.CHUNK - self.STRIDE) // hop])
            self._start += self.CHUNK - 2 * self.STRIDE

    def _read(self, growing: Samples) -> tuple[list[str], list[str]]:
        first = self.STRIDE // self.recognizer.grid.hop * bool(self._kept)
        rest = self.emission(growing)[first:]
        kept = np.concatenate([*self._kept, rest[:0]])
        words = self.recognizer.decoder(np.concatenate((kept, rest)))
        sure = [w for w in words if w.closed is not None and w.closed <= len(kept)]
        return _texts(sure), _texts(words[len(sure) :])


class MiddleToken(FrameBaseline):
    """NeMo's buffered CTC: of a 4 s buffer, moved by 1.6 s, the middle 1.6 s are kept.

    Two things are kinder than there: the buffer is never filled up with silence, and a word that
    the end of what is kept has cut is not yet called stable.
    """

    FRAME, BUFFER = 16 * SAMPLE_RATE // 10, 4 * SAMPLE_RATE

    def begin(self) -> None:
        """Nothing is kept yet."""
        self._kept: list[LogProbs] = []
        self._read_to = 0
        self._words: list[FrameWord] = []

    def hear(self, utterance: Samples) -> tuple[list[str], list[str]]:
        """What is kept is shown and its frames never change; nothing else is shown."""
        ahead = (self.BUFFER - self.FRAME) // 2
        while len(utterance) >= self._read_to + self.FRAME + ahead:
            self._keep(utterance[: self._read_to + self.FRAME + ahead], self.FRAME)
        sure = [word for word in self._words if word.closed is not None]
        return _texts(sure), _texts(self._words[len(sure) :])

    def close(self, utterance: Samples) -> list[str]:
        """With what follows the last middle."""
        self.hear(utterance)
        self._keep(utterance, len(utterance) - self._read_to)
        return _texts(self._words)

    def _keep(self, heard: Samples, size: int) -> None:
        hop = self.recognizer.grid.hop
        start = max(0, len(heard) - max(self.BUFFER, size)) // 640 * 640
        frames = self.emission(heard[start:])
        first = (self._read_to - start) // hop
        self._kept.append(frames[first : first + -(-size // hop)])
        self._read_to += size
        self._words = self.recognizer.decoder(np.concatenate(self._kept))


class LocalAgreement(Baseline):
    """LocalAgreement-2 as in whisper_streaming, which looks once a second.

    A word is committed once two hypotheses in a row agree on it and on all before it; the buffer
    is cut at the last committed word when it has grown over 15 s. Three things are kinder than
    there: what is not yet committed is shown, the last audio is heard once more at the end, and
    words agree whatever their case and punctuation.
    """

    STEP, LONGEST = SAMPLE_RATE, 15 * SAMPLE_RATE
    SLACK, NEAR = SAMPLE_RATE // 10, SAMPLE_RATE
    """How far before the end of what is committed a new word may begin, and how near to it new
    words that repeat the last `MOST_REPEATED` committed ones at most are the same words again."""
    MOST_REPEATED = 5

    def begin(self) -> None:
        """Nothing is committed."""
        self._heard = self._start = 0
        self._committed: list[str] = []
        self._end = 0
        self._before: list[str] = []

    def hear(self, utterance: Samples) -> tuple[list[str], list[str]]:
        """Committed words are stable."""
        if len(utterance) - self._heard >= self.STEP:
            self._look(utterance)
        return list(self._committed), list(self._before)

    def close(self, utterance: Samples) -> list[str]:
        """What was committed, and the rest as it was last heard."""
        self._look(utterance)
        return self._committed + self._before

    def _look(self, utterance: Samples) -> None:
        self._heard = len(utterance)
        new = self._new(self.words(utterance[self._start :]))
        agreed = 0
        for word, before in zip(new, self._before, strict=False):
            if scored(word.text) != scored(before):
                break
            self._committed.append(word.text)
            self._end = self._start + word.end
            agreed += 1
        self._before = _texts(new[agreed:])
        if len(utterance) - self._start > self.LONGEST and self._end > self._start:
            self._start = self._end // 640 * 640

    def _new(self, words: list[HeardWord]) -> list[HeardWord]:
        """Those of the buffer's words that are not committed yet."""
        new = [w for w in words if self._start + w.start > self._end - self.SLACK]
        if new and abs(self._start + new[0].start - self._end) < self.NEAR:
            for count in range(1, min(len(new), len(self._committed), self.MOST_REPEATED) + 1):
                if _same(_texts(new[:count]), self._committed[-count:]):
                    return new[count:]
        return new


def _texts(words: Sequence[FrameWord] | Sequence[HeardWord]) -> list[str]:
    return [word.text for word in words]


def _same(some: Sequence[str], others: Sequence[str]) -> bool:
    return [*map(scored, some)] == [*map(scored, others)]


POLICIES: dict[str, type[Baseline]] = {
    "transformers-chunked": ChunkedPipeline,
    "growing-buffer": GrowingBuffer,
    "local-agreement-2": LocalAgreement,
    "middle-token": MiddleToken,
}
"""By the names that `streamer eval --policies` takes."""
