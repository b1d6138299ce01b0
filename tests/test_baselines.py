import itertools

import numpy as np
import pytest
from conftest import RECORDING, between_lines

from streamer.config import Settings
from streamer.core.ctc import decode
from streamer.core.highpass import HighPass
from streamer.evaluation.baselines import (
    POLICIES,
    ChunkedPipeline,
    GrowingBuffer,
    HeardWord,
    LocalAgreement,
    MiddleToken,
)
from streamer.evaluation.metrics import scored
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Block, Final, Partial
from streamer.recognition import load_recognizer
from streamer.sources.files import read_audio

HOP = 320


@pytest.fixture(scope="module")
def recognizer():
    """Read greedily, so that frames that never change spell words that never change."""
    return load_recognizer(Settings(model="embedded-sew", lm="none"))


@pytest.fixture(scope="module")
def recording():
    return read_audio(RECORDING)[0]


def played(policy, audio):
    """All events of a policy that hears `audio` in blocks of 50 ms."""
    events = []
    for start in range(0, len(audio), 800):
        events += policy.feed(Block(start, audio[start : start + 800]))
    return events + list(policy.finish())


def made(kind, recognizer, now=lambda: 0.0, **settings):
    return kind(recognizer, SAMPLE_RATE, Settings(raw=True, **settings), now)


def segments_of(recognizer, audio, **settings):
    """What each policy shows, segment by segment."""
    shown = {}
    for name, kind in POLICIES.items():
        events = played(made(kind, recognizer, **settings), audio)
        shown[name] = [list(part) for _, part in itertools.groupby(events, lambda e: e.segment)]
    return shown


@pytest.fixture(scope="module")
def sentences(recognizer, recording):
    return segments_of(recognizer, recording)


@pytest.fixture(scope="module")
def sessions(recognizer, recording, sentences):
    """The sentences, and the whole recording as one utterance."""
    whole = segments_of(
        recognizer, recording, hangover_ms=3_000, preview_ms=1_280, max_utterance_s=60
    )
    assert [len(segments) for segments in whole.values()] == [1] * 4
    return {name: [*sentences[name], *whole[name]] for name in POLICIES}


@pytest.fixture(scope="module")
def ours(recognizer, recording):
    transcriber = Transcriber(recognizer, SAMPLE_RATE, Settings(raw=True), previews=False)
    return [e for e in played(transcriber, recording) if isinstance(e, Final)]


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_finishes_every_utterance(sentences, ours, name):
    assert len(ours) == len(RECORDING.with_suffix(".txt").read_text().splitlines())
    for segment, our in zip(sentences[name], ours, strict=True):
        *partials, final = segment
        assert isinstance(final, Final)
        assert (final.segment, final.start, final.end) == (our.segment, our.start, our.end)
        assert final.text
        assert partials
        assert all(isinstance(event, Partial) and event.start == our.start for event in partials)


def test_the_growing_buffer_ends_with_our_text(sentences, ours):
    assert [segment[-1].text for segment in sentences["growing-buffer"]] == [f.text for f in ours]


@pytest.mark.parametrize("name", POLICIES)
def test_stable_words_only_grow(sessions, name):
    for segment in sessions[name]:
        stable = [e.stable if isinstance(e, Partial) else e.text for e in segment]
        for before, after in itertools.pairwise(text.split() for text in stable):
            assert after[: len(before)] == before


def test_the_growing_buffer_is_sure_of_nothing_and_others_are_of_something(sessions):
    sure = {
        name: sum(bool(e.stable) for part in segments for e in part[:-1])
        for name, segments in sessions.items()
    }
    assert sure.pop("growing-buffer") == 0
    assert all(sure.values()), sure


def test_the_middle_token_merge_never_changes_what_it_has_shown(sessions):
    for segment in sessions["middle-token"]:
        shown = [f"{e.stable} {e.tentative}".strip() for e in segment[:-1]]
        for before, after in itertools.pairwise([*shown, segment[-1].text]):
            assert after.startswith(before)


def test_the_middle_token_merge_waits_for_what_follows_its_middle(sessions):
    assert all(
        not event.tentative and not event.stable
        for segment in sessions["middle-token"]
        for event in segment[:-1]
        if event.end - event.start < 2.8
    )


