"""Examples to learn from, found in a user's folders: stretches of speech, each with its text.

Understood are sessions of `streamer listen --record` whose transcript.txt was corrected, folders
in LibriSpeech's layout (`*.trans.txt`), manifests (`*.tsv` with columns `file` and `transcript`)
and pairs such as `a.wav` with `a.txt`. What cannot be used is left out and counted in a note.
"""

from __future__ import annotations

import random
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamer.adaptation.sessions import audio_files, cut, read_session, read_text
from streamer.core.resample import Resampler
from streamer.errors import InputError
from streamer.messages import SAMPLE_RATE
from streamer.sources.files import AudioFile

if TYPE_CHECKING:
    from streamer.core.ctc import Vocabulary
    from streamer.messages import Samples

LONGEST_S = 30.0
SHORTEST_S = 0.3

_AUDIO = (".wav", ".flac", ".ogg", ".mp3")
_COLUMNS = ("file", "transcript")
_UNSPOKEN = re.compile(r"\[[^\]]*\]|<[^>]*>|\([^)]*\)")
_QUOTED = re.compile(r"(?<!\w)'(?=\w)(.*?)(?<=[^\s'])'(?!\w)")
_APOSTROPHES = str.maketrans(dict.fromkeys("‘’ʼ′`´", "'"))
_SAID_ALOUD = frozenset("%‰‱٪&@#*§¶†‡")
"""Punctuation to Unicode, words to whoever reads it out."""


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Speech, mono at `SAMPLE_RATE`, and what it says in the user's own spelling.

    `source` names it in messages, such as `meeting/transcript.txt:12`.
    """

    samples: Samples
    text: str
    source: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Found:
    """Examples, and one line for the user about each reason for which something was left out."""

    examples: tuple[Example, ...]
    notes: tuple[str, ...]


def find_examples(folders: Sequence[Path]) -> Found:
    """Search folders, and everything below them, for speech with its text.

    The same audio is taken once, from the first of the layouts in which it is found.

    Args:
        folders: where to look; a file may be given if it is a `.tsv` manifest.

    Raises:
        InputError: a folder is missing, a text is not UTF-8, a session's events are damaged, a
            manifest that was given lacks a column, or there is nothing to learn from.
    """
    places = [(folder, _files(folder)) for folder in folders]
    search = _Search()
    for layout in (_sessions, _librispeech, _manifests, _pairs):
        for folder, files in places:
            layout(search, folder, files)
    notes = tuple(search.notes())
    if not search.examples:
        advice = (
            f"{'; '.join(notes)}; put that right, or give other folders"
            if notes
            else "give sessions of `streamer listen --record` with a corrected transcript.txt, "
            "folders like LibriSpeech's, a .tsv with columns file and transcript, or pairs as "
            "a.wav and a.txt"
        )
        raise InputError(f"{', '.join(map(str, folders))}: nothing to learn from; {advice}")
    return Found(tuple(search.examples), notes)


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


def split_held_out(
    examples: Sequence[Example], share: float = 0.15, seed: int = 0
) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and others to test with.

    The same examples are parted the same way in whatever order they come. Those with the same
    words stay together. At least one example is held out, even if it is longer than `share` of
    the whole, and at least one is not; so none is held out where all say the same.
    """
    alike: defaultdict[str, list[Example]] = defaultdict(list)
    for example in sorted(examples, key=lambda e: (e.text, e.source, len(e.samples))):
        alike[" ".join(re.findall(r"[\w']+", example.text.upper()))].append(example)
    order = list(alike)
    random.Random(seed).shuffle(order)
    seconds = {words: sum(example.seconds for example in alike[words]) for words in order}
    room = share * sum(seconds.values())
    held_out: dict[str, None] = {}
    for words in order[1:]:
        if seconds[words] <= room:
            held_out[words] = None
            room -= seconds[words]
    if not held_out and len(order) > 1:
        held_out[min(order, key=seconds.__getitem__)] = None
    learned = [words for words in order if words not in held_out]
    return [e for w in learned for e in alike[w]], [e for w in held_out for e in alike[w]]


@dataclass(slots=True)
class _Search:
    """What has been found, and what was left out by which reason."""

    examples: list[Example] = field(default_factory=list)
    lines: int = 0
    corrected: int = 0
    taken: set[Path] = field(default_factory=set)
    left_out: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def take(self, audio: Path) -> bool:
        """Claim an audio file; false if that was done before."""
        path = audio.resolve()
        fresh = path not in self.taken
        self.taken.add(path)
        return fresh

    def fits(self, seconds: float, text: str, source: str) -> bool:
        """Whether an example can be used; if not, that is noted."""
        reason = ""
        if not text:
            reason = "without text"
        elif seconds > LONGEST_S:
            reason = f"longer than {LONGEST_S:g} s"
        elif seconds < SHORTEST_S:
            reason = f"shorter than {SHORTEST_S:g} s"
        if reason:
            self.left_out[reason].append(source)
        return not reason

    def add(self, samples: Samples, rate: int, text: str, source: str) -> None:
        """Keep an example, as the live path would hear it."""
        resampler = Resampler(rate)
        heard = np.concatenate((resampler.push(samples), resampler.flush()))
        self.examples.append(Example(heard, text, source))

    def add_file(self, audio: Path, text: str) -> None:
        """Keep a whole file, if it was not taken before and can be used."""
        if not self.take(audio):
            return
        pieces: list[Samples] = []
        try:
            with AudioFile(audio) as file:
                for block in file:
                    pieces.append(block.samples)
                    if block.end > LONGEST_S * file.rate:
                        break
        except InputError as error:
            self.unreadable(error)
            return
        samples = np.concatenate(pieces)
        text, source = _spoken(text), _name(audio)
        if self.fits(len(samples) / file.rate, text, source):
            self.add(samples, file.rate, text, source)

    def unreadable(self, error: InputError) -> None:
        """Note audio that cannot be read."""
        self.left_out["audio that cannot be read"].append(str(error))

    def notes(self) -> Iterator[str]:
        """One line for each thing the user should know."""
        if self.lines and self.examples:
            yield (
                f"{self.corrected} of {self.lines} lines of corrected sessions differ from what "
                "the model wrote; the others are taken to be right"
            )
        for reason, sources in self.left_out.items():
            more = ", ..." if len(sources) > 3 else ""
            yield f"{len(sources)} left out, {reason}: {', '.join(sources[:3])}{more}"


