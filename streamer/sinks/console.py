"""Live words on a terminal: finished text scrolls up, what may still change stays at the bottom.

The live region is the speech in progress and one line of status. After every draw the cursor is
left, hidden, at the region's top left. Erasing is then the same few bytes in every state: also
after the terminal was resized and has wrapped its lines anew, because terminals keep the cursor
on the character it was on. A frame overwrites the one before it in a single write, so nothing
flickers, and an unchanged frame is not written.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TextIO

import rich.console
from rich.text import Text

from streamer.errors import OutputError
from streamer.messages import Event, Final, Gap, Partial, SessionEnded, SessionStarted
from streamer.sinks import Status, send

REFRESH_S = 0.1
"""Time between two draws that only the status asks for."""
METER_CELLS = 8
METER_FLOOR_DB = -60.0
LOUD_DB = -12.0
CLIPPING_DB = -3.0
NAME_CELLS = (8, 24)
"""A device's name is cut to the second of these, and to the first before a field is dropped."""

_HIDE, _SHOW = "\x1b[?25l", "\x1b[?25h"
_NO_WRAP, _WRAP = "\x1b[?7l", "\x1b[?7h"
_CLEAR_LINE, _CLEAR_BELOW = "\x1b[K", "\x1b[J"
_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_JOB_CONTROL = hasattr(signal, "SIGTSTP")
_FALLBACK_SIZE = os.terminal_size((80, 24))
_BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Console:
    """Shows events to a person: live where there is a terminal, as plain lines where there is none.

    Finished text always goes to `out`. The live region is on `out` if that is a terminal, else on
    `err` if that is one. Remarks (device, gaps, summary) keep off `out` unless it is a terminal.
    One thread drives it.

    Args:
        out: where the words go; standard output when not given.
        err: where the remarks go; standard error when not given.
        environ: looked at for `TERM` and `NO_COLOR`.

    Raises:
        OutputError: a stream cannot be written.
        BrokenPipeError: its reader has gone.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._out = out if out is not None else sys.stdout
        self._err = err if err is not None else sys.stderr
        dumb = environ.get("TERM", "").lower() in ("", "dumb", "unknown")
        terminals = [stream for stream in (self._out, self._err) if stream.isatty() and not dumb]
        self._live = terminals[0] if terminals else None
        # Wraps and styles text; it writes nothing itself.
        self._rich = rich.console.Console(
            force_terminal=True,
            color_system="standard",
            no_color=bool(environ.get("NO_COLOR")),
            highlight=False,
            legacy_windows=False,
        )
        self._partials: dict[int, Partial] = {}
        self._status: Status | None = None
        self._frame: list[str] = []
        self._size = _FALLBACK_SIZE
        self._drawn_at = -REFRESH_S
        self._resumed = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if self._live:
            send(self._live, _HIDE)
            if _JOB_CONTROL and threading.current_thread() is threading.main_thread():
                self._handle(signal.SIGTSTP, self._on_stop)
                self._handle(signal.SIGCONT, self._on_continue)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, before in self._handlers.items():
            signal.signal(number, before)
        try:
            self._erase(then=_SHOW)
        except (OutputError, BrokenPipeError):
            # The terminal is gone; what led here says more than this would.
            if error is None:
                raise

    def show(self, event: Event) -> None:
        """Show one event at once."""
        match event:
            case Partial():
                self._partials[event.segment] = event
                self._draw()
            case Final():
                self._partials.pop(event.segment, None)
                self._settle(clean(event.text))
            case Gap():
                lost_s = (event.end - event.start) / event.rate
                at_s = event.start / event.rate
                self.notice(f"⋯ {lost_s:.2f} s of audio lost at {at_s:.2f} s ({event.reason})")
            case SessionStarted():
                self.notice(f"{event.device} · {event.model} · Ctrl-C ends", style="dim")
            case SessionEnded():
                self._partials.clear()
                self._status = None
                self._erase()
                summary = _summary(event)
                if self._err.isatty():
                    rows = self._wrapped(Text(summary), _terminal_size(self._err).columns)
                    summary = "\n".join(row.plain for row in rows)
                send(self._err, summary + "\n")

    def status(self, status: Status) -> None:
        """Show how the session is doing, at most once in `REFRESH_S`."""
        self._status = status
        if time.monotonic() - self._drawn_at >= REFRESH_S:
            self._draw()

    def notice(self, text: str, *, style: str = "yellow") -> None:
        """Say one line that is no transcript: above the live region, else on `err`."""
        if self._live:
            self._draw(above=Text(clean(text), style))
        else:
            send(self._err, clean(text) + "\n")

    def _handle(self, number: int, handler: Callable[[int, object], None]) -> None:
        self._handlers[number] = signal.signal(number, handler)

    def _on_stop(self, number: int, _: object) -> None:
        """Ctrl-Z: the shell gets its terminal as it was."""
        assert self._live
        # Not through the stream: this may have interrupted a write to it.
        with suppress(OSError):
            os.write(self._live.fileno(), f"\r{_CLEAR_BELOW}{_WRAP}{_SHOW}".encode())
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)  # comes back when the process is continued
        self._on_continue(number, _)
        signal.signal(number, self._on_stop)

    def _on_continue(self, number: int, _: object) -> None:
        """The shell has written since: the next draw begins where the cursor is now."""
        self._frame = []
        self._resumed = True
        self._drawn_at = -REFRESH_S

    def _in_foreground(self) -> bool:
        """Whether the terminal is ours; after `bg` it is the shell's, and gets finished text only.

        One that is not the controlling terminal has no foreground.
        """
        assert self._live
        try:
            return not _JOB_CONTROL or os.tcgetpgrp(self._live.fileno()) == os.getpgrp()
        except OSError:
            return True

    def _settle(self, text: str) -> None:
        """Print finished text for good."""
        if not text:
            self._draw()
        elif self._live is self._out:
            self._draw(above=Text(text))
        else:
            # `out` may be a pipe that ends on this very terminal (`| tee`): make room for what
            # its reader is about to print, until the next refresh.
            self._erase()
            send(self._out, text + "\n")
            self._drawn_at = time.monotonic()

    def _draw(self, above: Text | None = None) -> None:
        """Write the paragraph `above` for good and the live region below it."""
        if not self._live:
            return
        size = _terminal_size(self._live)
        # The last column stays free: a cursor behind a full line still counts as on its last
        # cell, and clearing the rest of the line would take that cell with it.
        width = max(1, size.columns - 1)
        frame = []
        hide = ""
        if self._in_foreground():
            # Where the window becomes half as wide, terminals break each row in two. What they
            # push off the screen then cannot be erased any more.
            frame = [self._styled(row) for row in self._region(width, max(1, size.lines // 2))]
            hide, self._resumed = _HIDE if self._resumed else "", False
        if above is None and frame == self._frame and size == self._size:
            return
        settled = [] if above is None else map(self._styled, self._wrapped(above, width))
        lines = "".join(f"{row}{_CLEAR_LINE}\r\n" for row in settled)
        region = f"{_CLEAR_LINE}\r\n".join(frame)
        up = f"\x1b[{len(frame) - 1}A" if len(frame) > 1 else ""
        # A terminal may be narrower than it says: some tell of a new size only after a while. A
        # row that wrapped would make the way up too short.
        send(self._live, f"{hide}\r{lines}{_NO_WRAP}{region}{_CLEAR_BELOW}{up}\r{_WRAP}")
        self._frame, self._size, self._drawn_at = frame, size, time.monotonic()

    def _erase(self, then: str = "") -> None:
        """Take the live region away."""
        if self._live and (self._frame or then):
            send(self._live, (f"\r{_CLEAR_BELOW}" if self._frame else "") + then)
        self._frame = []

    def _region(self, width: int, height: int) -> list[Text]:
        words = Text(" ").join(
            Text(clean(part), style)
            for _, partial in sorted(self._partials.items())
            for part, style in ((partial.stable, ""), (partial.tentative, "dim"))
            if part
        )
        rows = self._wrapped(words, width) if words else []
        status = [_status_row(self._status, width)] if self._status else []
        # The newest words matter most: a speech too long for the screen shows its end.
        room = max(1, height - len(status))
        return (rows[-room:] + status)[:height]

    def _wrapped(self, text: Text, width: int) -> list[Text]:
        rows = list(text.wrap(self._rich, width, overflow="fold"))
        for row in rows:
            row.rstrip()
        return rows

    def _styled(self, row: Text) -> str:
        with self._rich.capture() as capture:
            self._rich.print(row, end="", soft_wrap=True)
        return capture.get()


def clean(text: str) -> str:
    """`text` as one line without characters that could steer a terminal."""
    line = " ".join(_SEQUENCE.sub("", text).split())
    return "".join(
        char
        for char in line
        if unicodedata.category(char) not in ("Cc", "Cs") and char not in _BIDI_CONTROLS
    )


def _status_row(status: Status, width: int) -> Text:
    """The status in at most `width` cells: device first, then what matters most."""
    minutes, seconds = divmod(int(status.elapsed_s), 60)
    fields = [
        *_meter(status.level_db),
        Text(f"lost {status.lost_s:.1f} s", "red" if status.lost_s > 0 else "dim"),
        Text(f"lag {status.lag_s:.1f} s", "dim"),
        Text(f"cpu {status.cost:.0%}", "dim"),
        Text(f"{minutes}:{seconds:02}", "dim"),
    ]
    row = Text(clean(status.device) or "?", "dim")
    shortest, longest = NAME_CELLS
    while True:
        rest = sum(2 + field.cell_len for field in fields)
        if not fields or width - rest >= min(row.cell_len, shortest):
            break
        fields.pop()
    row.truncate(min(longest, width - rest), overflow="ellipsis")
    return Text("  ").join([row, *fields])


def _meter(level_db: float) -> tuple[Text, Text]:
    """A bar and a number for the level, of constant width: nothing beside them may move."""
    # `-inf` and NaN are levels too: of digital silence, and of nothing heard yet.
    shown = round(min(level_db, 99.0)) if level_db > -99.0 else -99
    share = (shown - METER_FLOOR_DB) / -METER_FLOOR_DB
    filled = round(min(1.0, max(0.0, share)) * METER_CELLS)
    style = "green" if shown < LOUD_DB else "yellow" if shown < CLIPPING_DB else "red"
    bar = Text.assemble(("━" * filled, style), ("─" * (METER_CELLS - filled), "dim"))
    return bar, Text(f"{shown:3} dB", "dim")


def _summary(ended: SessionEnded) -> str:
    captured, speech, lost = (
        f"{samples / ended.rate:.1f} s" for samples in (ended.captured, ended.speech, ended.lost)
    )
    summary = f"{captured} captured, {speech} of speech, {lost} lost"
    if not ended.retracted:
        return summary
    words = "word" if ended.retracted == 1 else "words"
    return f"{summary}; {ended.retracted} {words} changed after settling"


def _terminal_size(stream: TextIO) -> os.terminal_size:
    """Its size now; the environment's `COLUMNS` would hide that it was resized."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except OSError:
        return _FALLBACK_SIZE
    return size if size.columns > 0 and size.lines > 0 else _FALLBACK_SIZE
