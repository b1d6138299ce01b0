from __future__ import annotations

import dataclasses
import io
import json
import os
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.messages import Event, Final, Gap, Partial, SessionEnded, SessionStarted, Word
from streamer.sinks import Sink, Status
from streamer.sinks.lines import JsonLines, PlainText, to_json

STARTED = SessionStarted(model="m", device='Mikrofon "ü"', source_rate=48000, version="0.1")
PARTIAL = Partial(segment=3, start=12.34, end=14.02, stable="One", tentative="two", at=14.31)
FINAL = Final(
    segment=3,
    start=12.3,
    end=15.1,
    text="One",
    raw="ONE",
    words=(Word("ONE", 12.41, 12.7, 0.97),),
    at=15.6612345678,
)
GAP = Gap(start=960_000, end=984_000, rate=48_000, reason="overflow")
ENDED = SessionEnded(
    captured=979_200, speech=641_600, silence=329_600, lost=8_000, rate=16_000, retracted=2
)
STATUS = Status(device="d", model="m", level_db=-20, lag_s=0, cost=0.2, lost_s=0, elapsed_s=1)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            STARTED,
            '{"event": "session", "model": "m", "device": "Mikrofon \\"ü\\"", '
            '"source_rate": 48000, "version": "0.1"}',
        ),
        (
            PARTIAL,
            '{"event": "partial", "segment": 3, "start": 12.34, "end": 14.02, '
            '"stable": "One", "tentative": "two", "at": 14.31}',
        ),
        (
            FINAL,
            '{"event": "final", "segment": 3, "start": 12.3, "end": 15.1, "text": "One", '
            '"words": [{"word": "ONE", "start": 12.41, "end": 12.7, "confidence": 0.97}], '
            '"at": 15.661235, "raw": "ONE"}',
        ),
        (GAP, '{"event": "gap", "start": 20.0, "end": 20.5, "reason": "overflow"}'),
        (
            ENDED,
            '{"event": "end", "captured": 61.2, "speech": 40.1, "silence": 20.6, '
            '"lost": 0.5, "retracted": 2}',
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_event_has_its_documented_form(event: Event, line: str) -> None:
    assert to_json(event) == line


def test_no_event_class_is_forgotten() -> None:
    examples = {type(event) for event in (STARTED, PARTIAL, FINAL, GAP, ENDED)}
    assert examples == set(typing.get_args(Event))


samples = st.integers(min_value=0, max_value=10**10)


@given(samples, samples, samples, st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000]))
def test_the_account_adds_up_and_gives_the_sample_counts_back(
    speech: int, silence: int, lost: int, rate: int
) -> None:
    captured = speech + silence + lost
    line = json.loads(to_json(SessionEnded(captured, speech, silence, lost, rate, 0)))
    assert abs(line["captured"] - line["speech"] - line["silence"] - line["lost"]) < 1e-6
    assert round(line["lost"] * rate) == lost
    assert round(line["captured"] * rate) == captured


def test_numbers_that_json_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json(Partial(1, 0.0, float("nan"), "", "", 0.0))


def test_json_lines_are_written_one_by_one_and_nothing_else_is() -> None:
    stream = io.StringIO()
    sink: Sink = JsonLines(stream)
    with sink:
        events: list[Event] = [STARTED, PARTIAL, FINAL, GAP, ENDED]
        for number, event in enumerate(events, 1):
            sink.status(STATUS)
            sink.show(event)
            assert stream.getvalue().count("\n") == number
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == [
        "session",
        "partial",
        "final",
        "gap",
        "end",
    ]


def test_plain_text_is_the_finals_that_have_words() -> None:
    stream = io.StringIO()
    sink: Sink = PlainText(stream)
    with sink:
        events: list[Event] = [STARTED, PARTIAL, FINAL, Final(4, 0, 1, "", "", (), 2), GAP, ENDED]
        for event in events:
            sink.show(event)
        sink.status(STATUS)
    assert stream.getvalue() == "One\n"


@pytest.mark.parametrize("kind", [JsonLines, PlainText])
def test_lines_reach_a_pipe_at_once(kind: type[JsonLines] | type[PlainText]) -> None:
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as stream, open(reader, "rb", buffering=0) as pipe:
        kind(stream).show(FINAL)
        assert pipe.read(1000).endswith(b"\n")


def test_a_reader_that_has_gone_is_reported() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w", encoding="utf-8") as stream:
        with pytest.raises(BrokenPipeError):
            JsonLines(stream).show(FINAL)
        # What could not be written must not be tried again when the stream is closed.
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)


@pytest.mark.parametrize(
    ("encoding", "device"), [("utf-8", "caf\udce9"), ("latin-1", "caf…"), ("ascii", "café")]
)
def test_a_name_that_the_stream_cannot_encode_stops_nothing(encoding: str, device: str) -> None:
    data = io.BytesIO()
    stream = io.TextIOWrapper(data, encoding=encoding)
    JsonLines(stream).show(SessionStarted("m", device, 16_000, "0"))
    assert json.loads(data.getvalue().decode(encoding))["device"] == "caf?"


@pytest.mark.parametrize("event", [STARTED, PARTIAL, FINAL, GAP, ENDED])
def test_an_event_of_a_lane_names_it_last(event: Event) -> None:
    alone, named = to_json(event), to_json(dataclasses.replace(event, lane="Me"))
    assert "lane" not in json.loads(alone)
    assert named == alone[:-1] + ', "lane": "Me"}'
