"""Where in a clip the words of a text were said, whoever wrote it.

The ruler is the same for all models and policies: forced alignment on the emission of the embedded
network, which hears the whole clip. The default model's word times come from this network too, on
its own windows. So an error says what those windows and the words around it change, and nothing of
what the network itself hears too early or too late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rapidfuzz.distance import Levenshtein

from streamer.config import EMBEDDED_MODEL, NO_LM, Settings
from streamer.core.word_times import word_frames
from streamer.evaluation.baselines import is_ctc
from streamer.evaluation.delays import TimedWord, timed_words
from streamer.evaluation.padding import AROUND, in_quiet_room
from streamer.messages import SAMPLE_RATE
from streamer.recognition import load_recognizer

if TYPE_CHECKING:
    from streamer.messages import Samples, Word
    from streamer.recognition import Recognizer
    from streamer.recognition.ctc_recognizer import CtcRecognizer


class Aligner:
    """Times the words of texts.

    Args:
        recognizer: taken as it is where it is the embedded network, which else is loaded.
    """

    def __init__(self, recognizer: Recognizer) -> None:
        if not (is_ctc(recognizer) and recognizer.name == EMBEDDED_MODEL):
            recognizer = load_recognizer(Settings(model=EMBEDDED_MODEL, lm=NO_LM))
        assert is_ctc(recognizer)
        self._network: CtcRecognizer = recognizer

    def words(self, text: str, samples: Samples) -> list[TimedWord]:
        """The scored words of a text, in seconds of the clip, shape (n,), in which it was said."""
        grid = self._network.grid
        written = text.split()
        emission = self._network.log_probs(in_quiet_room(samples, grid))
        frames = word_frames(written, emission, self._network.vocabulary)

        def seconds(frame: int) -> float:
            return min(max(0, frame * grid.hop - AROUND), len(samples)) / SAMPLE_RATE

        return [
            timed
            for word, (start, end) in zip(written, frames, strict=True)
            for timed in timed_words(word, seconds(start), seconds(end))
        ]


@dataclass(slots=True)
class WordTimeErrors:
    """How far final words begin and end from where they were said; seconds, one entry a word."""

    start: list[float] = field(default_factory=list)
    end: list[float] = field(default_factory=list)

    def take(self, said: Sequence[TimedWord], words: Sequence[Word]) -> None:
        """Add the final words of one recording, of which those that are right count.

        Args:
            said: what was said, in order. Digits have no letters that could be aligned, and do not
                count.
            words: in order; one that `scored` parts counts as so many.
        """
        timed = [part for word in words for part in timed_words(word.word, word.start, word.end)]
        blocks = Levenshtein.opcodes([w.text for w in said], [w.text for w in timed])
        for block in blocks:
            if block.tag != "equal":
                continue
            true = said[block.src_start : block.src_end]
            for truth, word in zip(true, timed[block.dest_start : block.dest_end], strict=True):
                if not any(letter.isnumeric() for letter in truth.text):
                    self.start.append(abs(word.start - truth.start))
                    self.end.append(abs(word.end - truth.end))
