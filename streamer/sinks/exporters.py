"""Finished segments as files: plain text, SubRip, WebVTT, JSON.

A cue is what a person can read at a glance: two lines of 42 characters, seven seconds. Where a
segment needs more than one, the division of least cost is taken: every cue costs something,
breaking where the speaker did not pause costs more, and so do very short and uneven cues.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from streamer.errors import SettingsError
from streamer.messages import Final, Word, spaced
from streamer.sinks.lines import to_object

LINE_CHARACTERS = 42
LONGEST_CUE_MS = 7_000
SHORTEST_CUE_MS = 1_000
"""A shorter cue stays on the screen this long if the next one leaves it the time."""
FULL_PAUSE_MS = 400
"""A pause of this length is as good a place to break as any longer one."""
MIDSPEECH_BREAK_COST = 2.0
"""In cues: breaking where there is no pause costs as much as two more cues."""
UNEVENNESS_COST = 0.5


@dataclass(frozen=True, slots=True)
class Cue:
    """One or two `lines`, shown from `start_ms` to `end_ms` on the stream's clock."""

    start_ms: int
    end_ms: int
    lines: tuple[str, ...]


def to_txt(finals: Iterable[Final]) -> str:
    """One paragraph on one line for every segment that has words."""
    return "".join(f"{' '.join(final.text.split())}\n" for final in finals if final.text.strip())


def to_srt(finals: Iterable[Final]) -> str:
    """SubRip: cues numbered from 1, times as `HH:MM:SS,mmm`."""
    return "\n".join(
        f"{number}\n{_clock(cue.start_ms, ',')} --> {_clock(cue.end_ms, ',')}\n"
        + "".join(f"{line}\n" for line in cue.lines)
        for number, cue in enumerate(to_cues(finals), 1)
    )


def to_vtt(finals: Iterable[Final]) -> str:
    """WebVTT: times as `HH:MM:SS.mmm`; `&`, `<` and `>` are escaped."""
    cues = (
        f"\n{_clock(cue.start_ms, '.')} --> {_clock(cue.end_ms, '.')}\n"
        + "".join(f"{_escaped(line)}\n" for line in cue.lines)
        for cue in to_cues(finals)
    )
    return "WEBVTT\n" + "".join(cues)


def to_json(finals: Sequence[Final], *, model: str, duration: float) -> str:
    """One document: the whole text and every segment with its words and times in seconds."""
    document = {
        "model": model,
        "duration": round(duration, 6),
        "text": " ".join(to_txt(finals).split()),
        "segments": [to_object(final) for final in finals],
    }
    return json.dumps(document, ensure_ascii=False, allow_nan=False, indent=2) + "\n"


def to_cues(finals: Iterable[Final]) -> list[Cue]:
    """The cues of all segments in order; none overlaps the next."""
    groups = [group for final in finals for group in _divide(_shown_words(final))]
    starts: list[int] = []
    for group in groups:
        earliest = starts[-1] + 1 if starts else 0
        starts.append(max(earliest, _ms(group[0].start)))
    cues = []
    for index, (start, group) in enumerate(zip(starts, groups, strict=True)):
        end = max(start + SHORTEST_CUE_MS, _ms(group[-1].end))
        end = min(end, start + LONGEST_CUE_MS, *starts[index + 1 : index + 2])
        lines = _lines([word.word for word in group])
        assert lines is not None, "a group is only made of words that fit"
        cues.append(Cue(start, end, lines))
    return cues


def write_atomically(path: Path, text: str) -> None:
    """Write a whole file or, if that fails, leave what was there.

    Raises:
        SettingsError: the file cannot be written there.
    """
    # The name is short and of its own: `path.name` may already have the longest length allowed.
    beside = path.parent / f".streamer-{secrets.token_hex(6)}.tmp"
    try:
        try:
            with beside.open("x", encoding="utf-8", errors="replace", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(
            f"{path}: cannot be written ({reason}); choose another output folder"
        ) from error


def _shown_words(final: Final) -> list[Word]:
    """The words as `text` spells them, with their times."""
    shown = final.text.split()
    if len(shown) == len(final.words):
        timed = zip(shown, final.words, strict=True)
        return [Word(text, word.start, word.end, word.confidence) for text, word in timed]
    # Text that was put together otherwise has no times of its own: spread it evenly.
    step = (final.end - final.start) / max(1, len(shown))
    return [
        Word(text, final.start + step * index, final.start + step * (index + 1), 0.0)
        for index, text in enumerate(shown)
    ]


def _divide(words: Sequence[Word]) -> list[Sequence[Word]]:
    """Cut the words of one segment into cues, at least total cost (dynamic programming)."""
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(words) + 1):
        choices = []
        for begin in range(end - 1, -1, -1):
            group = words[begin:end]
            if len(group) > 1 and not _is_readable(group):
                break
            after = words[end] if end < len(words) else None
            choices.append((best[begin][0] + _cost(group, after), begin))
        best.append(min(choices))
    groups: list[Sequence[Word]] = []
    end = len(words)
    while end:
        begin = best[end][1]
        groups.append(words[begin:end])
        end = begin
    return groups[::-1]


def _is_readable(group: Sequence[Word]) -> bool:
    # From the rounded times, which are those that are written.
    long = _ms(group[-1].end) - _ms(group[0].start) > LONGEST_CUE_MS
    return not long and _lines([word.word for word in group]) is not None


def _cost(group: Sequence[Word], after: Word | None) -> float:
    filled = sum(len(word.word) + 1 for word in group) / (2 * LINE_CHARACTERS)
    cost = 1.0 + UNEVENNESS_COST * filled**2
    if after is not None:
        pause_ms = (after.start - group[-1].end) * 1000
        cost += MIDSPEECH_BREAK_COST * (1 - min(1.0, max(0.0, pause_ms / FULL_PAUSE_MS)))
        shown_ms = (after.start - group[0].start) * 1000
        cost += 1 - min(1.0, max(0.0, shown_ms / SHORTEST_CUE_MS))
    return cost


def _lines(words: Sequence[str]) -> tuple[str, ...] | None:
    """The words on one line or, as evenly as possible, on two; None if they do not fit."""
    if _fits(words):
        return (spaced(words),)
    splits = [
        (spaced(words[:at]), spaced(words[at:]))
        for at in range(1, len(words))
        if _fits(words[:at]) and _fits(words[at:])
    ]
    return min(splits, key=lambda pair: abs(len(pair[0]) - len(pair[1])), default=None)


def _fits(words: Sequence[str]) -> bool:
    return len(words) == 1 or sum(map(len, words)) + len(words) - 1 <= LINE_CHARACTERS


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _clock(ms: int, point: str) -> str:
    seconds, ms = divmod(ms, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{ms:03}"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
