"""Sentences to be synthesized, and which of them no training run may hear.

Sources: the examples and definitions of WordNet 3.0 (Debian's ``wordnet-base``, WordNet licence),
the King James Bible (Debian's ``bible-kjv``, public domain), the transcripts of the
recordings that are trained on, and any text file with one sentence a line.
"""

import random
import re
import shutil
import subprocess
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

WORDNET = Path("/usr/share/wordnet")
HELD_OUT_SHARE = 60
"""One sentence in so many is held out."""

_QUOTED = re.compile(r'"([^"]+)"')
_REPLACED = str.maketrans({"’": "'", "‘": "'", "`": "'", "—": " ", "–": " ", "-": " ", "/": " "})
_PUNCTUATION = re.compile(r"[.,;:!?\"()\[\]“”…«»*_]")
_WRITABLE = re.compile(r"[A-Z' ]+")
_BRACKETED = re.compile(r"\[[^\]]*\]|<[^>]*>|\([^)]*\)")


def normalize(text: str) -> str | None:
    """``text`` in the letters of the vocabulary: A to Z, apostrophe, single spaces.

    ``None`` where something is left that is read in more ways than one or not at all: digits,
    symbols, other alphabets. Words in brackets are not speech and go.
    """
    text = unicodedata.normalize("NFKC", _BRACKETED.sub(" ", text)).translate(_REPLACED)
    text = _PUNCTUATION.sub(" ", text).upper()
    text = " ".join(word.strip("'") if word.strip("'") else "" for word in text.split())
    text = " ".join(text.split())
    return text if text and _WRITABLE.fullmatch(text) else None


def held_out(sentence: str) -> bool:
    """Whether no training run may hear ``sentence``: by its letters alone, in every run."""
    return zlib.crc32(sentence.encode()) % HELD_OUT_SHARE == 0


def wordnet_examples() -> Iterator[str]:
    """The usage examples of WordNet: everyday English, a few words to a sentence."""
    for gloss in _glosses():
        yield from _QUOTED.findall(gloss)


def wordnet_definitions() -> Iterator[str]:
    """The definitions of WordNet: rare words."""
    for gloss in _glosses():
        yield from _QUOTED.sub("", gloss).split(";")


def bible() -> Iterator[str]:
    """The verses of the King James Bible, cut at colons and semicolons."""
    if shutil.which("bible") is None:
        return
    verses = subprocess.run(
        ["bible", "-f", "gen1:1-rev22:21"], capture_output=True, text=True, check=True
    ).stdout
    for line in verses.splitlines():
        _, _, verse = line.partition(" ")
        yield from re.split("[:;]", verse)


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file."""
    yield from path.read_text(encoding="utf-8").splitlines()


def _glosses() -> Iterator[str]:
    for part in ("adj", "adv", "noun", "verb"):
        path = WORDNET / f"data.{part}"
        if not path.is_file():
            return
        for line in path.read_text(encoding="latin-1").splitlines():
            _, bar, gloss = line.partition("| ")
            if bar and not line.startswith("  "):
                yield gloss


class Text:
    """Sentences to draw from, by source and weight; held-out ones apart.

    ``transcripts`` are those of the recordings trained on, ``extra`` any other sentences.
    """

    def __init__(self, transcripts: Iterable[str] = (), extra: Iterable[str] = ()) -> None:
        sources = [
            (4.0, wordnet_examples()),
            (2.0, wordnet_definitions()),
            (1.5, bible()),
            (2.0, transcripts),
            (8.0, extra),
        ]
        self._pools: list[tuple[float, list[str]]] = []
        self.held_out: list[str] = []
        """WordNet's examples that are held out, three words or more, in a fixed order."""
        for rank, (weight, source) in enumerate(sources):
            sentences = sorted({s for text in source if (s := normalize(text))})
            if rank == 0:
                self.held_out = [s for s in sentences if held_out(s) and 3 <= len(s.split()) <= 14]
            pool = [s for s in sentences if not held_out(s) and len(s.split()) >= 2]
            if pool:
                self._pools.append((weight, pool))
        if not self._pools:
            raise SystemExit(
                "training: no text. Install wordnet-base and bible-kjv, or give --text FILE."
            )
        random.Random(1).shuffle(self.held_out)

    def draw(self, rng: random.Random, longest: int = 18) -> str:
        """One sentence; now and then a part of it, so that beginnings and ends are heard."""
        [pool] = rng.choices([p for _, p in self._pools], [w for w, _ in self._pools])
        words = rng.choice(pool).split()
        if len(words) > longest or (len(words) > 4 and rng.random() < 0.25):
            size = rng.randint(1, min(longest, len(words)))
            first = rng.randint(0, len(words) - size)
            words = words[first : first + size]
        return " ".join(words)
