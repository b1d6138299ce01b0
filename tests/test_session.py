import csv
import dataclasses
import difflib
import itertools
import math

import numpy as np
import pytest
from conftest import RECORDING
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly
from synthetic import (
    LOUD,
    QUIET,
    SEW,
    ByLevel,
    Spelling,
    always,
    audio,
    letters,
    recognized,
    session_of,
    shape_of,
)

from streamer import live
from streamer.config import Settings
from streamer.core.ctc import GreedyDecoder, decode, sentence_case
from streamer.core.ctc_hypothesis import CtcHypothesis, CtcModel
from streamer.core.highpass import HighPass
from streamer.core.hypothesis import FinalText, Preview
from streamer.core.session import Session
from streamer.errors import InputError
from streamer.live import Transcriber
from streamer.messages import (
    SAMPLE_RATE,
    Block,
    Final,
    Gap,
    Partial,
    Reading,
    SessionEnded,
    Word,
)
from streamer.sources.files import read_audio


class Remembering:
    """A recognizer that is asked once about each window, however often a test needs it."""

    def __init__(self, recognizer):
        self.vocabulary, self.shape = recognizer.vocabulary, recognizer.shape
        self.name, self.calibration = recognizer.name, recognizer.calibration
        self.decoder, self.rules = recognizer.decoder, recognizer.rules
        self._recognizer = recognizer
        self._known = {}

    def hypothesis(self, settings):
        model = CtcModel(self.vocabulary, self.shape, self.decoder, self.rules, self.calibration)
        return CtcHypothesis(model, settings)

    def recognize(self, batch):
        return [Reading(self.log_probs(w.samples)) for w in batch]

    def log_probs(self, samples):
        key = samples.tobytes()
        if key not in self._known:
            self._known[key] = self._recognizer.log_probs(samples)
        return self._known[key]


def greedy(recognizer):
    """The same recognizer without its language model."""
    alone = Remembering(recognizer)
    alone.decoder = GreedyDecoder(recognizer.vocabulary)
    return alone


@pytest.fixture(scope="module")
def remembering(recognizer):
    return Remembering(recognizer)


@pytest.fixture(scope="module")
def recording():
    samples, rate = read_audio(RECORDING)
    assert rate == SAMPLE_RATE
    return samples


def at_rate(samples, rate):
    common = np.gcd(rate, SAMPLE_RATE)
    return resample_poly(samples, rate // common, SAMPLE_RATE // common).astype(np.float32)


def transcribed(recognizer, items, rate=SAMPLE_RATE, *, previews=True, **options):
    transcriber = Transcriber(recognizer, rate, Settings(**options), previews=previews)
    events = [event for item in items for event in transcriber.feed(item)]
    return events + list(transcriber.finish())


def finals(events):
    return [event for event in events if isinstance(event, Final)]


def texts(events):
    return [event.text for event in finals(events) if event.text]


def stretches(signal, cuts, gaps, rate):
    """A signal cut at `cuts`, in which the pieces numbered in `gaps` got lost."""
    position = 0
    for number, piece in enumerate(np.split(signal, sorted(cuts))):
        end = position + len(piece)
        yield Gap(position, end, rate, "overflow") if number in gaps else Block(position, piece)
        position = end


def test_a_recording_is_understood(remembering, recording):
    said = RECORDING.with_suffix(".txt").read_text().lower().replace("?", ".").split(".\n")
    heard = " ".join(texts(transcribed(remembering, [recording]))).lower()
    assert difflib.SequenceMatcher(None, " ".join(said), heard, autojunk=False).ratio() > 0.8


@pytest.mark.parametrize("size", [1, 7, 160, 1_601, 16_000, 160_000])
def test_any_block_size_gives_the_same_events(remembering, recording, size):
    part = recording[: 6 * SAMPLE_RATE] if size > 1 else recording[: 3 * SAMPLE_RATE]
    blocks = np.split(part, range(size, len(part), size))
    assert transcribed(remembering, blocks) == transcribed(remembering, [part])


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_any_split_gives_the_same_events(remembering, recording, data):
    rate = data.draw(st.sampled_from([16_000, 44_100, 11_024]))
    part = at_rate(recording[: 5 * SAMPLE_RATE], rate)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(part)), max_size=40)))
    split = transcribed(remembering, np.split(part, cuts), rate, max_utterance_s=5)
    assert split == transcribed(remembering, [part], rate, max_utterance_s=5)


