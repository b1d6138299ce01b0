"""Where speech and its text lie: LibriSpeech's layout, manifests, and pairs of files.

    LibriSpeech   `84-121.trans.txt`, each line a name and a text, beside the audio
    manifest      a `.tsv` with the columns `file` and `transcript`, among any others
    pairs         `a.wav` and `a.txt`

Recorded sessions are read by `streamer.corpora.sessions`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import InputError

AUDIO = (".wav", ".flac", ".ogg", ".mp3")
"""In this order where one clip lies there in several forms."""
COLUMNS = ("file", "transcript")


@dataclass(frozen=True, slots=True)
class Clip:
    """An audio file, which need not exist, and what is said in it, as it was written."""

    path: Path
    text: str


@dataclass(frozen=True, slots=True)
class Clips:
    """Clips with text, and the tables that were passed over because they lack the columns."""

    clips: tuple[Clip, ...]
    passed_over: tuple[Path, ...]


def files_in(place: Path) -> list[Path]:
    """Everything below a folder in order, hidden files left out; or the manifest itself.

    Raises:
        InputError: neither a folder nor a manifest.
    """
    if place.is_dir():
        return sorted(path for path in place.rglob("*") if not path.name.startswith("."))
    if not place.exists():
        raise InputError(f"{place}: no such folder or manifest; check the name")
    if place.suffix.lower() != ".tsv":
        raise InputError(f"{place}: not a folder; give the folder it is in, or a .tsv manifest")
    return [place]


def find_clips(files: Sequence[Path], given: Collection[Path] = ()) -> Clips:
    """The clips of all layouts, the same audio once: from the first layout in which it is found.

    Args:
        files: where to look, as from `files_in`.
        given: manifests that the user named, which must have the columns.

    Raises:
        InputError: a text is not UTF-8, a manifest has a line without a file, or one that was
            given lacks a column.
    """
    audio = _audio(files)
    clips = list(_librispeech(files, audio))
    passed_over = []
    for table in files:
        if table.suffix.lower() == ".tsv":
            found = _manifest(table)
            if found is not None:
                clips += found
            elif table in given:
                raise InputError(
                    f"{table}: its first line must name the columns file and transcript; add it"
                )
            else:
                passed_over.append(table)
    taken: set[Path] = set()
    once = []
    for clip in (*clips, *_pairs(files, audio)):
        path = clip.path.resolve()
        if path not in taken:
            taken.add(path)
            once.append(clip)
    return Clips(tuple(once), tuple(passed_over))


def read_text(path: Path) -> str:
    """A UTF-8 file, line ends as "\\n".

    Raises:
        InputError: it cannot be opened, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; save it as UTF-8") from error
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be opened ({reason}); check the name") from error


_Audio = dict[tuple[Path, str], Path]
"""Audio files by folder and name without ending."""


def _audio(files: Sequence[Path]) -> _Audio:
    kinds = {kind: number for number, kind in enumerate(AUDIO)}
    known = [path for path in files if path.suffix.lower() in kinds]
    known.sort(key=lambda path: -kinds[path.suffix.lower()])
    found = {(path.parent, path.stem): path for path in known}
    return dict(sorted(found.items()))


def _librispeech(files: Sequence[Path], audio: _Audio) -> Iterator[Clip]:
    for table in files:
        if table.name.endswith(".trans.txt"):
            for line in filter(str.strip, read_text(table).split("\n")):
                name, text = [*line.split(maxsplit=1), ""][:2]
                missing = table.parent / f"{name}.flac"
                yield Clip(audio.get((table.parent, name), missing), text)


def _manifest(table: Path) -> list[Clip] | None:
    """The clips of a table; `None` if it lacks the columns."""
    header, *lines = (line.split("\t") for line in read_text(table).split("\n"))
    if not set(COLUMNS) <= set(header):
        return None
    clips = []
    for number, fields in enumerate(lines, start=2):
        row = dict(zip(header, fields, strict=False))
        if row.get("file"):
            clips.append(Clip(table.parent / row["file"], row.get("transcript", "")))
        elif any(map(str.strip, fields)):
            raise InputError(f"{table}:{number}: no file is named; complete or delete the line")
    return clips


def _pairs(files: Sequence[Path], audio: _Audio) -> Iterator[Clip]:
    there = set(files)
    for (folder, stem), path in audio.items():
        if (text := folder / f"{stem}.txt") in there:
            yield Clip(path, read_text(text))
