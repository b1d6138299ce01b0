"""Recordings with transcripts, as they are heard in one session: a clip each, or a chapter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from streamer.corpora.layouts import Clip, files_in, find_clips
from streamer.errors import InputError


@dataclass(frozen=True, slots=True)
class Recording:
    """What is heard in one session: one clip, or several, one after another."""

    name: str
    clips: tuple[Clip, ...]


def find_recordings(place: Path, *, join: bool = False) -> list[Recording]:
    """The recordings of a folder or manifest.

    Args:
        place: a folder, searched to its depths, or a manifest: see `streamer.corpora.layouts`.
        join: make one recording of the clips of each chapter (`1673-143396-0001` belongs to
            `1673-143396`), or of each folder where names tell none, in the order of their names.

    Raises:
        InputError: it is not there, holds no recordings, names audio that is missing, or has a
            text that cannot be read.
    """
    clips = list(find_clips(files_in(place), given=[place]).clips)
    if not clips:
        raise InputError(
            f"{place}: no recordings with text; give a .tsv with the columns file and transcript, "
            "a folder in LibriSpeech's layout (*.trans.txt beside the audio), or pairs as a.wav "
            "and a.txt"
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
