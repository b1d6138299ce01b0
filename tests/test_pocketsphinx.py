"""Another engine as one more policy, with its real package on real speech."""

import itertools
import sys

import numpy as np
import pytest
import soundfile
from conftest import RECORDINGS

from streamer.config import Settings
from streamer.corpora.layouts import Clip
from streamer.corpora.recordings import Recording
from streamer.errors import SettingsError
from streamer.evaluation.evaluate import NAMES, SPHINX, disagreement, evaluate
from streamer.evaluation.metrics import scored
from streamer.evaluation.pocketsphinx import Pocketsphinx, SphinxDecoder
from streamer.messages import SAMPLE_RATE, Block, Final, Partial
from streamer.sources.files import read_audio

SETTINGS = Settings(model="embedded-sew")


@pytest.fixture(autouse=True)
def _installed():
    pytest.importorskip("pocketsphinx")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The first half of a sentence."""
    samples, rate = read_audio(RECORDINGS / "LJ002-0173.ogg")
    path = tmp_path_factory.mktemp("half") / "half.wav"
    soundfile.write(path, samples[: int(2.75 * rate)], rate)
    return Clip(path, "The lad was proved to be of good character")


@pytest.fixture(scope="module")
def samples(clip):
    audio, rate = read_audio(clip.path)
    assert rate == SAMPLE_RATE
    return audio


@pytest.fixture(scope="module")
def whole(samples):
    """Its words, heard at once."""
    return SphinxDecoder().whole(samples)


def test_words_are_plain_and_lie_where_they_were_said(samples, whole):
    assert {"PROVED", "CHARACTER"} <= {word.text for word in whole}
    for word in whole:
        assert scored(word.text) == word.text
        assert 0 <= word.start < word.end <= len(samples) / SAMPLE_RATE + 0.05
    assert all(a.end <= b.start + 1e-9 for a, b in itertools.pairwise(whole))
    later = np.concatenate((np.zeros(SAMPLE_RATE, np.float32), samples))
    [moved] = [word for word in SphinxDecoder().whole(later) if word.text == "CHARACTER"]
    [there] = [word for word in whole if word.text == "CHARACTER"]
    assert moved.start - there.start == pytest.approx(1.0, abs=0.1)


def test_nothing_gives_no_words():
    assert SphinxDecoder().whole(np.zeros(0, np.float32)) == []
    quiet = np.random.default_rng(0).standard_normal(SAMPLE_RATE, np.float32) * 1e-4
    assert SphinxDecoder().whole(quiet) == []


def test_utterances_are_heard_as_they_grow_and_nothing_is_stable(recognizer, samples):
    policy = Pocketsphinx(recognizer, SAMPLE_RATE, SETTINGS, lambda: 0.0)
    shown = []
    for size in range(SAMPLE_RATE // 2, len(samples), SAMPLE_RATE // 2):
        stable, tentative = policy.hear(samples[:size])
        assert stable == []
        shown.append(tentative)
    final = policy.close(samples)
    assert {"PROVED", "CHARACTER"} <= set(final)
    assert len(shown[0]) < len(shown[-1])
    # The next utterance begins anew.
    policy.begin()
    assert policy.close(samples)


def test_words_of_behind_a_split_are_left_to_the_next_utterance(recognizer, samples, whole):
    policy = Pocketsphinx(recognizer, SAMPLE_RATE, SETTINGS, lambda: 0.0)
    policy.hear(samples)
    half = len(samples) // 2
    before = policy.close(samples[:half])
    policy.begin()
    after = policy.close(samples[half:])
    assert 0 < len(before) < len(whole)
    assert len(before) + len(after) <= len(whole) + 2


def test_it_is_measured_against_its_own_offline_words(recognizer, clip):
    recording = Recording("one", (clip,))
    told = []
    evaluation = evaluate(
        [recording],
        recognizer,
        SETTINGS,
        ["streamer", SPHINX],
        progress=lambda name, seconds: told.append(name),
    )
    assert told == ["offline", "streamer", SPHINX]
    ours, other = (evaluation.policies[name] for name in ("streamer", SPHINX))
    assert ours.offline is evaluation.offline is not other.offline
    assert other.offline.texts != ours.offline.texts
    assert "CHARACTER" in other.offline.texts[0]
    assert other.texts[0]
    summary = evaluation.summary()
    figures = summary["policies"][SPHINX]
    assert figures["offline_wer"] != summary["offline"]["wer"]
    assert figures["delta"] == pytest.approx(figures["wer"] - figures["offline_wer"])
    assert figures["disagreement"] == pytest.approx(
        disagreement(other.offline.texts, other.texts), abs=1e-3
    )
    assert len(other.delays.word) + other.delays.never_shown == len(other.offline.words)
    assert other.delays.word
    assert min(other.delays.final) >= 0.5
    assert figures["retracted"] == 0
    assert "calibration_error" not in figures


def test_events_are_those_of_our_voice_detection(recognizer, samples):
    policy = Pocketsphinx(recognizer, SAMPLE_RATE, SETTINGS, lambda: 0.0)
    events = []
    for start in range(0, len(samples), 800):
        events += policy.feed(Block(start, samples[start : start + 800]))
    events += policy.finish()
    assert isinstance(events[-1], Final)
    assert any(isinstance(event, Partial) and event.tentative for event in events)


def test_it_runs_only_where_it_is_named():
    assert SPHINX not in NAMES


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)
    with pytest.raises(SettingsError, match=r"pip install pocketsphinx"):
        SphinxDecoder()
