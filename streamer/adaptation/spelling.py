"""A text as a model would write it: the letters of its vocabulary, and no others."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.core.ctc import Vocabulary

_QUOTED = re.compile(r"(?<!\w)'(?=\w)(.*?)(?<=[^\s'])'(?!\w)")
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ′`´", "'"))
_SAID_ALOUD = frozenset("%‰‱٪&@#*§¶†‡")
"""Punctuation to Unicode, words to whoever reads it out."""


def spell(text: str, vocabulary: Vocabulary) -> tuple[int, ...] | None:
    """A text as token ids, with the delimiter between words.

    Letters take the case, or lose the accents, that the vocabulary asks for, and punctuation that
    it lacks is dropped.

    Returns:
        `None` if something is said aloud that it cannot spell (digits, symbols, other alphabets),
        or if nothing is said at all.
    """
    hidden = {vocabulary.blank, vocabulary.delimiter, *vocabulary.special}
    ids = {
        token: id_
        for id_, token in enumerate(vocabulary.tokens)
        if len(token) == 1 and id_ not in hidden
    }
    plain = unicodedata.normalize("NFC", text).translate(_APOSTROPHES)
    spelled = ""
    for letter in _QUOTED.sub(r"\1", plain):
        form = _spelled(letter, ids)
        if form is None:
            return None
        spelled += form
    parting = () if vocabulary.delimiter is None else (vocabulary.delimiter,)
    tokens: list[int] = []
    for word in spelled.split():
        tokens += [*(parting if tokens else ()), *(ids[letter] for letter in word)]
    return tuple(tokens) or None


def _spelled(letter: str, ids: Mapping[str, int]) -> str | None:
    """What stands for a letter: letters of the vocabulary, a space, nothing; `None` if none can."""
    if letter.isspace():
        return " "
    bare = "".join(c for c in unicodedata.normalize("NFD", letter) if not unicodedata.combining(c))
    for form in (letter, letter.upper(), letter.lower(), bare, bare.upper(), bare.casefold()):
        if all(c in ids for c in form):
            return form
    # The points of U.S., the apostrophe of don't and what is never seen part no words.
    if letter in ".'" or unicodedata.category(letter) in ("Cc", "Cf"):
        return ""
    silent = unicodedata.category(letter)[0] == "P" and letter not in _SAID_ALOUD
    return " " if silent else None
