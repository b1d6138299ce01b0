"""Where words leave: every sink shows the same events and, where it can, the state of the session.

A sink is a context manager that one thread drives. What it cannot do with an event (a subtitle
file with a level meter, say) it passes over in silence.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TextIO

from streamer.errors import OutputError
from streamer.messages import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the session is doing now, for people who look at it."""

    device: str
    """What is being heard, as its driver names it."""
    model: str
    """What recognizes it."""
    level_db: float
    """Level of the newest audio in dB relative to full scale; `-inf` for digital silence."""
    lag_s: float
    """Seconds of audio that are captured and not yet recognized."""
    cost: float
    """CPU seconds spent on one second of audio."""
    lost_s: float
    """Seconds of audio that never arrived."""
    elapsed_s: float
    """Seconds since the first captured sample."""


class Sink(AbstractContextManager["Sink", None], Protocol):
    """Shows events as they come."""

    def show(self, event: Event) -> None:
        """Show one event."""

    def status(self, status: Status) -> None:
        """Show how the session is doing; called often, also when nothing is said."""


def send(stream: TextIO, text: str) -> None:
    """Write `text` and flush. What the stream's encoding lacks becomes a question mark.

    Raises:
        OutputError: the stream cannot be written.
        BrokenPipeError: its reader has gone.
    """
    encoding = stream.encoding or "utf-8"
    try:
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"the output cannot be written ({error.strerror or error}); make room, or name another"
        ) from error
