"""One line for each thing that happened: JSON for programs, plain text for pipes."""

from __future__ import annotations

import json
from typing import Any, Self, TextIO

from streamer.messages import Event, Final, Gap, Partial, SessionEnded, SessionStarted, Word
from streamer.sinks import Status, send


def to_object(event: Event) -> dict[str, Any]:
    """The event as JSON values, keys in the documented order, times in seconds.

    Where a session has several lanes, the event's is the last key.
    """
    return _fields(event) | ({"lane": event.lane} if event.lane else {})


def _fields(event: Event) -> dict[str, Any]:
    match event:
        case SessionStarted():
            return {
                "event": "session",
                "model": event.model,
                "device": event.device,
                "source_rate": event.source_rate,
                "version": event.version,
            }
        case Partial():
            return {
                "event": "partial",
                "segment": event.segment,
                "start": _time(event.start),
                "end": _time(event.end),
                "stable": event.stable,
                "tentative": event.tentative,
                "at": _time(event.at),
            }
        case Final():
            return {
                "event": "final",
                "segment": event.segment,
                "start": _time(event.start),
                "end": _time(event.end),
                "text": event.text,
                "words": [_word(word) for word in event.words],
                "at": _time(event.at),
                "raw": event.raw,
            }
        case Gap():
            return {
                "event": "gap",
                "start": _seconds(event.start, event.rate),
                "end": _seconds(event.end, event.rate),
                "reason": event.reason,
            }
        case SessionEnded():
            return {
                "event": "end",
                "captured": _seconds(event.captured, event.rate),
                "speech": _seconds(event.speech, event.rate),
                "silence": _seconds(event.silence, event.rate),
                "lost": _seconds(event.lost, event.rate),
                "retracted": event.retracted,
            }


def to_json(event: Event) -> str:
    """The event as one line of JSON without its line end."""
    return json.dumps(to_object(event), ensure_ascii=False, allow_nan=False)


class _Lines:
    """Writes to a stream that belongs to somebody else.

    Raises:
        OutputError: the stream cannot be written.
        BrokenPipeError: its reader has gone.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def status(self, status: Status) -> None:
        """Lines have no place for it."""

    def _write(self, line: str) -> None:
        send(self._stream, line + "\n")


class JsonLines(_Lines):
    """Every event as one line of JSON, flushed at once."""

    def show(self, event: Event) -> None:
        """Write one event."""
        self._write(to_json(event))


class PlainText(_Lines):
    """Every finished segment as one line of text, flushed at once, and nothing else."""

    def show(self, event: Event) -> None:
        """Write the event if it is final text."""
        if isinstance(event, Final) and event.text:
            self._write(" ".join(event.text.split()))


def _word(word: Word) -> dict[str, Any]:
    return {
        "word": word.word,
        "start": _time(word.start),
        "end": _time(word.end),
        "confidence": round(float(word.confidence), 4),
    }


def _time(seconds: float) -> float:
    return round(float(seconds), 6)


def _seconds(samples: int, rate: int) -> float:
    # Nanoseconds, not microseconds: the parts of an account must still add up to 1e-6 after each
    # has been rounded, and a reader can get the sample counts back exactly.
    return round(samples / rate, 9)
