"""A sink that may be slow: whoever reads our output must not hold up the recognition.

Events wait for a thread of the sink's own. Of the partials of a segment the newest one wins;
everything else is kept in its order. When `LONGEST` events wait, the session waits too: audio
is lost from the ring buffer then, and counted, but no final text is.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Self

from streamer.messages import Partial

if TYPE_CHECKING:
    from streamer.messages import Event
    from streamer.sinks import Sink, Status

LONGEST = 1_000


class Queued:
    """A sink behind a queue. What the sink raises comes out of the next call, or of the exit.

    Args:
        sink: entered and left by the thread that drives this; shown to by another.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._changed = threading.Condition()
        self._waiting: deque[Event] = deque()
        self._status: Status | None = None
        self._ending = False
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="sink", daemon=True)

    def __enter__(self) -> Self:
        self._sink.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
        self._thread.join()
        self._sink.__exit__(None, None, None)
        if error[0] is None:
            self._raise()

    def show(self, event: Event) -> None:
        """Have one event shown."""
        with self._changed:
            self._raise()
            if isinstance(event, Partial):
                self._forget_partial(event)
            self._changed.wait_for(lambda: len(self._waiting) < LONGEST or self._failure)
            self._waiting.append(event)
            self._changed.notify_all()

    def status(self, status: Status) -> None:
        """Have the newest status shown."""
        with self._changed:
            self._raise()
            self._status = status
            self._changed.notify_all()

    def _forget_partial(self, newer: Partial) -> None:
        of_newer = newer.lane, newer.segment
        for event in self._waiting:
            if isinstance(event, Partial) and (event.lane, event.segment) == of_newer:
                self._waiting.remove(event)
                return

    def _raise(self) -> None:
        failure, self._failure = self._failure, None
        if failure:
            raise failure

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._status or self._ending)
                event = self._waiting.popleft() if self._waiting else None
                status, self._status = self._status, None
                self._changed.notify_all()
            if event is None and status is None:
                return
            try:
                if event:
                    self._sink.show(event)
                if status:
                    self._sink.status(status)
            except Exception as error:  # handed over to the thread that drives the session
                with self._changed:
                    self._failure = error
                    self._waiting.clear()
                    self._changed.notify_all()
                return