@pytest.mark.parametrize("kind", POLICIES.values())
def test_previews_that_come_too_late_are_left_out(recognizer, recording, kind):
    events = played(
        made(kind, recognizer, now=lambda: 1e6), recording[: between_lines(recording)[1]]
    )
    assert events
    assert all(isinstance(event, Final) and event.text for event in events)


@pytest.mark.parametrize("kind", POLICIES.values())
def test_noise_without_an_utterance_shows_nothing(recognizer, kind):
    quiet = np.random.default_rng(0).standard_normal(2 * SAMPLE_RATE, np.float32) * 1e-4
    assert played(made(kind, recognizer), quiet) == []


@pytest.mark.parametrize("kind", [ChunkedPipeline, MiddleToken])
@pytest.mark.parametrize("frames", [2, 138, 250, 420, 612])
@pytest.mark.parametrize("step", [16, 100])
def test_frames_that_are_kept_are_those_of_the_utterance(
    recognizer, recording, monkeypatch, kind, frames, step
):
    """Joined they are as many as the whole has, and lie where the whole has them."""
    read = []

    def listening(log_probs):
        read.append(log_probs)
        return decode(log_probs, recognizer.vocabulary)

    listening.has_language_model = False
    monkeypatch.setattr(recognizer, "decoder", listening)
    utterance = recording[8_000 : 8_000 + frames * HOP + 80]
    assert recognizer.grid.frames(len(utterance)) == frames
    policy = made(kind, recognizer)
    for known in range(step, frames, step):
        policy.hear(utterance[: known * HOP + 80])
    policy.close(utterance)
    assert len(read[-1]) == frames
    if frames < 100:
        return
    joined, whole = read[-1].argmax(axis=1), recognizer.log_probs(utterance).argmax(axis=1)

    def agreement(shift):
        both = (joined[8:-8], whole[8 + shift : frames - 8 + shift])
        return np.mean((both[0] == both[1])[(both[0] != 0) | (both[1] != 0)])

    assert agreement(0) > max(agreement(shift) for shift in (-4, -3, -2, 2, 3, 4))


def test_a_chunk_that_is_full_costs_one_look(recognizer, recording):
    looked = []

    class Counting(ChunkedPipeline):
        def emission(self, samples):
            looked.append(len(samples))
            return super().emission(samples)

    policy = made(Counting, recognizer)
    for seconds in (2.0, 4.0, 5.0, 6.0):
        policy.hear(recording[: int(seconds * SAMPLE_RATE)])
    chunk, stride = policy.CHUNK, policy.STRIDE
    assert [look for look in looked if look] == [
        32_000,
        64_000,
        chunk,
        16_000 + 2 * stride,
    ]


def test_utterances_reach_back_to_their_beginning_after_splits_too(recognizer, recording):
    heard = []

    class Listening(GrowingBuffer):
        def begin(self):
            heard.append([])

        def hear(self, utterance):
            heard[-1].append(utterance)
            return [], []

        def close(self, utterance):
            return []

    settings = {"hangover_ms": 3_000, "max_utterance_s": 5, "preview_ms": 640}
    finals = [
        event
        for event in played(made(Listening, recognizer, **settings), recording)
        if isinstance(event, Final)
    ]
    assert len(finals) > 4
    assert max(len(utterances[-1]) for utterances in heard if utterances) > 4.2 * SAMPLE_RATE
    high_pass = HighPass()
    filtered = np.concatenate((high_pass.push(recording), high_pass.flush()))
    for final, utterances in zip(finals, heard, strict=False):
        onset = round(final.start * SAMPLE_RATE)
        for utterance in utterances:
            # What completes the last frame of a window is not of the recording.
            known = filtered[onset : onset + len(utterance)]
            assert np.array_equal(utterance[: len(known)], known)


def words(*spelled):
    return [HeardWord(text, start * HOP, end * HOP) for text, start, end in spelled]


def agreement_on(recognizer, *hypotheses, seconds=3):
    """What LocalAgreement-2 shows of hypotheses whose frames count from the utterance's start."""
    policy = made(LocalAgreement, recognizer)
    script = iter(hypotheses)
    policy.words = lambda samples: next(script)
    lengths = range(seconds, seconds + len(hypotheses))
    return [policy.hear(np.zeros(length * SAMPLE_RATE, np.float32)) for length in lengths]


