"""How wrong a text is: word and letter error rates, as `jiwer` counts them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

_UNSPOKEN = re.compile(r"\[[^\]]*\]|<[^>]*>")
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ`´", "'"))


def scored(text: str) -> str:
    """A text as it is compared: capitals, digits and apostrophes, single spaces.

    Bracketed tokens such as [noise] are not words.
    """
    # NFKC takes an acute accent that stands for an apostrophe apart into a space and a mark.
    spoken = _UNSPOKEN.sub(" ", text).translate(_APOSTROPHES)
    plain = unicodedata.normalize("NFKC", spoken).upper()
    return " ".join(re.sub(r"[^\w']|_", " ", plain).split())


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
