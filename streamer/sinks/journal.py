"""Keeps a session in a folder: its audio, its events and its text, readable at any moment.

A process that is killed leaves valid files: audio is written half a second at a time, each time
followed by the header that counts it, and every line of text is flushed.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Self, TextIO

import numpy as np

from streamer.errors import OutputError, SettingsError
from streamer.messages import Block, Event, Gap, Partial
from streamer.sinks import Status
from streamer.sinks.lines import JsonLines, PlainText

SAMPLE_BYTES = 2
MAX_AUDIO_BYTES = 2**32 - 2**20
"""Of audio in one file: the format counts bytes in 32 bits, header included."""


class Journal:
    """Writes `FOLDER/<date and time>/` with `audio.wav`, `events.jsonl` and `transcript.txt`.

    Audio is 16-bit mono at the source's rate and goes on in `audio-2.wav` before a file is full.
    What was lost is written as silence, so that a place in the file is a time on the stream's
    clock. Partials are not kept. One thread drives it.

    A write that fails in mid-session ends the recording, not the session: `warn` is told once, and
    standard error if `warn` fails too.

    Args:
        folder: where the session's own folder is made; made as well if it is not there.
        rate: source samples a second.
        warn: told, in one line, that and why the recording ended; standard error by default.

    Raises:
        SettingsError: (on entering) the folder cannot be used.
    """

    def __init__(
        self, folder: Path, rate: int, *, warn: Callable[[str], None] | None = None
    ) -> None:
        self._parent = folder
        self._folder: Path | None = None
        self._rate = rate
        self._warn = warn or _print_warning
        self._files = contextlib.ExitStack()
        self._written = 0
        self._broken = False

    @property
    def folder(self) -> Path | None:
        """The session's own folder; `None` before it is entered."""
        return self._folder

    @property
    def complete(self) -> bool:
        """Whether everything so far has been kept."""
        return not self._broken

    def __enter__(self) -> Self:
        try:
            self._folder = folder = _new_folder(self._parent)
            self._audio = self._files.enter_context(_Audio(folder, self._rate))
            self._events = JsonLines(self._open(folder / "events.jsonl"))
            self._transcript = PlainText(self._open(folder / "transcript.txt"))
        except OSError as error:
            self._close()
            raise SettingsError(
                f"{self._parent}: cannot record there ({error.strerror or error}); "
                "choose a folder that can be written"
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        if not self._broken:
            try:
                self._files.close()
            except OSError as closing:
                self._fail(closing)

    def show(self, event: Event) -> None:
        """Keep the event unless it is a partial."""
        if self._broken or isinstance(event, Partial):
            return
        try:
            self._events.show(event)
            self._transcript.show(event)
        except OutputError as error:
            self._fail(error)

    def status(self, status: Status) -> None:
        """Not kept."""

    def audio(self, item: Block | Gap) -> None:
        """Keep captured audio; what is missing before it, or lost, becomes silence."""
        if self._broken:
            return
        try:
            silence_end = item.start if isinstance(item, Block) else item.end
            while self._written < silence_end:
                missing = min(self._rate, silence_end - self._written)
                self._audio.write(bytes(missing * SAMPLE_BYTES))
                self._written += missing
            if isinstance(item, Block):
                fresh = item.samples[self._written - item.start :]
                # Times 32768, not 32767: samples of a 16-bit source come out as they went in.
                scaled = np.clip(np.rint(fresh * 32768.0), -32768, 32767)
                self._audio.write(scaled.astype("<i2").tobytes())
                self._written += len(fresh)
        except OSError as error:
            self._fail(error)

    def _open(self, path: Path) -> TextIO:
        return self._files.enter_context(path.open("x", encoding="utf-8", newline="\n"))

    def _fail(self, error: OSError | OutputError) -> None:
        self._close()
        cause = error.__cause__ if isinstance(error, OutputError) else error
        reason = getattr(cause, "strerror", None) or cause
        line = (
            f"{self._folder}: recording stopped, a write failed ({reason}); transcription goes on"
        )
        for say in (self._warn, _print_warning):
            # Whoever is told may be broken as well; that must not cost the words either.
            with contextlib.suppress(Exception):
                say(line)
                return

    def _close(self) -> None:
        self._broken = True
        # A ValueError comes of a file that was closed because the next could not be made.
        with contextlib.suppress(OSError, ValueError):
            self._files.close()


class _Audio:
    """16-bit mono PCM over one or more WAV files, each valid after every write to the disk."""

    def __init__(self, folder: Path, rate: int) -> None:
        self._folder = folder
        self._rate = rate
        self._pending = bytearray()
        self._count = 0
        self._file = self._next_file()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._save()

    def write(self, pcm: bytes) -> None:
        self._pending += pcm
        if len(self._pending) * 2 >= self._rate * SAMPLE_BYTES:
            self._save()

    def _next_file(self) -> BinaryIO:
        self._count += 1
        self._bytes = 0
        name = "audio.wav" if self._count == 1 else f"audio-{self._count}.wav"
        file = (self._folder / name).open("xb")
        file.write(self._header())
        file.flush()
        return file

    def _save(self) -> None:
        while self._pending:
            part = self._pending[: MAX_AUDIO_BYTES - self._bytes]
            del self._pending[: len(part)]
            self._file.write(part)
            self._bytes += len(part)
            # Audio first, then the header that counts it: bytes that no header counts do no harm.
            self._file.seek(0)
            self._file.write(self._header())
            self._file.seek(0, 2)
            self._file.flush()
            if self._bytes >= MAX_AUDIO_BYTES:
                self._file.close()
                self._file = self._next_file()

    def _header(self) -> bytes:
        return struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF",
            36 + self._bytes,
            b"WAVE",
            b"fmt ",
            16,
            1,  # PCM
            1,  # channel
            self._rate,
            self._rate * SAMPLE_BYTES,
            SAMPLE_BYTES,
            8 * SAMPLE_BYTES,
            b"data",
            self._bytes,
        )


def _new_folder(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    name = datetime.now().strftime("%Y-%m-%dT%H-%M-%S")
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            number += 1
        else:
            return folder


def _print_warning(line: str) -> None:
    print(line, file=sys.stderr)