def test_previews_change_no_final(remembering, recording):
    blocks = np.split(recording, range(1_600, len(recording), 1_600))
    with_previews = transcribed(remembering, blocks)
    without = transcribed(remembering, [recording], previews=False)
    assert [f for f in finals(with_previews) if f.text] == finals(without)
    assert any(isinstance(event, Partial) for event in with_previews)
    assert not any(isinstance(event, Partial) for event in without)


def test_a_final_text_is_ready_when_the_end_is_sure(recognizer, recording):
    """Nothing is left to be recognized then: it was, while the silence was being judged."""
    asked = []

    class Counting(Remembering):
        def log_probs(self, samples):
            asked.append(len(samples))
            return super().log_probs(samples)

    transcriber = Transcriber(Counting(recognizer), SAMPLE_RATE)
    waited_for = []
    for start in range(0, len(recording), 800):
        before = len(asked)
        events = transcriber.feed(Block(start, recording[start : start + 800]))
        if finals(events):
            waited_for.append(len(asked) - before)
    assert len(waited_for) > 3
    assert set(waited_for) == {0}


def test_finals_are_the_greedy_decode_of_their_audio(remembering, recording):
    remembering = greedy(remembering)
    found = finals(transcribed(remembering, [recording], previews=False))
    filtered = HighPass()
    heard = np.concatenate((filtered.push(recording), filtered.flush()))
    assert len(found) == len(RECORDING.with_suffix(".txt").read_text().splitlines())
    for final in found:
        start, end = (round(time * SAMPLE_RATE) for time in (final.start, final.end))
        log_probs = remembering.log_probs(heard[start:end])
        words = decode(log_probs, remembering.vocabulary)
        assert final.raw.split() == [word.text for word in words]
        assert final.text.split() == sentence_case(final.raw.split())
        for word, timed in zip(words, final.words, strict=True):
            assert timed.start == pytest.approx(final.start + word.start * 0.02)
            assert timed.end == pytest.approx(final.start + word.end * 0.02)
            assert timed.confidence == pytest.approx(remembering.calibration(word), abs=1e-4)


def test_without_a_calibration_confidence_is_the_letters_own(remembering, recording):
    remembering = greedy(remembering)
    plain = Remembering(remembering)
    plain.calibration = None
    filtered = HighPass()
    heard = np.concatenate((filtered.push(recording), filtered.flush()))
    calibrated, raw = (
        finals(transcribed(recognizer, [recording], previews=False))
        for recognizer in (remembering, plain)
    )
    assert [final.text for final in raw] == [final.text for final in calibrated]
    for final in raw:
        start, end = (round(time * SAMPLE_RATE) for time in (final.start, final.end))
        words = decode(remembering.log_probs(heard[start:end]), remembering.vocabulary)
        shown = [word.confidence for word in final.words]
        assert shown == pytest.approx([word.confidence for word in words], abs=1e-4)


def test_stable_text_only_grows_and_events_are_in_order(remembering, recording):
    segment, stable, at = -1, "", 0.0
    for event in transcribed(remembering, [recording]):
        if isinstance(event, SessionEnded):
            continue
        assert event.at >= at
        at = event.at
        assert event.end <= at + 0.1
        if event.segment != segment:
            assert event.segment > segment
            segment, stable = event.segment, ""
        if isinstance(event, Partial):
            assert event.stable.startswith(stable)
            stable = event.stable


def test_raw_text_is_the_models_own(remembering, recording):
    part = recording[: 4 * SAMPLE_RATE]
    found = finals(transcribed(remembering, [part], raw=True))
    assert found
    for final in found:
        assert final.text == final.raw == final.raw.upper()


def test_dropped_previews_change_no_final(remembering, recording):
    """A clock that runs away for seconds at a time, as on a machine that does something else."""

    def now():
        heard = transcriber.heard_s
        return heard + 60 if heard % 3 < 2 else heard

    transcriber = Transcriber(remembering, SAMPLE_RATE, Settings(preview_window_ms=1_000), now=now)
    events = []
    for block in np.split(recording, range(1_600, len(recording), 1_600)):
        events += transcriber.feed(block)
    events += transcriber.finish()
    assert transcriber.counts.dropped > 20 < transcriber.counts.previews + 10

    def timeless(found):
        return [dataclasses.replace(final, at=0) for final in found if final.text]

    assert timeless(finals(events)) == timeless(
        finals(transcribed(remembering, [recording], previews=False))
    )


def test_nothing_can_be_fed_after_the_end(remembering, recording):
    transcriber = Transcriber(remembering, SAMPLE_RATE)
    events = transcriber.finish()
    with pytest.raises(ValueError, match="has ended"):
        transcriber.feed(recording[:1_600])
    assert [event.captured for event in events] == [0]


