"""A CTC model as a writer: for previews of another one, or with previews by another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from streamer.messages import WrittenWord
from streamer.recognition.moonshine import Writing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from streamer.messages import Samples
    from streamer.recognition.ctc_recognizer import CtcRecognizer


class CtcWriter:
    """Writes the words that the recognizer's decoder reads, for people, each with its time.

    Args:
        recognizer: shared.
    """

    preview_ms, longest_s = 0, 0

    def __init__(self, recognizer: CtcRecognizer) -> None:
        self._recognizer = recognizer
        self.accelerator = recognizer.accelerator

    def write(
        self,
        samples: Samples,
        draft: Sequence[int] = (),
        *,
        cut: bool = False,
        at_least: int = 0,
    ) -> Writing:
        """See `streamer.recognition.writer.Writer`; there are no tokens, so drafts do nothing."""
        grid, vocabulary = self._recognizer.grid, self._recognizer.vocabulary
        decoder, calibration = self._recognizer.decoder, self._recognizer.calibration
        found = decoder(self._recognizer.log_probs(samples))
        texts = [word.text for word in found]
        spelled = texts if vocabulary.mixed_case else decoder.spell(texts, opening=True)
        words = tuple(
            WrittenWord(
                text,
                (),
                calibration(word) if calibration else word.confidence,
                (word.start * grid.hop, word.end * grid.hop),
            )
            for text, word in zip(spelled, found, strict=True)
        )
        return Writing((), (), 1.0, "end", words)
