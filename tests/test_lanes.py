"""The step that drives any number of lanes through one recognizer."""

import math

import numpy as np
import pytest
from synthetic import (
    LOUD,
    QUIET,
    SEW,
    ByLevel,
    Spelling,
    audio,
    recognized,
    session_of,
    spelled,
)

from streamer import live
from streamer.live import Lane
from streamer.messages import Block, Final, Partial, SessionEnded


def by_sound(window):
    """An emission whose letters depend on the audio: each lane says something of its own."""
    columns = []
    for frame in range(SEW.frames(len(window.samples))):
        place = (window.start // SEW.hop + frame) % 8
        loudest = int(abs(window.samples[frame * SEW.hop :][: SEW.hop]).argmax())
        columns.append(1 if place == 7 else (2 + loudest % 8) * (place % 2))
    return spelled(columns)


SPEECH = {
    "left": audio((1, QUIET), (3, LOUD), (1, QUIET), (2, LOUD), (1, QUIET), seed=1),
    "right": audio((0.4, QUIET), (2, LOUD), (0.9, QUIET), (4, LOUD), (0.1, QUIET), seed=2),
}


def lane_of(name, recognizer, **options):
    return Lane(session_of(recognizer, detector=ByLevel(), lane=name, preview_ms=80), **options)


def stepped(lanes, recognizer):
    events = []
    while (found := live.step(lanes, recognizer)) is not None:
        events += found
    return events


@pytest.mark.parametrize("size", [800, 16_000, 200_000])
def test_each_lanes_events_are_those_it_would_have_alone(size):
    recognizer = Spelling(by_sound)
    lanes = {name: lane_of(name, recognizer) for name in SPEECH}
    events = []
    for start in range(0, max(map(len, SPEECH.values())), size):
        for name, samples in SPEECH.items():
            lanes[name].session.feed(Block(min(start, len(samples)), samples[start : start + size]))
        events += stepped(list(lanes.values()), recognizer)
    for lane in lanes.values():
        lane.session.finish()
    events += stepped(list(lanes.values()), recognizer)
    assert {event.lane for event in events} == {"left", "right"}
    texts = set()
    for name, samples in SPEECH.items():
        alone = session_of(recognizer, detector=ByLevel(), lane=name, preview_ms=80)
        alone.feed(Block(0, samples))
        alone.finish()
        expected = recognized(alone, recognizer)
        assert [event for event in events if event.lane == name] == expected
        texts.add(" ".join(event.text for event in expected if isinstance(event, Final)))
    assert len(texts) == 2, "the lanes say different things"


def test_windows_of_all_lanes_go_to_the_recognizer_together_and_finals_first():
    recognizer = Spelling()
    followed = lane_of("followed", recognizer)
    others = [lane_of(name, recognizer, now=lambda: math.inf) for name in ("late", "later")]
    for lane in (followed, *others):
        lane.session.feed(Block(0, SPEECH["left"]))
        lane.session.finish()
    events = live.step([followed, *others], recognizer)
    finals, previews = recognizer.asked
    assert [window.kind for window in finals] == ["final"] * 4, "two of each lane that is late"
    assert [window.kind for window in previews] == ["preview"]
    told = [(type(event), event.lane) for event in events if event.lane != "followed"]
    assert told == [
        (kind, lane) for lane in ("late", "later") for kind in (Final, Final, SessionEnded)
    ]
    recognizer.asked.clear()
    live.step([followed, *others], recognizer)
    assert [len(batch) for batch in recognizer.asked] == [1], "the others have ended"


def test_previews_of_two_lanes_are_one_batch():
    recognizer = Spelling()
    lanes = [lane_of(name, recognizer) for name in SPEECH]
    for lane in lanes:
        lane.session.feed(Block(0, audio((2, LOUD))))
    assert live.step(lanes, recognizer) is not None
    assert [[window.kind for window in batch] for batch in recognizer.asked] == [["preview"] * 2]


def test_a_step_with_nothing_to_do_says_so():
    recognizer = Spelling()
    lane = lane_of("left", recognizer)
    assert live.step([], recognizer) is None
    assert live.step([lane], recognizer) is None
    lane.session.feed(Block(0, np.zeros(16_000, np.float32)))
    assert live.step([lane], recognizer) is None
    lane.session.finish()
    assert [type(event) for event in live.step([lane], recognizer)] == [SessionEnded]
    assert live.step([lane], recognizer) is None
    assert recognizer.asked == []


def test_a_clock_tells_when_an_event_was_made():
    recognizer = Spelling()
    hour = lane_of("left", recognizer, now=lambda: 0.5)
    hour.session.feed(Block(0, SPEECH["left"]))
    events = stepped([hour], recognizer)
    assert {event.at for event in events if isinstance(event, Partial | Final)} == {0.5}


def test_previews_that_are_not_wanted_are_left_out():
    recognizer = Spelling()
    lane = lane_of("left", recognizer, wants_previews=lambda: False)
    lane.session.feed(Block(0, SPEECH["left"]))
    assert {type(event) for event in stepped([lane], recognizer)} == {Final}
    assert lane.session.counts.previews == 0 < lane.session.counts.dropped
