from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from streamer.cli import DEMO
from streamer.config import Settings
from streamer.live import events, run
from streamer.messages import Block, Event, Final, Gap, SessionEnded
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.sinks import Status
from streamer.sources import Closing
from streamer.sources.files import read_audio


class Told(Closing):
    """A source that gives the items it was made of."""

    name = "told"

    def __init__(self, rate: int, items: list[Block | Gap]) -> None:
        self.rate, self._items = rate, items

    def __iter__(self) -> Iterator[Block | Gap]:
        yield from self._items

    def stop(self) -> None:
        raise AssertionError

    def close(self) -> None:
        """There is nothing to release."""


def gap(start: int, end: int, reason: str = "device-lost") -> Gap:
    return Gap(start, end, 16_000, reason)


@pytest.mark.parametrize(
    ("gaps", "shown"),
    [
        ([(0, 10), (10, 500)], [(0, 500)]),
        ([(0, 10), (10, 20), (20, 500)], [(0, 500)]),
        ([(0, 10), (10, 500, "overflow")], [(0, 10), (10, 500, "overflow")]),
        ([(0, 500)], [(0, 500)]),
    ],
)
@pytest.mark.parametrize("comes_back", [True, False])
def test_an_outage_is_one_gap_and_ends_what_was_said_at_once(
    recognizer: CtcRecognizer, gaps: list[tuple], shown: list[tuple], comes_back: bool
) -> None:
    samples, rate = read_audio(DEMO)
    first = 3 * rate // 2  # in the middle of a word
    items = [Block(0, samples[:first]), *[gap(first + g[0], first + g[1], *g[2:]) for g in gaps]]
    back = Block(first + 500, np.zeros(rate, np.float32))
    seen: list[Event | Block | Gap] = []
    for event in events(
        Told(rate, [*items, back] if comes_back else items),
        recognizer,
        Settings(model="embedded-sew"),
        real_time=False,
        on_audio=lambda item, _: seen.append(item),
    ):
        seen.append(event)
    told = [item for item in seen if isinstance(item, Gap) and item not in items]
    if len(shown) == len(gaps):  # each is an item and an event
        told = [item for n, item in enumerate(seen) if isinstance(item, Gap) and item in seen[:n]]
    assert told == [gap(first + g[0], first + g[1], *g[2:]) for g in shown]
    final = next(n for n, item in enumerate(seen) if isinstance(item, Final) and item.text)
    assert seen.index(items[1]) < final
    if len(gaps) > 1:
        assert final < seen.index(items[2])
    end = seen[-1]
    assert isinstance(end, SessionEnded)
    assert end.lost == 500
    assert end.captured == end.speech + end.silence + end.lost == first + 500 + rate * comes_back


def test_the_level_shown_is_that_of_the_voice(recognizer: CtcRecognizer) -> None:
    rate = 48_000
    hum = 0.5 * np.sin(2 * np.pi * 50 * np.arange(10 * rate) / rate) + 0.2
    blocks = [
        Block(start, hum[start : start + rate // 10].astype(np.float32))
        for start in range(0, len(hum), rate // 10)
    ]
    levels: list[float] = []

    class Meter:
        def __enter__(self) -> Meter:
            return self

        def __exit__(self, *_: object) -> None:
            """Nothing to release."""

        def show(self, event: Event) -> None:
            """Not of interest."""

        def status(self, status: Status) -> None:
            levels.append(status.level_db)

    from streamer import live

    before, live.STATUS_EVERY_S = live.STATUS_EVERY_S, 0.0
    try:
        run(Told(rate, list(blocks)), recognizer, Settings(), [Meter()], real_time=False)
    finally:
        live.STATUS_EVERY_S = before
    assert len(levels) == len(blocks)
    assert max(levels[5:]) < -50
