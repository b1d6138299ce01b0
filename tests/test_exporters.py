from __future__ import annotations

import html
import itertools
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import SettingsError
from streamer.messages import Final, Word
from streamer.sinks.exporters import (
    to_cues,
    to_json,
    to_srt,
    to_txt,
    to_vtt,
    write_atomically,
)


def final(segment: int, timed: list[tuple[str, float, float]]) -> Final:
    words = tuple(Word(word, start, end, 0.9) for word, start, end in timed)
    text = " ".join(word for word, _, _ in timed)
    start, end = (timed[0][1], timed[-1][2]) if timed else (0.0, 1.0)
    return Final(segment, start, end, text, text.upper(), words, end + 0.5)


def spoken(text: str, start: float, seconds_a_word: float = 0.3) -> list[tuple[str, float, float]]:
    return [
        (word, start + i * seconds_a_word, start + (i + 0.9) * seconds_a_word)
        for i, word in enumerate(text.split())
    ]


@st.composite
def transcripts(draw: st.DrawFn) -> list[Final]:
    """Segments with unusual words, pauses from none to long, and words of no length."""
    letters = st.text("abz'&<>äßя", min_size=1, max_size=12)
    long = st.text("q", min_size=40, max_size=100)
    now = 0.0
    finals = []
    for segment in range(draw(st.integers(0, 4))):
        timed = []
        for _ in range(draw(st.integers(0, 40))):
            word = draw(long if draw(st.integers(0, 15)) == 0 else letters)
            now += draw(st.sampled_from([0.0, 0.0004, 0.05, 0.2, 0.6, 3.0]))
            end = now + draw(st.sampled_from([0.0, 0.02, 0.3, 0.8, 9.0]))
            timed.append((word, now, end))
            now = end
        finals.append(final(segment, timed))
    return finals


@given(transcripts())
def test_every_word_is_in_one_cue_and_in_order(finals: list[Final]) -> None:
    shown = " ".join(line for cue in to_cues(finals) for line in cue.lines)
    assert shown.split() == [word.word for final in finals for word in final.words]


@given(transcripts())
def test_cues_are_short_enough_to_read_and_do_not_overlap(finals: list[Final]) -> None:
    cues = to_cues(finals)
    for cue in cues:
        assert 0 <= cue.start_ms < cue.end_ms <= cue.start_ms + 7000
        assert 1 <= len(cue.lines) <= 2
        assert all(len(line) <= 42 or " " not in line for line in cue.lines)
    for cue, following in itertools.pairwise(cues):
        assert cue.end_ms <= following.start_ms
        assert cue.end_ms - cue.start_ms >= 1000 or cue.end_ms == following.start_ms


@given(transcripts())
def test_a_cue_is_on_the_screen_while_its_first_word_is_said(finals: list[Final]) -> None:
    starts = [round(word.start * 1000) for final in finals for word in final.words]
    index = 0
    for cue in to_cues(finals):
        # Words of no length may push each other on by a millisecond each.
        assert 0 <= cue.start_ms - starts[index] <= len(starts)
        index += len(" ".join(cue.lines).split())


def test_scripts_without_spaces_are_shown_without_them() -> None:
    timed = spoken("日 本 語 and 日", 0.0)
    [cue] = to_cues([final(0, timed)])
    assert cue.lines == ("日本語 and 日",)


@given(transcripts())
def test_the_files_say_the_same_words(finals: list[Final]) -> None:
    words = [word.word for final in finals for word in final.words]
    assert to_txt(finals).split() == words
    vtt = re.sub(r"\n\S+ --> \S+\n", "\n", to_vtt(finals).removeprefix("WEBVTT\n"))
    assert html.unescape(vtt).split() == words
    srt = re.sub(r"(?m)^\d+\n\S+ --> \S+\n", "", to_srt(finals))
    assert srt.split() == words
    document = json.loads(to_json(finals, model="m", duration=1.0))
    assert document["text"].split() == words
    assert [w["word"] for s in document["segments"] for w in s["words"]] == words


def test_subrip_is_numbered_and_has_commas() -> None:
    finals = [final(0, [("One", 1.0, 1.5)]), final(1, [("two", 3661.25, 3663.5)])]
    assert to_srt(finals) == (
        "1\n00:00:01,000 --> 00:00:02,000\nOne\n\n2\n01:01:01,250 --> 01:01:03,500\ntwo\n"
    )


def test_webvtt_has_a_header_and_escapes_markup() -> None:
    finals = [final(0, [("<b>", 1.0, 1.5), ("&", 1.5, 2.25)])]
    assert to_vtt(finals) == "WEBVTT\n\n00:00:01.000 --> 00:00:02.250\n&lt;b&gt; &amp;\n"


def test_no_speech_makes_empty_but_valid_files() -> None:
    nothing = [final(0, [])]
    assert to_txt(nothing) == to_srt(nothing) == ""
    assert to_vtt(nothing) == "WEBVTT\n"
    assert json.loads(to_json([], model="m", duration=2.0)) == {
        "model": "m",
        "duration": 2.0,
        "text": "",
        "segments": [],
    }


def test_a_long_segment_is_broken_where_the_speaker_paused() -> None:
    before = spoken("we should begin with the report", 0.0, 0.2)
    after = spoken("and then we can talk about what is to be done before the next one", 1.6, 0.2)
    cues = to_cues([final(0, before + after)])
    assert [" ".join(cue.lines).split()[0] for cue in cues] == ["we", "and"]


def test_without_pauses_the_cues_are_even() -> None:
    words = spoken(" ".join(["word"] * 24), 0.0)
    lengths = [len(" ".join(cue.lines).split()) for cue in to_cues([final(0, words)])]
    assert lengths == [12, 12]


def test_two_lines_are_even() -> None:
    words = spoken("one two three four five six seven eight nine ten", 0.0)
    (cue,) = to_cues([final(0, words)])
    assert cue.lines == ("one two three four five", "six seven eight nine ten")


def test_people_see_the_text_and_not_the_raw_words() -> None:
    one = Final(
        0, 0, 1, "I'm here", "I'M HERE", (Word("I'M", 0, 0.4, 1), Word("HERE", 0.4, 1, 1)), 2
    )
    assert to_cues([one])[0].lines == ("I'm here",)


def test_text_without_word_times_is_spread_over_its_segment() -> None:
    cues = to_cues([Final(0, 10.0, 30.0, " ".join(["word"] * 40), "", (), 31.0)])
    assert cues[0].start_ms == 10_000
    assert cues[-1].end_ms == 30_000
    assert sum(len(" ".join(cue.lines).split()) for cue in cues) == 40


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250 + ".srt")
    write_atomically(path, "first\n")
    write_atomically(path, "zweite Zeile: ü\n")
    assert path.read_text(encoding="utf-8") == "zweite Zeile: ü\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    target.mkdir()
    with pytest.raises(SettingsError, match="cannot be written"):
        write_atomically(target, "text")
    with pytest.raises(SettingsError, match="missing"):
        write_atomically(tmp_path / "missing" / "out.txt", "text")
    assert list(tmp_path.iterdir()) == [target]
