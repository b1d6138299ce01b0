"""How wrong a text is: word and letter error rates, as `jiwer` counts them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True, slots=True)
class ErrorRates:
    """Errors over what was really said, as fractions; above 1 where more was written than said.

    `words` are those of the references.
    """

    wer: float
    cer: float
    words: int


def error_rates(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorRates:
    """Word and letter error rate of `hypotheses` against as many `references`, over all of them.

    Words are compared as they are written: bring both to one case first. A reference is not empty.
    """
    said, heard = list(references), list(hypotheses)
    words = jiwer.process_words(said, heard)
    letters = jiwer.process_characters(said, heard)
    total = words.hits + words.substitutions + words.deletions
    return ErrorRates(wer=words.wer, cer=letters.cer, words=total)
