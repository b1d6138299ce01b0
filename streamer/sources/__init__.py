"""Where sound comes in: every source is a context manager that iterates over `Block | Gap`.

    with Microphone(find_input("")) as source:
        for item in source:
            ...

`devices` finds microphones, `microphone` listens to one, `files` reads files and pipes.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol, Self

from streamer.messages import Block, Gap


class Source(AbstractContextManager["Source", None], Protocol):
    """Mono audio in order. `Block.start` counts every sample since the first, lost ones too.

    `notice` takes a line that people should read.
    """

    notice: Callable[[str], None]

    @property
    def rate(self) -> int:
        """Samples a second."""

    @property
    def name(self) -> str:
        """What people call it: a device or a file."""

    def stop(self) -> None:
        """End the iteration soon; from any thread or signal handler, as often as you like."""

    def __iter__(self) -> Iterator[Block | Gap]: ...


def captured_s(source: Source) -> float:
    """Stream seconds that the source has captured, read or not; 0 where it cannot know."""
    return float(getattr(source, "captured_s", 0.0))


def say(line: str) -> None:
    """Print one line for people."""
    print(f"streamer: {line}", file=sys.stderr, flush=True)


class Closing:
    """What the sources here share: a context that ends in `close`, and a way to tell people.

    `notice` takes a line that people should read: standard error, unless it is replaced.
    """

    notice: Callable[[str], None] = staticmethod(say)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release what the source holds; again does nothing."""
        raise NotImplementedError


class Bell:
    """Wakes one waiting thread; `ring` is safe in a signal handler.

    A `threading.Event` is not: its lock is not reentrant, so a handler that interrupts `wait` in
    the same thread and calls `set` may hang for ever. `SimpleQueue.put` is reentrant.
    """

    def __init__(self) -> None:
        self._rung: queue.SimpleQueue[None] = queue.SimpleQueue()

    def ring(self) -> None:
        """Wake the waiting thread, or the next one to wait."""
        if self._rung.empty():
            self._rung.put(None)

    def wait(self, seconds: float) -> bool:
        """Sleep until it rings, at most `seconds`; whether it rang."""
        with suppress(queue.Empty):
            self._rung.get(timeout=max(seconds, 0))
            return True
        return False


class _StandardError:
    """File descriptor 2, which several threads may mute at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._muted_by = 0
        self._saved: int | None = None

    def mute(self) -> None:
        with self._lock:
            # A daemon may have closed it.
            with suppress(OSError):
                if not self._muted_by:
                    self._saved = _replaced_by_nothing()
            self._muted_by += 1

    def unmute(self) -> None:
        with self._lock:
            self._muted_by -= 1
            if not self._muted_by and self._saved is not None:
                os.dup2(self._saved, 2)
                os.close(self._saved)
                self._saved = None

    def copy(self) -> int:
        """A new descriptor of what 2 is when nobody mutes it."""
        with self._lock:
            return os.dup(2 if self._saved is None else self._saved)


def _replaced_by_nothing() -> int:
    """Lead descriptor 2 to nowhere; a copy of what it was."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        saved = os.dup(2)
        os.dup2(nothing, 2)
        return saved
    finally:
        os.close(nothing)


_standard_error = _StandardError()


@contextmanager
def muted_c_libraries() -> Iterator[None]:
    """Keep what PortAudio's own threads print out of the live screen; `sys.stderr` goes on."""
    before = sys.stderr
    copy = _standard_error.copy() if before.fileno() == 2 else os.dup(before.fileno())
    with os.fdopen(copy, "w", buffering=1) as ours, quiet_stderr():
        sys.stderr = ours
        try:
            yield
        finally:
            sys.stderr = before


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Swallow what C libraries print on file descriptor 2; exceptions pass untouched.

    Several threads may do so at once: the last one to leave brings it back.
    """
    _standard_error.mute()
    try:
        yield
    finally:
        _standard_error.unmute()