def test_local_agreement_looks_once_a_second(recognizer):
    policy = made(LocalAgreement, recognizer)
    looked = []
    policy.words = lambda samples: looked.append(len(samples)) or []
    for tenths in range(1, 31):
        policy.hear(np.zeros(tenths * SAMPLE_RATE // 10, np.float32))
    assert looked == [SAMPLE_RATE, 2 * SAMPLE_RATE, 3 * SAMPLE_RATE]


def test_what_two_hypotheses_agree_on_is_committed(recognizer):
    shown = agreement_on(
        recognizer,
        words(("THE", 10, 18), ("CAP", 20, 28)),
        words(("THE", 10, 18), ("CAT", 20, 28), ("SAD", 40, 48)),
        words(("THE", 10, 18), ("CAT", 20, 28), ("SAT", 40, 48)),
        words(("THEY", 10, 18), ("CAT", 20, 28), ("SAT", 40, 48)),
    )
    assert shown == [
        ([], ["THE", "CAP"]),
        (["THE"], ["CAT", "SAD"]),
        (["THE", "CAT"], ["SAT"]),
        (["THE", "CAT", "SAT"], []),
    ]


def test_words_agree_whatever_their_case_and_punctuation(recognizer):
    shown = agreement_on(
        recognizer,
        words(("The", 10, 18), ("cat.", 20, 28)),
        words(("the", 10, 18), ("cat", 20, 28), ("sat.", 40, 48)),
        words(("The", 10, 18), ("Cat", 20, 28), ("sat,", 40, 48)),
    )
    assert shown[-1] == (["the", "cat", "sat,"], [])


def test_a_short_word_right_after_a_committed_one_is_not_lost(recognizer):
    shown = agreement_on(
        recognizer,
        words(("WITH", 10, 20)),
        words(("WITH", 10, 20), ("A", 22, 23)),
        words(("WITH", 10, 20), ("A", 22, 23), ("DOG", 30, 40)),
    )
    assert shown[-1] == (["WITH", "A"], ["DOG"])


def test_a_committed_word_that_is_heard_again_a_little_later_is_no_new_one(recognizer):
    shown = agreement_on(
        recognizer,
        words(("IT", 8, 9), ("IS", 12, 14), ("A", 20, 21)),
        words(("IT", 8, 9), ("IS", 12, 14), ("A", 20, 21)),
        words(("IT", 8, 9), ("IS", 12, 14), ("A", 21, 22), ("DOG", 30, 40)),
    )
    assert shown[-1] == (["IT", "IS", "A"], ["DOG"])


def test_a_long_buffer_is_cut_at_the_last_committed_word(recognizer):
    policy = made(LocalAgreement, recognizer)
    sizes = []
    script = iter([[("ONE", 10, 20)], [("ONE", 10, 20)], [("ONE", 1, 1), ("TWO", 700, 710)]])

    def heard(samples):
        sizes.append(len(samples))
        return words(*next(script))

    policy.words = heard
    for seconds in (16, 17, 18):
        policy.hear(np.zeros(seconds * SAMPLE_RATE, np.float32))
    assert sizes == [16 * SAMPLE_RATE, 17 * SAMPLE_RATE, 18 * SAMPLE_RATE - 20 * HOP]


@pytest.fixture(scope="module")
def line(recording):
    """The first sentence of the recording, and a silence that ends it."""
    [end, *_] = between_lines(recording)
    return np.concatenate((recording[:end], np.zeros(SAMPLE_RATE, np.float32)))


@pytest.mark.parametrize("kind", [GrowingBuffer, LocalAgreement])
def test_policies_on_words_take_a_writer_too(writer, line, kind):
    *partials, final = played(made(kind, writer), line)
    ours = played(Transcriber(writer, SAMPLE_RATE, Settings(raw=True)), line)
    assert scored(final.text) == scored(next(e.text for e in ours if isinstance(e, Final)))
    assert any(event.tentative for event in partials)


def test_a_writer_places_its_words_for_local_agreement(writer, line):
    policy = made(LocalAgreement, writer)
    found = policy.words(line)
    spans = [(word.start, word.end) for word in found]
    assert [word.text for word in found] == ["Let", "us", "begin."]
    assert all(start < end for start, end in spans)
    assert spans == sorted(spans)
    assert spans[-1][1] <= len(line) - SAMPLE_RATE // 2
