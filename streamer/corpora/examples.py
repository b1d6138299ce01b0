"""Examples to learn from, found in a user's folders: stretches of speech, each with its text.

They come from sessions of `streamer listen --record` whose transcript.txt was corrected, and from
the layouts of `streamer.corpora.layouts`. What cannot be used is left out and counted in a note.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamer.core.resample import Resampler
from streamer.corpora.layouts import files_in, find_clips
from streamer.corpora.sessions import audio_files, cut, read_session
from streamer.errors import InputError
from streamer.messages import SAMPLE_RATE
from streamer.sources.files import AudioFile

if TYPE_CHECKING:
    from streamer.messages import Samples

LONGEST_S = 30.0
SHORTEST_S = 0.3

_UNSPOKEN = re.compile(r"\[[^\]]*\]|<[^>]*>|\([^)]*\)")


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
            manifest names no file in a line or, if it was given, lacks a column, or there is
            nothing to learn from.
    """
    files = [path for folder in folders for path in files_in(folder)]
    search = _Search()
    _sessions(search, files)
    found = find_clips(files, given=folders)
    for clip in found.clips:
        search.add_file(clip.path, clip.text)
    for table in found.passed_over:
        search.left_out["a .tsv without columns file and transcript"].append(_name(table))
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
        if not audio.is_file():
            self.left_out["without audio"].append(_name(audio))
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


def _sessions(search: _Search, files: Sequence[Path]) -> None:
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


def _name(path: Path) -> str:
    return f"{path.resolve().parent.name}/{path.name}"


def _spoken(text: str) -> str:
    """Text without bracketed tokens such as [noise], and with single spaces."""
    return " ".join(_UNSPOKEN.sub(" ", text).split())