def _sessions(search: _Search, _: Path, files: Sequence[Path]) -> None:
    for folder in (path.parent for path in files if path.name == "events.jsonl"):
        needed = ("audio.wav", "transcript.txt")
        missing = [name for name in needed if not (folder / name).is_file()]
        if len(missing) == 1:
            search.left_out[f"session without {missing[0]}"].append(folder.resolve().name)
        elif not missing and search.take(folder / "audio.wav"):
            _session(search, folder)


def _session(search: _Search, folder: Path) -> None:
    files = audio_files(folder)
    for file in files:
        search.take(file)
    session = read_session(folder)
    name = _name(folder / "transcript.txt")
    for number in session.unheard:
        search.left_out["lines for which nothing was heard"].append(f"{name}:{number}")
    if not session.corrected:
        reason = "not corrected: transcript.txt is what the model wrote"
        search.left_out[reason].append(folder.resolve().name)
        return
    search.lines += len(session.lines)
    search.corrected += session.corrected
    wanted = [
        line
        for line in session.lines
        if search.fits(line.end - line.start, _spoken(line.text), f"{name}:{line.number}")
    ]
    done = 0
    try:
        stretches = cut(files, [(line.start, line.end) for line in wanted])
        for line, (samples, rate) in zip(wanted, stretches, strict=False):
            search.add(samples, rate, _spoken(line.text), f"{name}:{line.number}")
            done += 1
    except InputError as error:
        search.unreadable(error)
    for line in wanted[done:]:
        search.left_out["the recording ends before"].append(f"{name}:{line.number}")


def _librispeech(search: _Search, _: Path, files: Sequence[Path]) -> None:
    audio = _audio(files)
    for path in files:
        if not path.name.endswith(".trans.txt"):
            continue
        for line in filter(str.strip, read_text(path).split("\n")):
            name, text = [*line.split(maxsplit=1), ""][:2]
            if found := audio.get((path.parent, name)):
                search.add_file(found, text)
            else:
                search.left_out["without audio"].append(f"{_name(path)}: {name}")


def _manifests(search: _Search, given: Path, files: Sequence[Path]) -> None:
    for path in files:
        if path.suffix.lower() != ".tsv":
            continue
        header, *lines = read_text(path).split("\n")
        columns = header.split("\t")
        if not set(_COLUMNS) <= set(columns):
            if path == given:
                raise InputError(
                    f"{path}: its first line must name the columns file and transcript; add it"
                )
            search.left_out["a .tsv without columns file and transcript"].append(_name(path))
            continue
        for line in filter(str.strip, lines):
            row = dict(zip(columns, line.split("\t"), strict=False))
            search.add_file(path.parent / row.get("file", ""), row.get("transcript", ""))


def _pairs(search: _Search, _: Path, files: Sequence[Path]) -> None:
    for (folder, stem), audio in _audio(files).items():
        text = folder / f"{stem}.txt"
        if audio.resolve() not in search.taken and text.is_file():
            search.add_file(audio, read_text(text))


def _files(folder: Path) -> list[Path]:
    """What there is to look at, in order.

    Raises:
        InputError: neither a folder nor a manifest.
    """
    if folder.is_dir():
        return sorted(path for path in folder.rglob("*") if not path.name.startswith("."))
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; check the name")
    if folder.suffix.lower() != ".tsv":
        raise InputError(f"{folder}: not a folder; give the folder it is in, or a .tsv manifest")
    return [folder]


def _audio(files: Sequence[Path]) -> dict[tuple[Path, str], Path]:
    """Audio files by folder and name; of several forms of the same, the first of `_AUDIO`."""
    kinds = {kind: number for number, kind in enumerate(_AUDIO)}
    known = [path for path in files if path.suffix.lower() in kinds]
    known.sort(key=lambda path: -kinds[path.suffix.lower()])
    found = {(path.parent, path.stem): path for path in known}
    return dict(sorted(found.items()))


def _name(path: Path) -> str:
    return f"{path.resolve().parent.name}/{path.name}"


def _spoken(text: str) -> str:
    """Text without bracketed tokens such as [noise], and with single spaces."""
    return " ".join(_UNSPOKEN.sub(" ", text).split())
