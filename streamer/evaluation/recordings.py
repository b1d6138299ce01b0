"""Recordings with transcripts, for `streamer eval`: LibriSpeech's layout or a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from streamer.adaptation.sessions import read_text
from streamer.errors import InputError

AUDIO = (".flac", ".wav", ".ogg", ".mp3")


@dataclass(frozen=True, slots=True)
class Clip:
    """An audio file and what is said in it, as it was written."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class Recording:
    """What is heard in one session: one clip, or several, one after another."""

    name: str
    clips: tuple[Clip, ...]


def find_recordings(place: Path, *, join: bool = False) -> list[Recording]:
    """The recordings of a folder or manifest.

    Args:
        place: a `.tsv` with the columns `file` and `transcript`, or a folder in LibriSpeech's
            layout (`*.trans.txt`), searched to its depths.
        join: make one recording of the clips of each chapter (`1673-143396-0001` belongs to
            `1673-143396`), or of each folder where names tell none, in the order of their names.

    Raises:
        InputError: it is not there, holds no recordings, or names audio that is missing.
    """
    if not place.exists():
        raise InputError(f"{place}: no such folder or manifest; check the name")
    clips = list(_librispeech(place) if place.is_dir() else _manifest(place))
    if not clips:
        raise InputError(
            f"{place}: no recordings with text; give a .tsv with the columns file and transcript, "
            "or a folder in LibriSpeech's layout (*.trans.txt beside the audio)"
        )
    for clip in clips:
        if not clip.path.is_file():
            raise InputError(f"{clip.path}: named in {place}, but not there")
    if not join:
        return [Recording(clip.path.stem, (clip,)) for clip in clips]
    clips.sort(key=lambda clip: (clip.path.parent, clip.path.name))
    groups = groupby(clips, key=lambda clip: (clip.path.parent, _chapter(clip.path)))
    return [Recording(chapter, tuple(together)) for (_, chapter), together in groups]


def _chapter(path: Path) -> str:
    """`1673-143396` of `1673-143396-0001.flac`; the folder's name where files are named freely."""
    numbered = re.fullmatch(r"(.+)-\d+", path.stem)
    return numbered[1] if numbered else path.parent.name


def _librispeech(folder: Path) -> Iterator[Clip]:
    for table in sorted(folder.rglob("*.trans.txt")):
        for line in filter(str.strip, read_text(table).split("\n")):
            name, text = [*line.split(maxsplit=1), ""][:2]
            paths = [table.parent / f"{name}{ending}" for ending in AUDIO]
            yield Clip(next((path for path in paths if path.is_file()), paths[0]), text)


def _manifest(table: Path) -> Iterator[Clip]:
    header, *rows = (line.split("\t") for line in read_text(table).split("\n"))
    if not {"file", "transcript"} <= set(header):
        raise InputError(f"{table}: its first line must name the columns file and transcript")
    for number, fields in enumerate(rows, start=2):
        row = dict(zip(header, fields, strict=False))
        if row.get("file"):
            yield Clip(table.parent / row["file"], row.get("transcript", ""))
        elif any(fields):
            raise InputError(f"{table}:{number}: no file is named; complete or delete the line")
