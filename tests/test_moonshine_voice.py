"""The rival's own program as one more policy: its real package on real speech, and its events."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import RECORDINGS

from streamer.config import Settings
from streamer.corpora.layouts import Clip
from streamer.corpora.recordings import Recording
from streamer.errors import ModelError, SettingsError
from streamer.evaluation.evaluate import NAMES, evaluate
from streamer.evaluation.metrics import scored
from streamer.evaluation.moonshine_voice import RIVALS, Library, MoonshineVoice
from streamer.messages import SAMPLE_RATE, Block, Final, Partial
from streamer.sources.files import read_audio

RIVAL = "moonshine-voice"
CLIP = RECORDINGS / "LJ002-0173.ogg"
STEP = 320


class Stream:
    """The library's stream as its listener knows it: what each call tells, in order."""

    def __init__(self, updates=()):
        self.updates = list(updates)
        self.sizes = []
        self.open = True

    def add_audio(self, samples, rate):
        self.sizes.append(len(samples))
        for event in self.updates.pop(0) if self.updates else ():
            self.listener(event)

    def stop(self):
        self.add_audio([], SAMPLE_RATE)

    def close(self):
        self.open = False


def told(line_id, text, start=0.5, duration=1.0, *, complete=False):
    line = SimpleNamespace(
        line_id=line_id, text=text, start_time=start, duration=duration, is_complete=complete
    )
    return SimpleNamespace(line=line)


def made(stream, now=lambda: 0.0):
    def begin(listener):
        stream.listener = listener
        return stream

    return MoonshineVoice(SimpleNamespace(stream=begin), SAMPLE_RATE, now)


def block(number):
    return Block(number * STEP, np.full(STEP, number, np.float32))


def test_open_lines_are_partials_and_complete_ones_finals_one_for_each_update():
    whole = told(71, " Hello world.", duration=2.0, complete=True)
    stream = Stream([[told(71, "Hello"), told(71, "Hello")], [whole, whole, told(72, "And", 2.25)]])
    policy = made(stream)
    assert policy.feed(block(0)) == [Partial(0, 0.5, 1.5, "", "Hello", 0.0)]
    assert policy.feed(block(1)) == [
        Final(0, 0.5, 2.5, "Hello world.", "Hello world.", (), 0.0),
        Partial(1, 2.25, 3.25, "", "And", 0.0),
    ]
    assert policy.finish() == []
    assert not stream.open


def test_the_words_that_the_end_brings_are_told_and_finished_lines_stay():
    stream = Stream([[told(7, "One.", complete=True)], [told(7, "Won.", complete=True)]])
    policy = made(stream)
    assert [event.text for event in policy.feed(block(0))] == ["One."]
    stream.updates.append([told(8, "Two.", complete=True)])
    assert policy.feed(block(1)) == []
    [last] = policy.finish()
    assert (last.segment, last.text) == (1, "Two.")


def test_audio_that_came_while_it_worked_is_given_at_once():
    now = [0.0]
    stream = Stream()
    policy = made(stream, lambda: now[0])
    for number, at in enumerate([0.02, 0.1, 0.1, 0.1, 0.1, 0.12]):
        now[0] = at
        policy.feed(block(number))
    assert stream.sizes == [STEP, 4 * STEP, STEP]


def test_late_audio_is_heard_to_its_end():
    stream = Stream()
    policy = made(stream, lambda: 9.0)
    for number in range(3):
        assert policy.feed(block(number)) == []
    policy.finish()
    assert stream.sizes == [3 * STEP, 0]


def test_an_event_has_the_time_at_which_it_was_told():
    clock = iter([0.0, 1.25, 1.5, 7.0])
    stream = Stream([[told(1, "One"), told(2, "Two")]])
    policy = made(stream, lambda: next(clock))
    assert [event.at for event in policy.feed(block(0))] == [1.25, 1.5]


def test_its_own_failure_is_not_passed_over():
    stream = Stream([[SimpleNamespace(line=None, error=RuntimeError("no memory"))]])
    with pytest.raises(ModelError, match="moonshine-voice: it failed: no memory"):
        made(stream).feed(block(0))


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "moonshine_voice", None)
    with pytest.raises(SettingsError, match="pip install 'moonshine-voice"):
        Library({})


def test_it_runs_only_where_it_is_named():
    assert RIVAL in RIVALS
    assert not set(RIVALS) & set(NAMES)


@pytest.fixture(scope="module")
def evaluation(recognizer):
    """Both kinds of it, on one sentence."""
    pytest.importorskip("moonshine_voice")
    said = "The lad was proved to be of good character and the son of respectable parents."
    recording = Recording("one", (Clip(CLIP, said),))
    return evaluate([recording], recognizer, Settings(model="embedded-sew"), list(RIVALS))


def test_it_is_measured_against_what_it_hears_itself(evaluation):
    figures = evaluation.policies[RIVAL]
    assert figures.offline is not evaluation.offline
    assert "GOOD CHARACTER" in figures.offline.texts[0]
    assert figures.offline.texts != evaluation.offline.texts
    assert "GOOD CHARACTER" in figures.texts[0]
    words = figures.offline.words
    assert len(figures.delays.word) + figures.delays.never_shown == len(words)
    assert len(figures.delays.word) > 0.8 * len(words)
    seconds = len(read_audio(CLIP)[0]) / SAMPLE_RATE
    ends = [word.end for word in words]
    assert ends == sorted(ends)
    assert 0 < ends[0] < ends[-1] <= seconds + 0.1


def test_its_delays_are_those_of_live_text(evaluation):
    delays = evaluation.policies[RIVAL].delays
    assert min(delays.final) > 0.2
    assert min(delays.word) > -0.3
    assert np.median(delays.word) < min(delays.final) + 1


def test_what_it_does_not_say_is_no_zero(evaluation):
    summary = evaluation.summary()
    for name in RIVALS:
        figures = summary["policies"][name]
        assert figures["settle_delay"]["p50"] is None
        assert figures["retracted"] is None
        assert figures["stable_early"] is None
        assert "calibration_error" not in figures
        assert figures["cost"] > 0
        assert figures["delta"] == pytest.approx(figures["wer"] - figures["offline_wer"], abs=1e-3)


def test_the_lean_one_writes_the_same(evaluation):
    texts = {scored(evaluation.policies[name].texts[0]) for name in RIVALS}
    assert len(texts) == 1
