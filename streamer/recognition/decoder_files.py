"""The files that tell which words to expect: hotwords, one a line, and ARPA language models."""

from __future__ import annotations

import gzip
import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.config import NO_LM
from streamer.core.beam import BeamDecoder
from streamer.core.ctc import GreedyDecoder, Vocabulary
from streamer.core.hotwords import Hotwords
from streamer.core.ngram import NGram
from streamer.errors import ModelError, SettingsError, StreamerWarning
from streamer.recognition.checkpoint_files import LANGUAGE_MODEL, read_beam_rules

if TYPE_CHECKING:
    from streamer.config import Settings
    from streamer.core.ctc import Decoder

_GRAMS = "-grams:"
_MARK = re.compile(r"(?<!\S)<\S*")
"""A word that is none, such as `<s>`."""
_LN_10 = math.log(10)
_NAMED = 5
"""Unusable lines that are named; more would not be read."""
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ", "'"))


def load_decoder(settings: Settings, vocabulary: Vocabulary, folder: Path) -> Decoder:
    """What reads the emissions: greedily, or with hotwords and a language model.

    Args:
        settings: of which `hotwords` and `lm` are read.
        vocabulary: the recognizer's.
        folder: its checkpoint, which may hold a language model of its own.

    Raises:
        SettingsError: a file is not there or not what it should be, or the model cannot spell it.
        ModelError: the language model in the folder is damaged.
    """
    wanted = None if settings.lm == NO_LM else settings.lm
    if vocabulary.delimiter is None:
        if settings.hotwords or wanted:
            raise SettingsError(
                "this model does not part words with a delimiter; hotwords and lm are of no use to "
                "it"
            )
        return GreedyDecoder(vocabulary)
    model = read_arpa(wanted, vocabulary) if wanted else None
    if not settings.lm and (folder / LANGUAGE_MODEL).is_file():
        model = _own_language_model(folder, vocabulary)
    hotwords = read_hotwords(settings.hotwords, vocabulary) if settings.hotwords else None
    if model or hotwords:
        return BeamDecoder(vocabulary, model, hotwords, rules=read_beam_rules(folder))
    return GreedyDecoder(vocabulary)


def _own_language_model(folder: Path, vocabulary: Vocabulary) -> NGram:
    try:
        return read_arpa(folder / LANGUAGE_MODEL, vocabulary)
    except SettingsError as error:
        raise ModelError(
            f"{folder}: its {LANGUAGE_MODEL} is damaged; get the model again, or use --lm {NO_LM}"
        ) from error


def read_phrases(path: Path) -> list[str]:
    """Words and phrases, one a line, with plain apostrophes and single spaces.

    Empty lines and those that begin with `#` do not count.

    Raises:
        SettingsError: unreadable, or without words.
    """
    return [" ".join(words) for _, words in _phrases(path)]


def read_hotwords(path: Path, vocabulary: Vocabulary) -> Hotwords:
    """Read the lines that `read_phrases` gives, for a CTC model.

    They are recognized in any case and shown in the one that the file has, unless that is lower
    case: such words are shown as all others are. Lines with letters that the vocabulary has not are
    left out, with a `StreamerWarning`.

    Raises:
        SettingsError: unreadable, without words, or without one that the vocabulary can spell.
    """
    assert vocabulary.delimiter is not None
    fold = _folding(vocabulary)
    hidden = {vocabulary.blank, vocabulary.delimiter, *vocabulary.special}
    ids = {token: id_ for id_, token in enumerate(vocabulary.tokens) if id_ not in hidden}
    phrases: list[list[int]] = []
    spellings: dict[tuple[str, ...], tuple[str, ...]] = {}
    unusable: list[str] = []
    for number, written in _phrases(path):
        words = [fold(word) for word in written]
        if wrong := [letter for letter in "".join(words) if letter not in ids]:
            unusable.append(f"line {number}, {' '.join(written)[:40]!r} (no letter {wrong[0]!r})")
            continue
        phrase = [vocabulary.delimiter]
        for word in words:
            phrase += [*(ids[letter] for letter in word), vocabulary.delimiter]
        phrases.append(phrase[1:-1])
        if any(word != word.lower() for word in written):
            capitals = tuple(word if word != word.lower() else "" for word in written)
            spellings[tuple(words)] = capitals
            *before, last = capitals
            if last:
                spellings.setdefault((*words[:-1], words[-1] + fold("'s")), (*before, f"{last}'s"))
    if unusable:
        named = ", ".join(unusable[:_NAMED])
        more = f" and {len(unusable) - _NAMED} more" if len(unusable) > _NAMED else ""
        line = f"{path}: the model cannot spell {named}{more}; write it as it is spoken"
        if not phrases:
            raise SettingsError(line)
        warnings.warn(StreamerWarning(f"{line}; the other words are used"), stacklevel=2)
    return Hotwords(phrases, vocabulary.delimiter, spellings)