def test_unwanted_previews_are_not_recognized(remembering, recording):
    transcriber = Transcriber(remembering, SAMPLE_RATE, wants_previews=lambda: False)
    events = [*transcriber.feed(recording), *transcriber.finish()]
    assert texts(events) == texts(transcribed(remembering, [recording], previews=False))
    assert transcriber.counts.previews == 0 < transcriber.counts.dropped


@pytest.mark.parametrize("rate", [8_000, 11_024, 44_100, 48_000])
def test_other_rates_give_the_same_times(remembering, recording, rate):
    part = recording[: 7 * SAMPLE_RATE]
    found = finals(transcribed(remembering, [at_rate(part, rate)], rate, previews=False))
    expected = finals(transcribed(remembering, [part], previews=False))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.start == pytest.approx(other.start, abs=0.1)
        assert one.end == pytest.approx(other.end, abs=0.1)
        ratio = difflib.SequenceMatcher(None, one.raw, other.raw).ratio()
        assert ratio > (0.5 if rate < 16_000 else 0.85)


def test_a_gap_ends_the_utterance_and_words_keep_their_times(remembering, recording):
    whole = finals(transcribed(remembering, [recording], previews=False))
    at = round((whole[0].start + whole[0].end) / 2 * SAMPLE_RATE)
    lost = 5 * SAMPLE_RATE
    events = transcribed(
        remembering,
        [
            Block(0, recording[:at]),
            Gap(at, at + lost, SAMPLE_RATE, "device-lost"),
            Block(at + lost, recording[at:]),
        ],
    )
    kinds = [type(event) for event in events if not isinstance(event, Partial)]
    assert kinds[:3] == [Final, Gap, Final]
    first, second, *rest = finals(events)
    assert first.end <= at / SAMPLE_RATE <= second.start - 5
    for final, expected in zip(rest, whole[1:], strict=True):
        assert final.start == pytest.approx(expected.start + 5, abs=0.03)
        ratio = difflib.SequenceMatcher(None, final.text, expected.text).ratio()
        assert ratio > 0.9


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_the_account_holds_to_the_sample_on_speech_with_gaps(remembering, recording, data):
    rate = data.draw(st.sampled_from([8_000, 11_024, 16_000, 44_100, 48_000]))
    part = at_rate(recording[: 10 * SAMPLE_RATE], rate)
    cuts = data.draw(st.lists(st.integers(0, len(part)), min_size=1, max_size=8))
    gaps = data.draw(st.sets(st.integers(0, len(cuts))))
    items = list(stretches(part, cuts, gaps, rate))
    ended = transcribed(remembering, items, rate, previews=False)[-1]
    assert ended.captured == len(part) == ended.speech + ended.silence + ended.lost
    assert ended.lost == sum(item.end - item.start for item in items if isinstance(item, Gap))
    assert min(ended.speech, ended.silence) >= 0


def driven(items, rate, detector=always, accepted_late=False, **options):
    recognizer = Spelling()
    session, events = session_of(recognizer, rate, detector, **options), []
    for item in items:
        session.feed(item)
        if not accepted_late:
            events += recognized(session, recognizer)
    session.finish()
    return events + recognized(session, recognizer)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), late=st.booleans())
def test_the_account_holds_whatever_gets_lost(data, late):
    """Speech from edge to edge between gaps of any length, where every rounding shows."""
    rate = data.draw(st.sampled_from([8_000, 11_024, 22_050, 48_000, 192_000]))
    generator = np.random.default_rng(0)
    signal = generator.uniform(-0.5, 0.5, data.draw(st.integers(0, rate * 8))).astype(np.float32)
    cuts = data.draw(st.lists(st.integers(0, len(signal)), max_size=10))
    cuts += [cut + data.draw(st.integers(0, 3)) for cut in cuts if cut < len(signal) - 3]
    gaps = data.draw(st.sets(st.integers(0, len(cuts))))
    items = list(stretches(signal, cuts, gaps, rate))
    events = driven(items, rate, always, late, max_utterance_s=5)
    ended = events[-1]
    assert ended.captured == len(signal) == ended.speech + ended.silence + ended.lost
    assert ended.lost == sum(item.end - item.start for item in items if isinstance(item, Gap))
    assert ended.speech >= 0
    assert ended.silence >= 0
    for one, other in itertools.pairwise(finals(events)):
        assert one.start <= one.end <= other.start


