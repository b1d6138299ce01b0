"""A recorded session whose transcript was corrected in an editor: which line is which audio.

Theory of operation. `transcript.txt` has a line for each final text in `events.jsonl`, in order,
until the user corrects words, deletes lines, adds some, joins two or parts one. Both texts are
aligned like two words are for their edit distance, only that the letters are lines: pairing a
line with a segment costs the letters by which they differ, leaving one of them alone costs
`UNLIKE` of its letters, and a line may also be paired with several segments, or the other way
round. What is left alone between two pairs, as many lines as segments, was rewritten beyond
recognition and is paired in order. Punctuation and case cost nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from streamer.corpora.layouts import read_text
from streamer.errors import InputError
from streamer.messages import Block
from streamer.sources.files import AudioFile

if TYPE_CHECKING:
    from streamer.messages import Samples

MARGIN_S = 0.1
"""What is kept around a segment, if no other segment is that near."""
UNLIKE = 0.35
"""Of the letters of both, how many may differ: texts that have nothing in common differ in 0.4."""
MOST_JOINED = 4
"""Segments that one line may span, and lines that one segment may."""

_ALONE = (0, 1)
_STEPS = (
    (1, 1),
    (1, 0),
    *((joined, 1) for joined in range(2, MOST_JOINED + 1)),
    *((1, joined) for joined in range(2, MOST_JOINED + 1)),
    _ALONE,
)
"""Segments and lines that one step of an alignment takes, the likeliest first."""
_DRIFT = 50
"""How many deleted lines may be made up for by added ones, or the other way round: alignments
further from the middle are not tried. With all, three hours of speech took a minute."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line (or several, of one segment) of a transcript and what was `heard` there.

    `start` and `end` are seconds on the session's clock, a little around the speech. `number` is
    the first line's, from 1.
    """

    number: int
    text: str
    heard: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Session:
    """The lines of a transcript in order, and the numbers of those `unheard`: they have no audio.

    Text is as in the files, but for spaces.
    """

    lines: tuple[Line, ...]
    unheard: tuple[int, ...]

    @property
    def corrected(self) -> int:
        """Lines that are not what the model wrote."""
        return sum(line.text != line.heard for line in self.lines)


def read_session(folder: Path) -> Session:
    """Find out what in `folder` was said when.

    Raises:
        InputError: a file is missing or not UTF-8, or an event is damaged.
    """
    heard = _segments(folder / "events.jsonl")
    text = read_text(folder / "transcript.txt").split("\n")
    numbered = [(n, " ".join(line.split())) for n, line in enumerate(text, 1) if line.strip()]
    written = [line for _, line in numbered]
    lines = []
    unheard = {n for n, _ in numbered}
    for segments, theirs in _align([segment.text for segment in heard], written):
        ours = heard[segments]
        unheard -= {n for n, _ in numbered[theirs]}
        lines.append(
            Line(
                number=numbered[theirs][0][0],
                text=" ".join(written[theirs]),
                heard=" ".join(segment.text for segment in ours),
                start=ours[0].start,
                end=ours[-1].end,
            )
        )
    return Session(tuple(lines), tuple(sorted(unheard)))


def audio_files(folder: Path) -> list[Path]:
    """A session's audio, in order."""
    more = (folder / f"audio-{number}.wav" for number in count(2))
    return [folder / "audio.wav", *takewhile(Path.is_file, more)]


def cut(
    files: Sequence[Path], spans: Sequence[tuple[float, float]]
) -> Iterator[tuple[Samples, int]]:
    """Stretches of audio that goes on from file to file, and their rate.

    The audio is read once and never held as a whole. Fewer stretches come where it ends early.

    Args:
        files: in order.
        spans: starts and ends in seconds, in order and not overlapping.

    Raises:
        InputError: while iterating: a file cannot be read as far as it is needed.
    """
    left = list(reversed(spans))
    pieces: list[Samples] = []
    rate = heard = 0
    for rate, block in _blocks(files):
        heard = block.end
        while left and (first := round(left[-1][0] * rate)) < heard:
            last = round(left[-1][1] * rate)
            pieces.append(block.samples[max(0, first - block.start) : last - block.start])
            if last > heard:
                break
            yield np.concatenate(pieces), rate
            pieces.clear()
            left.pop()
        if not left:
            return
    if pieces and left[-1][1] - heard / rate <= MARGIN_S + 0.01:
        yield np.concatenate(pieces), rate