def read_arpa(path: Path, vocabulary: Vocabulary) -> NGram:
    """Read a word n-gram model, plain or gzipped, into the case of the vocabulary's letters.

    Raises:
        SettingsError: unreadable, no ARPA file, cut off, or without words of these letters.
    """
    fold = _folding(vocabulary)
    probabilities: dict[str, float] = {}
    backoffs: dict[str, float] = {}
    announced: dict[int, int] = {}
    found = order = 0
    section = ""
    for number, line in enumerate(_lines(path, "lm"), start=1):
        fields = line.split()
        if not fields or not (section or line[0] == "\\"):
            continue  # anything may stand before the first section
        try:
            if line[0] == "\\":
                section = fields[0]
                order = int(section[1 : -len(_GRAMS)]) if section.endswith(_GRAMS) else 0
            elif order:
                gram = fold(" ".join(fields[1 : order + 1]))
                if "<" in gram:
                    gram = _MARK.sub(lambda mark: mark[0].lower(), gram)
                probability = _log_probability(fields[0])
                # Of words that differ in case alone the more probable one stays.
                if gram not in probabilities or probability > probabilities[gram]:
                    probabilities[gram] = probability
                if len(fields) == order + 2:
                    backoffs[gram] = _finite(fields[-1])
                elif len(fields) != order + 1:
                    raise ValueError(line)
                found += 1
            else:
                size, count = line.removeprefix("ngram ").split("=")
                announced[int(size)] = int(count)
        except ValueError as error:
            raise SettingsError(
                f"{path}:{number}: no line of an ARPA file: {line.strip()[:40]!r}; check lm"
            ) from error
    if not found or found != sum(announced.values()) or section != "\\end\\":
        raise SettingsError(f"{path}: no complete ARPA file; give a word n-gram model in ARPA form")
    model = NGram(probabilities, backoffs, max(announced))
    letters = set("".join(vocabulary.tokens))
    if not any(letters.issuperset(word) for word in model.words()):
        raise SettingsError(f"{path}: none of its words is in the letters of the model")
    return model


def _log_probability(text: str) -> float:
    """A decimal logarithm as a natural one."""
    if float(text) > 0:
        raise ValueError(text)
    return _finite(text)


def _finite(text: str) -> float:
    number = float(text) * _LN_10
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _folding(vocabulary: Vocabulary) -> Callable[[str], str]:
    """What brings a word to the one case that a vocabulary has."""
    if vocabulary.mixed_case:
        return str
    return str.upper if "A" in vocabulary.tokens else str.lower


def _phrases(path: Path) -> list[tuple[int, list[str]]]:
    lines = enumerate(_lines(path, "hotwords"), start=1)
    split = ((number, line.translate(_APOSTROPHES).split()) for number, line in lines)
    phrases = [(number, words) for number, words in split if words and words[0][0] != "#"]
    if not phrases:
        raise SettingsError(f"{path}: no words in it; write one word or phrase a line")
    return phrases


def _lines(path: Path, setting: str) -> Iterator[str]:
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8-sig") as file:
            yield from file
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; {setting} must name one") from error
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"{path}: cannot be read ({reason}); check {setting}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: no text in UTF-8; check {setting}") from error