def test_a_lost_second_is_never_counted_as_speech():
    """Twelve source samples make one of the model's: rounding up must not take them from a gap."""
    rate = 192_000
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 4 * rate).astype(np.float32)
    items = [
        Gap(0, 7, rate, "overflow"),
        Block(7, signal[: rate + 1]),
        Gap(rate + 8, 2 * rate + 5, rate, "overflow"),
        Block(2 * rate + 5, signal[: rate - 1]),
    ]
    for late in (False, True):
        events = driven(items, rate, always, late, hangover_ms=2_000)
        ended = events[-1]
        assert len(finals(events)) == 2
        assert ended.speech + ended.silence == 2 * rate
        assert 0 <= ended.silence < 2 * 12


@pytest.mark.parametrize(
    "lengths",
    [[], [0], [-16_000], [0, -1, -1], [-5, -5, 0, 0], [16_000, -100], [1], [-1, 1, -1, 1]],
)
def test_streams_with_next_to_nothing_in_them(lengths):
    """Positive lengths are blocks of silence, negative ones are gaps."""

    def voiced(frame):
        return bool(frame.any())

    position, items = 0, []
    for length in lengths:
        end = position + abs(length)
        gap = Gap(position, end, 48_000, "overflow")
        items.append(gap if length < 0 else Block(position, np.zeros(length, np.float32)))
        position = end
    *events, ended = driven(items, 48_000, voiced)
    assert events == [item for item in items if isinstance(item, Gap)]
    assert ended == SessionEnded(
        captured=position,
        speech=0,
        silence=sum(length for length in lengths if length > 0),
        lost=-sum(length for length in lengths if length < 0),
        rate=48_000,
        retracted=0,
    )


