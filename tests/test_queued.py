from __future__ import annotations

import threading

import pytest

from streamer.messages import Event, Final, Gap, Partial
from streamer.sinks import Status
from streamer.sinks.queued import LONGEST, Queued


class Slow:
    """A sink that shows nothing before it is let go, and may break then."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.go = threading.Event()
        self.busy = threading.Event()
        self.shown: list[Event] = []
        self.failure = failure
        self.left = False

    def __enter__(self) -> Slow:
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True

    def show(self, event: Event) -> None:
        self.busy.set()
        assert self.go.wait(30)
        if self.failure:
            raise self.failure
        self.shown.append(event)

    def status(self, status: Status) -> None:
        return


def partial(segment: int, text: str, lane: str = "") -> Partial:
    return Partial(segment, 0, 1, "", text, 1, lane)


def final(segment: int) -> Final:
    return Final(segment, 0, 1, "said", "said", (), 1)


def test_of_the_partials_that_wait_the_newest_wins_and_nothing_else_is_dropped() -> None:
    slow = Slow()
    with Queued(slow) as queued:
        queued.show(final(0))
        assert slow.busy.wait(30)
        gap = Gap(0, 1, 16_000, "overflow")
        later: list[Event] = [
            partial(1, "a"),
            partial(1, "a", "Me"),
            gap,
            partial(1, "ab"),
            final(1),
        ]
        for event in [*later, partial(2, "c")]:
            queued.show(event)
        slow.go.set()
    assert slow.shown == [final(0), *later[1:], partial(2, "c")]
    assert slow.left


def test_a_full_queue_holds_up_the_session_and_loses_nothing() -> None:
    slow = Slow()
    events = [final(number) for number in range(LONGEST + 20)]
    with Queued(slow) as queued:
        threading.Timer(0.2, slow.go.set).start()
        for event in events:
            queued.show(event)
    assert slow.shown == events


def shown(slow: Slow, events: int) -> None:
    with Queued(slow) as queued:
        for _ in range(events):
            queued.show(final(0))
            threading.Event().wait(0.01)


@pytest.mark.parametrize("events", [1, 3_000])
def test_what_the_sink_raises_comes_out(events: int) -> None:
    """Of a later call, or of the exit."""
    slow = Slow(BrokenPipeError())
    slow.go.set()
    with pytest.raises(BrokenPipeError):
        shown(slow, events)
    assert slow.left