@dataclass(frozen=True, slots=True)
class _Segment:
    start: float
    end: float
    text: str


def _segments(events: Path) -> list[_Segment]:
    """The final texts, with a margin on both sides that goes half way to the next at most."""
    found = []
    lines = read_text(events).split("\n")
    for number, line in enumerate(lines, 1):
        try:
            event = json.loads(line.strip() or "{}")
            if event.get("event") == "final":
                start, end = float(event["start"]), float(event["end"])
                if not 0 <= start <= end:
                    raise ValueError("times out of order")
                found.append(_Segment(start, end, " ".join(event["text"].split())))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if number == len(lines):  # no line end: the disk was full, or the power went
                break
            raise InputError(
                f"{events}:{number}: not an event that streamer wrote; "
                "restore the line, or move this session away"
            ) from error
    spaces = [2 * MARGIN_S, *(b.start - a.end for a, b in pairwise(found)), 2 * MARGIN_S]
    margins = [min(MARGIN_S, max(0.0, space / 2)) for space in spaces]
    return [
        _Segment(max(0.0, segment.start - before), segment.end + after, segment.text)
        for segment, (before, after) in zip(found, pairwise(margins), strict=False)
        if segment.text
    ]


def _align(heard: Sequence[str], written: Sequence[str]) -> list[tuple[slice, slice]]:
    """Which segments and which lines belong together, in order."""
    matched = _matched([_letters(text) for text in heard], [_letters(text) for text in written])
    pairs: list[tuple[slice, slice]] = []
    i = j = 0
    for ours, theirs in [*matched, (slice(len(heard), None), slice(len(written), None))]:
        if ours.start - i == theirs.start - j:
            alone = zip(range(i, ours.start), range(j, theirs.start), strict=True)
            pairs += [(slice(a, a + 1), slice(b, b + 1)) for a, b in alone]
        pairs.append((ours, theirs))
        i, j = ours.stop, theirs.stop
    return pairs[:-1]


def _matched(heard: list[str], written: list[str]) -> list[tuple[slice, slice]]:
    """The alignment of least cost, row by row: `costs[i][j]` is that of i segments and j lines."""
    columns = len(written) + 1
    longer = columns - 1 - len(heard)
    alone = UNLIKE * np.cumsum([0, *(len(line) + 1 for line in written)])
    joined = {
        lines: [" ".join(written[j - lines : j]) for j in range(lines, columns)]
        for lines in range(1, MOST_JOINED + 1)
    }
    costs = [alone]
    steps = np.full((len(heard) + 1, columns), _STEPS.index(_ALONE), np.uint8)
    for i in range(1, len(heard) + 1):
        options = np.full((len(_STEPS), columns), np.inf)
        low, high = i + min(0, longer) - _DRIFT, i + max(0, longer) + _DRIFT
        for option, (segments, lines) in zip(options, _STEPS, strict=True):
            if segments == 0 or segments > i:
                continue
            text = " ".join(heard[i - segments : i])
            before = slice(max(0, low - lines), max(0, min(columns, high) - lines))
            if lines:
                step = cdist([text], joined[lines][before], scorer=Levenshtein.distance)[0]
            else:
                step = UNLIKE * (len(text) + 1)
            option[before.start + lines : before.stop + lines] = costs[-segments][before] + step
        best = options.min(axis=0)
        # Lines left alone at the end of the row: the least of what came before, brought here.
        row = np.minimum.accumulate(best - alone) + alone
        steps[i] = np.where(row < best - 1e-9, _STEPS.index(_ALONE), options.argmin(axis=0))
        costs = [*costs[1 - MOST_JOINED :], row]
    pairs: list[tuple[slice, slice]] = []
    i, j = len(heard), len(written)
    while i or j:
        segments, lines = _STEPS[steps[i, j]]
        if segments and lines:
            pairs.append((slice(i - segments, i), slice(j - lines, j)))
        i, j = i - segments, j - lines
    return pairs[::-1]


def _letters(text: str) -> str:
    kept = "".join(c if c.isalnum() else " " if c.isspace() else "" for c in text.upper())
    return " ".join(kept.split())


def _blocks(files: Sequence[Path]) -> Iterator[tuple[int, Block]]:
    clock = end = 0
    for path in files:
        with AudioFile(path) as file:
            for block in file:
                end = clock + block.end
                yield file.rate, Block(clock + block.start, block.samples)
        clock = end