def test_blocks_must_follow_one_another():
    session = session_of(Spelling())
    session.feed(Block(0, np.zeros(100, np.float32)))
    with pytest.raises(ValueError, match="expected sample 100, got 101"):
        session.feed(Block(101, np.zeros(100, np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sample_that_is_no_number_is_refused_and_nothing_before_it_is_lost(
    remembering, recording, bad
):
    damaged = recording.copy()
    damaged[5 * SAMPLE_RATE + 123 :] = bad
    for size in (1_600, SAMPLE_RATE):
        transcriber = Transcriber(remembering, SAMPLE_RATE)
        events = []
        fed = map(transcriber.feed, np.split(damaged, range(size, len(damaged), size)))
        with pytest.raises(InputError, match=r"at 5\.008 s"):
            events.extend(itertools.chain.from_iterable(fed))
        assert transcriber.heard_s == 5
        # The stream can go on where it was, or end.
        events += transcriber.feed(recording[5 * SAMPLE_RATE : 6 * SAMPLE_RATE])
        events += transcriber.finish()
        expected = transcribed(remembering, [recording[: 6 * SAMPLE_RATE]])
        assert texts(events) == texts(expected)
        assert events[-1].captured == 6 * SAMPLE_RATE


class Damaged:
    """A source that delivers what is no audio after a while."""

    name, rate = "damaged", SAMPLE_RATE

    def __init__(self, samples):
        self._samples = samples

    def __iter__(self):
        for start in range(0, len(self._samples), 1_600):
            yield Block(start, self._samples[start : start + 1_600])


def test_words_before_a_bad_sample_are_shown_before_the_error(remembering, recording):
    damaged = recording.copy()
    damaged[5 * SAMPLE_RATE] = np.nan
    seen = []
    shown = map(seen.append, live.events(Damaged(damaged), remembering, real_time=False))
    with pytest.raises(InputError, match=r"5\.000 s"):
        list(shown)
    assert texts(seen) == texts(transcribed(remembering, [recording[: 5 * SAMPLE_RATE]]))
    assert isinstance(seen[-1], SessionEnded)
    assert seen[-1].captured == 5 * SAMPLE_RATE


@pytest.mark.parametrize(
    "audio",
    [
        np.zeros((2, 2, 2), np.float32),
        np.zeros((5, 0), np.float32),
        np.zeros(5, np.int32),
        np.array(["a"]),
        np.zeros((), np.float32),
    ],
)
def test_what_is_no_audio_is_refused(remembering, audio):
    transcriber = Transcriber(remembering, SAMPLE_RATE)
    with pytest.raises(InputError, match="not supported"):
        list(transcriber.feed(audio))


def test_integers_and_several_channels_are_audio_too(remembering, recording):
    part = recording[: 4 * SAMPLE_RATE]
    expected = texts(transcribed(remembering, [part], previews=False))
    integers = np.round(part * 32_768).clip(-32_768, 32_767).astype(np.int16)
    for form in (integers, np.stack([part, part], axis=1), part.astype(np.float64), part.tolist()):
        assert texts(transcribed(remembering, [form], previews=False)) == expected


@pytest.fixture(scope="module")
def breathless(recording):
    """The recording without its pauses."""
    frames = recording[: len(recording) // 320 * 320].reshape(-1, 320)
    level = np.convolve((frames**2).mean(axis=1), np.ones(5) / 5, mode="same")
    return frames[level > 1e-5].ravel()


@pytest.mark.parametrize("longest", [5, 7, 9])
def test_a_split_neither_loses_nor_doubles_a_word(remembering, breathless, longest):
    (whole,) = finals(transcribed(remembering, [breathless], previews=False, max_utterance_s=60))
    events = transcribed(remembering, [breathless], max_utterance_s=longest)
    parts = finals(events)
    assert len(parts) > 1
    for one, other in itertools.pairwise(parts):
        assert one.end == other.start
        assert other.text[0].islower()
    letters = "".join(part.raw for part in parts).replace(" ", "")
    expected = whole.raw.replace(" ", "")
    matcher = difflib.SequenceMatcher(None, expected, letters, autojunk=False)
    for _, a, b, c, d in matcher.get_opcodes():
        assert abs((b - a) - (d - c)) < 3, (expected[a - 9 : b + 9], letters[c - 9 : d + 9])
    ended = events[-1]
    stable = sum(len(event.stable.split()) for event in last_partials(events))
    assert 0 <= ended.retracted <= stable / 2


def last_partials(events):
    return {e.segment: e for e in events if isinstance(e, Partial)}.values()


def test_after_a_split_the_screen_still_shows_what_was_said_behind_the_cut(remembering, breathless):
    events = transcribed(remembering, [breathless], max_utterance_s=5, preview_window_ms=2_000)
    opening = {final.segment: final.text.split()[0] for final in finals(events)}
    behind = [
        after
        for before, after in itertools.pairwise(events)
        if isinstance(before, Final) and isinstance(after, Partial)
    ]
    assert len(behind) > 1
    for partial in behind:
        first = f"{partial.stable} {partial.tentative}".split()[0]
        # The whole segment may spell it with another letter than the window that saw its beginning.
        likeness = difflib.SequenceMatcher(None, first, opening[partial.segment]).ratio()
        assert likeness > 0.6, (first, opening[partial.segment])


def test_words_behind_a_cut_are_not_retracted():
    """They were shown as stable in the segment that was split, and belong to the next."""
    *events, ended = driven([Block(0, audio((20, LOUD)))], 16_000, max_utterance_s=5)
    assert len(finals(events)) > 3
    assert sum(len(event.stable) for event in last_partials(events)) > 50
    assert ended.retracted == 0


def test_stable_words_that_final_texts_contradict_are_added_up():
    def emit(window):
        emission = letters(window)
        if window.kind == "final":
            emission[:, 2] = np.log(1e-4)  # every word loses its first letter
        return emission

    recognizer, shown = Spelling(emit), 0
    session = session_of(recognizer, detector=ByLevel(), right_context_ms=0)
    # Too short a pause for the final text to be ready before its window.
    for part in (audio((3, LOUD)), audio((3, LOUD), seed=1)):
        start = session.received
        session.feed(Block(start, part))
        session.feed(Gap(start + len(part), start + len(part) + 16_000, 16_000, "overflow"))
        events = recognized(session, recognizer)
        assert set(finals(events)[-1].raw.split()) == {"BC"}
        shown += sum(len(event.stable.split()) for event in last_partials(events))
    session.finish()
    (ended,) = recognized(session, recognizer)
    assert ended.retracted == shown > 0


def test_what_continues_a_long_utterance_opens_no_sentence():
    """It was cut in a pause that would have ended no shorter one."""
    signal = audio((10, LOUD))
    for pause in ((6.0, 6.3), (7.5, 8.5)):
        signal[slice(*(round(16_000 * second) for second in pause))] *= 1e-4
    events = driven([Block(0, signal)], 16_000, ByLevel(), max_utterance_s=10)
    openings = {}
    for event in events:
        if isinstance(event, Partial | Final):
            text = event.text if isinstance(event, Final) else f"{event.stable} {event.tentative}"
            openings.setdefault(event.segment, set()).add(text.strip()[:1].isupper())
    assert openings == {0: {True}, 1: {False}, 2: {True}}


THREE_UTTERANCES = ((1, QUIET), (2, LOUD), (1, QUIET), (2, LOUD), (1, QUIET), (2, LOUD), (1, QUIET))


def fed(session, signal=None):
    """The session, after a stream of three utterances has ended."""
    session.feed(Block(0, audio(*THREE_UTTERANCES) if signal is None else signal))
    session.finish()
    return session


def kinds(windows):
    return [window.kind for window in windows]


def test_a_preview_is_given_alone_and_nothing_more_while_it_is_awaited():
    recognizer = Spelling()
    session = fed(session_of(recognizer, detector=ByLevel()))
    given_kinds = []
    while windows := session.pending():
        given_kinds += [kinds(windows)]
        session.events()
        assert session.pending() == session.pending(math.inf) == session.events() == []
        for window, reading in zip(windows, recognizer.recognize(windows), strict=True):
            session.accept(window, reading)
    assert given_kinds.count(["likely_final"]) == 3
    assert given_kinds.count(["preview"]) == len(given_kinds) - 3 > 10
    *_, final, ended = session.events()
    assert (type(final), type(ended)) == (Final, SessionEnded)


@pytest.mark.parametrize("late", [False, True])
def test_finals_that_follow_each_other_are_given_together(late):
    """Where previews were not asked for, or all come too late."""
    recognizer = Spelling()
    session = fed(session_of(recognizer, detector=ByLevel(), previews=late))
    windows = session.pending(math.inf if late else None)
    assert kinds(windows) == ["final"] * 3
    assert [window.segment for window in windows] == [0, 1, 2]
    assert (session.counts.dropped > 0) == late
    for number, (window, reading) in enumerate(
        zip(windows, recognizer.recognize(windows), strict=True)
    ):
        assert session.pending() == []
        session.accept(window, reading)
        final, *ended = session.events()
        assert (final.segment, len(ended)) == (number, number == 2)
    assert session.pending() == []
    assert session.counts.previews == 0


def test_a_gap_parts_finals():
    """What follows it is not asked for before its event."""
    recognizer = Spelling()
    session = session_of(recognizer, previews=False)
    session.feed(Block(0, audio((2, LOUD))))
    gap = Gap(32_000, 40_000, SAMPLE_RATE, "overflow")
    session.feed(gap)
    session.feed(Block(40_000, audio((2, LOUD))))
    session.finish()
    told = []
    while windows := session.pending():
        assert kinds(windows) == ["final"]
        (reading,) = recognizer.recognize(windows)
        assert session.events() == []
        session.accept(windows[0], reading)
        told.append([type(event) for event in session.events()])
    assert told == [[Final, Gap], [Final, SessionEnded]]


@pytest.mark.parametrize("asked_early", [False, True])
def test_gaps_and_the_account_come_after_the_words_before_them(asked_early):
    recognizer = Spelling()
    session = session_of(recognizer, detector=ByLevel(), lane="left")
    items = [
        Gap(0, 100, SAMPLE_RATE, "overflow"),
        Block(100, audio((1, QUIET), (2, LOUD))),
        Gap(48_100, 50_000, SAMPLE_RATE, "device-lost"),
        Gap(50_000, 50_001, SAMPLE_RATE, "overflow"),
        Block(50_001, audio((2, LOUD), (1, QUIET))),
    ]
    events = []
    for item in items:
        session.feed(item)
        if asked_early:
            events += session.events()
    session.finish()
    events += session.events()
    assert events == [dataclasses.replace(items[0], lane="left")]
    events += recognized(session, recognizer)
    told = [event for event in events if not isinstance(event, Partial)]
    assert [type(event) for event in told] == [Gap, Final, Gap, Gap, Final, SessionEnded]
    assert [event for event in told if isinstance(event, Gap)] == [
        dataclasses.replace(item, lane="left") for item in items if isinstance(item, Gap)
    ]
    assert {event.lane for event in events} == {"left"}
    assert told[-1].speech > 3 * SAMPLE_RATE
    assert session.events() == session.pending() == []


def test_previews_older_than_the_cadence_are_left_out():
    def heard(**options):
        session = session_of(Spelling(), preview_ms=320, **options)
        session.feed(Block(0, audio((3, LOUD))))
        return session

    recognizer, whole = Spelling(), heard()
    recognized(whole, recognizer)
    dues = [window.due / SAMPLE_RATE for (window,) in recognizer.asked]
    assert len(dues) == whole.counts.previews > 6
    for in_time in (0, 3):
        for age, given_first, dropped in (
            (0.319, in_time, in_time),
            (0.321, in_time + 1, 1 + in_time),
        ):
            session = heard()
            [window] = session.pending(dues[in_time] + age)
            assert window.due / SAMPLE_RATE == dues[given_first]
            assert session.counts.dropped == dropped
            session.accept(window, recognizer.recognize([window])[0])
    # Without a clock nothing is late.
    assert whole.counts.dropped == 0


def heard_until(session, recognizer, kind):
    """The first window of a kind that is given, after all before it have been accepted."""
    while windows := session.pending():
        if windows[0].kind == kind:
            return windows
        for window, reading in zip(windows, recognizer.recognize(windows), strict=True):
            session.accept(window, reading)
    return []


def test_a_final_whose_window_was_accepted_as_likely_needs_no_recognizer():
    recognizer = Spelling()
    session = session_of(recognizer, detector=ByLevel())
    signal = audio((1, QUIET), (2, LOUD), (1, QUIET))
    session.feed(Block(0, signal))
    [likely] = heard_until(session, recognizer, "likely_final")
    session.accept(likely, recognizer.recognize([likely])[0])
    assert not finals(session.events())
    assert session.pending() == []
    (final,) = session.events()
    assert isinstance(final, Final)
    assert final.text
    (expected,) = finals(driven([Block(0, signal)], SAMPLE_RATE, ByLevel(), previews=False))
    assert final == expected


def test_a_likely_final_that_came_too_late_is_recognized_as_the_final():
    recognizer = Spelling()
    session = session_of(recognizer, detector=ByLevel())
    session.feed(Block(0, audio((1, QUIET), (2, LOUD), (1, QUIET))))
    assert kinds(session.pending(math.inf)) == ["final"]


def test_a_likely_final_after_which_speech_went_on_is_not_the_final():
    recognizer = Spelling()
    session = session_of(recognizer, detector=ByLevel(), hangover_ms=500)
    session.feed(Block(0, audio((1, QUIET), (2, LOUD), (0.32, QUIET), (2, LOUD))))
    [likely] = heard_until(session, recognizer, "likely_final")
    session.accept(likely, recognizer.recognize([likely])[0])
    session.finish()
    [final] = heard_until(session, recognizer, "final")
    assert (final.segment, final.start) == (likely.segment, likely.start)
    assert len(final.samples) > len(likely.samples) + 1.8 * SAMPLE_RATE


class Tokens:
    """A hypothesis that counts: its draft is the numbers of the windows it was updated with."""

    settled_until = 0

    def __init__(self, settles_at=0):
        self.draft = ()
        self.settles_at = settles_at
        self.updated = []

    def update(self, window, reading):
        self.updated.append(window)
        self.draft += (len(self.updated),)
        if window.speech_end > self.settles_at:
            self.settled_until = self.settles_at
        return Preview(("so",) * len(self.updated), ("maybe",))

    def close(self, window, reading):
        word = Word("so", window.speech_start / SAMPLE_RATE, 1e9, 1.0)
        return FinalText(window.speech_start, window.speech_end, (word,), "SO", retracted=2)

    def following(self):
        return Tokens()


def test_windows_bear_the_draft_that_their_own_utterance_has_left():
    session = Session(SAMPLE_RATE, Settings(), shape_of(), Tokens(), ByLevel())
    fed(session)
    drafts = {}
    while windows := session.pending():
        for window in windows:
            drafts.setdefault(window.segment, []).append(window.draft)
        for window in windows:
            session.accept(window, Reading())
        session.events()
    assert set(drafts) == {0, 1, 2}
    for found in drafts.values():
        assert found == [tuple(range(1, n + 1)) for n in range(len(found))]
    assert session.counts.previews == sum(map(len, drafts.values()))


def test_finals_that_are_given_together_bear_no_draft_but_the_first():
    session = Session(SAMPLE_RATE, Settings(), shape_of(), Tokens(), ByLevel())
    fed(session)
    [preview] = session.pending()
    session.accept(preview, Reading())
    windows = session.pending(math.inf)
    assert [(window.kind, window.draft) for window in windows] == [
        ("final", (1,)),
        ("final", ()),
        ("final", ()),
    ]


def test_any_hypothesis_makes_the_events():
    session = Session(SAMPLE_RATE, Settings(), shape_of(), Tokens(), ByLevel(), lane="a")
    fed(session, audio((1, QUIET), (2, LOUD), (1, QUIET)))
    *partials, final, ended = recognized(session, _Nothing())
    assert [event.stable for event in partials] == [
        " ".join(["so"] * n) for n in range(1, len(partials) + 1)
    ]
    assert {event.tentative for event in partials} == {"maybe"}
    assert (final.text, final.raw, final.lane) == ("so", "SO", "a")
    assert final.words[0].end == final.end, "no word ends after its segment"
    assert (ended.retracted, ended.lane) == (2, "a")
    assert ended.speech == round((final.end - final.start) * SAMPLE_RATE)


class _Nothing:
    def recognize(self, batch):
        return [Reading() for _ in batch]


def test_previews_begin_where_the_hypothesis_has_settled():
    settled = 24_000
    shape = shape_of(slides=False)
    session = Session(SAMPLE_RATE, Settings(), shape, Tokens(settled), always)
    starts = []
    for block in np.split(audio((4, LOUD)), 40):
        session.feed(Block(session.received, block))
        while windows := session.pending():
            starts += [window.start for window in windows]
            session.accept(windows[0], Reading())
    first = settled // SEW.stride * SEW.stride
    assert starts == sorted(starts)
    assert set(starts) == {0, first}
    assert starts.count(0) == pytest.approx(starts.count(first) * 1.5 / 2.5, abs=2)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), late=st.booleans(), voiced=st.sampled_from([always, ByLevel()]))
def test_no_event_ends_after_the_audio_before_it(data, late, voiced):
    """Nor after a gap has begun; windows are filled up to what a network wants."""
    rate = data.draw(st.sampled_from([8_000, 11_024, 16_000, 22_050, 44_100, 192_000]))
    length = data.draw(st.integers(0, rate * 3))
    signal = audio((3, LOUD), rate=rate)[:length]
    cuts = data.draw(st.lists(st.integers(0, length), max_size=4))
    gaps = data.draw(st.sets(st.integers(0, len(cuts))))
    items = list(stretches(signal, cuts, gaps, rate))
    limit = length / rate
    events = driven(items, rate, voiced, late, preview_ms=80)
    assert events[-1].captured == length
    for event in reversed(events):
        if isinstance(event, Gap):
            limit = event.start / rate
        elif isinstance(event, Partial | Final):
            assert event.start <= event.end <= limit
        if isinstance(event, Final):
            assert all(word.start <= word.end <= event.end for word in event.words)


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_events_do_not_depend_on_when_windows_are_accepted(data):
    rate = data.draw(st.sampled_from([11_024, 16_000, 44_100]))
    signal = audio((0.5, QUIET), (2.5, LOUD), (1, QUIET), (1.3, LOUD), rate=rate)
    cuts = data.draw(st.lists(st.integers(0, len(signal)), max_size=6))
    items = list(stretches(signal, cuts, data.draw(st.sets(st.integers(0, len(cuts)))), rate))
    assert driven(items, rate, ByLevel(), True) == driven(items, rate, ByLevel(), False)


def test_noise_gives_no_words(remembering, speech_dir):
    """Nothing final, and hardly a word that is shown for a moment."""
    with (speech_dir / "noise.tsv").open(newline="") as table:
        files = [row["file"] for row in csv.DictReader(table, delimiter="\t")]
    assert files
    for file in files:
        samples, rate = read_audio(speech_dir / file)
        events = transcribed(remembering, [samples], rate, previews=False)
        assert (file, texts(events)) == (file, [])
        assert events[-1].speech == 0


def test_long_sessions_need_no_more_memory_than_short_ones():
    recognizer = Spelling()
    session = session_of(recognizer)
    talk, silence = audio((1, LOUD)), np.zeros(16_000, np.float32)
    for minute in range(15):
        for second in range(60):
            quiet = second % 40 > 36 or minute % 5 == 4
            session.feed(Block(session.received, silence if quiet else talk))
            recognized(session, recognizer, None if second % 10 == 0 else math.inf)
            recognizer.asked.clear()
            heard = session._planner._audio
            assert heard.end - heard.start < 32 * 16_000
            assert len(heard._data) < 70 * 16_000
            assert len(session._planner._endpointer._levels) < 31 * 50
            assert len(session._hypothesis.stitcher.emission) < 32 * 50
            assert not session._queue
            assert not session._given
    session.finish()


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
@pytest.mark.parametrize(
    "options",
    [
        {"max_utterance_s": 5, "right_context_ms": 2_000},
        {"preview_window_ms": 1_000, "preview_ms": 2_000},
        {"hangover_ms": 100, "pre_roll_ms": 0, "min_speech_ms": 30},
        {"hangover_ms": 5_000, "pre_roll_ms": 2_000, "min_speech_ms": 2_000},
        {"preview_ms": 80, "right_context_ms": 0},
    ],
)
def test_words_are_found_at_the_edges_of_every_setting(remembering, recording, frame_ms, options):
    part = recording[: 5 * SAMPLE_RATE]
    events = transcribed(remembering, [part], vad_frame_ms=frame_ms, **options)
    heard = " ".join(texts(events)).lower()
    assert (
        difflib.SequenceMatcher(
            None, "let us begin now read the report on the screen", heard
        ).ratio()
        > 0.6
    )
    ended = events[-1]
    assert ended.captured == ended.speech + ended.silence == len(part)
