import csv
import dataclasses
import difflib
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

import streamer
from streamer import live
from streamer.config import Settings
from streamer.core.ctc import FrameGrid, GreedyDecoder, Vocabulary, decode, sentence_case
from streamer.core.highpass import HighPass
from streamer.core.session import SHOWN_CHANCE, Session
from streamer.core.stitcher import chance_to_stay
from streamer.errors import InputError
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Block, Final, Gap, Partial, SessionEnded
from streamer.sources.files import read_audio

RECORDING = Path(streamer.__file__).parent / "demo" / "recording.flac"
GRID = FrameGrid(hop=320, receptive=400, stride=640)
TOKENS = ("<pad>", "|", *"ABCDEFGH")
VOCABULARY = Vocabulary(TOKENS, blank=0, delimiter=1, special=frozenset())


class Remembering:
    """A recognizer that is asked once about each window, however often a test needs it."""

    def __init__(self, recognizer):
        self.vocabulary, self.grid = recognizer.vocabulary, recognizer.grid
        self.name, self.calibration = recognizer.name, recognizer.calibration
        self.decoder = recognizer.decoder
        self._recognizer = recognizer
        self._known = {}

    def log_probs(self, samples, *, draft=False):
        key = samples.tobytes(), draft
        if key not in self._known:
            self._known[key] = self._recognizer.log_probs(samples, draft=draft)
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


def test_the_demo_recording_is_understood(remembering, recording):
    said = (RECORDING.parent / "recording.txt").read_text().lower().replace("?", ".").split(".\n")
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
        def log_probs(self, samples, *, draft=False):
            asked.append(len(samples))
            return super().log_probs(samples, draft=draft)

    transcriber = Transcriber(Counting(recognizer), SAMPLE_RATE)
    waited_for = []
    for start in range(0, len(recording), 800):
        before = len(asked)
        events = transcriber.feed(Block(start, recording[start : start + 800]))
        if finals(events):
            waited_for.append(len(asked) - before)
    assert len(waited_for) > 3
    assert set(waited_for) == {0}


def test_no_final_text_is_made_of_a_draft(recognizer, recording):
    class Noting(Remembering):
        def __init__(self):
            super().__init__(recognizer)
            self.asked = {True: set(), False: set()}

        def log_probs(self, samples, *, draft=False):
            self.asked[draft].add(samples.tobytes())
            return super().log_probs(samples, draft=draft)

    live, offline = Noting(), Noting()
    transcribed(live, [recording])
    transcribed(offline, [recording], previews=False)
    assert offline.asked[False] <= live.asked[False]
    assert not offline.asked[True]
    # The rest of the previews, which are nine tenths of what is asked for.
    assert len(live.asked[True]) > 3 * len(live.asked[False])


def test_finals_are_the_greedy_decode_of_their_audio(remembering, recording):
    remembering = greedy(remembering)
    found = finals(transcribed(remembering, [recording], previews=False))
    heard = HighPass().push(recording)
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
    heard = HighPass().push(recording)
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
    assert transcriber.work.dropped > 20 < transcriber.work.previews + 10

    def timeless(found):
        return [dataclasses.replace(final, at=0) for final in found if final.text]

    assert timeless(finals(events)) == timeless(
        finals(transcribed(remembering, [recording], previews=False))
    )


def test_unwanted_previews_are_not_recognized(remembering, recording):
    transcriber = Transcriber(remembering, SAMPLE_RATE, wants_previews=lambda: False)
    events = [*transcriber.feed(recording), *transcriber.finish()]
    assert texts(events) == texts(transcribed(remembering, [recording], previews=False))
    assert transcriber.work.previews == 0 < transcriber.work.dropped


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


def letters(window):
    """An emission that hears two letters in each frame pair, and a word in each eight frames."""
    frames = GRID.frames(len(window.samples))
    first = window.start // GRID.hop
    columns = [(0, 2, 0, 3, 0, 4, 0, 1)[(first + frame) % 8] for frame in range(frames)]
    probabilities = np.full((frames, len(TOKENS)), 1e-3, np.float32)
    probabilities[np.arange(frames), columns] = 0.99
    return np.log(probabilities)


def driven(items, rate, detector, accepted_late=False, **options):
    session = Session(rate, Settings(**options), VOCABULARY, GRID, detector)
    windows, events = [], []
    for item in items:
        windows += session.feed(item)
        if not accepted_late:
            events += [event for w in windows for event in session.accept(w, letters(w))]
            windows = []
    for window in windows + session.finish():
        events += session.accept(window, letters(window))
    return events, session.ended()


def looks(probability, *, fickle=False):
    """What previews of words of such letters show: seconds heard, words in it, how many shown.

    A fickle network spells the newest 0.6 s otherwise every time.
    """
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    signal[np.arange(len(signal)) % 4_000 > 2_400] *= 0.1  # syllables
    session = Session(16_000, Settings(preview_ms=80), VOCABULARY, GRID, lambda frame: True)
    shown, found = 0, []
    for window in session.feed(Block(0, signal)):
        emission = letters(window)
        best = emission.argmax(axis=1)
        emission[np.arange(len(best)), best] = np.where(best > 1, np.log(probability), 0)
        if fickle and len(found) % 2:
            emission[-30:, [2, 3]] = emission[-30:, [3, 2]]
        for event in session.accept(window, emission):
            shown = len(f"{event.stable} {event.tentative}".split())
        words = decode(emission, VOCABULARY)
        found.append((len(emission) * GRID.hop / SAMPLE_RATE, words, shown))
    return found


@pytest.mark.parametrize("fickle", [False, True])
@pytest.mark.parametrize("probability", [0.99, 0.9, 0.8])
def test_a_word_is_shown_when_it_is_likely_to_stay_or_was_read_the_same_before(probability, fickle):
    found = looks(probability, fickle=fickle)
    before = []
    for known, words, shown in found:
        worth = []
        for place, word in enumerate(words):
            heard = round(known * 50) - word.end
            likely = chance_to_stay(word, heard, with_lm=False) >= SHOWN_CHANCE
            worth.append(heard >= 8 and (likely or before[place : place + 1] == [word.text]))
        assert shown == sum(itertools.takewhile(bool, worth))
        before = [word.text for word in words]
    assert found[-1][2] > 3


def test_unsure_words_of_a_fickle_network_are_shown_later():
    def shown(probability, fickle):
        return [shown for _, _, shown in looks(probability, fickle=fickle)]

    sure, steady, fickle = shown(0.99, True), shown(0.7, False), shown(0.7, True)
    assert sum(sure) > sum(fickle) < sum(steady)
    assert all(more >= fewer for more, fewer in zip(sure, fickle, strict=True))
    assert max(fickle) > 0


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
    events, ended = driven(items, rate, lambda frame: True, late, max_utterance_s=5)
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
        events, ended = driven(items, rate, lambda frame: True, late, hangover_ms=2_000)
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
    events, ended = driven(items, 48_000, voiced)
    assert finals(events) == []
    assert ended == SessionEnded(
        captured=position,
        speech=0,
        silence=sum(length for length in lengths if length > 0),
        lost=-sum(length for length in lengths if length < 0),
        rate=48_000,
        retracted=0,
    )


def test_blocks_must_follow_one_another():
    session = Session(16_000, Settings(), VOCABULARY, GRID, lambda frame: True)
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
    for audio in (integers, np.stack([part, part], axis=1), part.astype(np.float64), part.tolist()):
        assert texts(transcribed(remembering, [audio], previews=False)) == expected


@pytest.fixture(scope="module")
def breathless(recording):
    """The demo recording without its pauses."""
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
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 20 * 16_000).astype(np.float32)
    signal[np.arange(len(signal)) % 4_000 > 2_400] *= 0.1
    blocks = [Block(0, signal)]
    events, ended = driven(blocks, 16_000, lambda frame: True, max_utterance_s=5)
    assert len(finals(events)) > 3
    assert sum(len(event.stable) for event in last_partials(events)) > 50
    assert ended.retracted == 0


def test_a_stable_word_that_the_final_text_contradicts_is_counted():
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    session = Session(16_000, Settings(right_context_ms=0), VOCABULARY, GRID, lambda frame: True)
    windows = session.feed(Block(0, signal)) + session.finish()
    shown = []
    for window in windows:
        emission = letters(window)
        if window.last:
            emission[:, 2] = np.log(1e-4)  # every word loses its first letter
        events = session.accept(window, emission)
        shown += [event.stable for event in events if isinstance(event, Partial)]
    assert set(events[-1].raw.split()) == {"BC"}
    assert session.ended().retracted == len(shown[-1].split()) > 0


def test_what_continues_a_long_utterance_opens_no_sentence():
    """It was cut in a pause that would have ended no shorter one."""
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 10 * 16_000).astype(np.float32)
    signal[np.arange(len(signal)) % 4_000 > 2_400] *= 0.1
    for pause in ((6.0, 6.3), (7.5, 8.5)):
        signal[slice(*(round(16_000 * second) for second in pause))] *= 1e-4
    events, _ = driven(
        [Block(0, signal)],
        16_000,
        lambda frame: bool(np.abs(frame).max() > 0.01),
        max_utterance_s=10,
    )
    openings = {}
    for event in events:
        text = event.text if isinstance(event, Final) else f"{event.stable} {event.tentative}"
        openings.setdefault(event.segment, set()).add(text.strip()[:1].isupper())
    assert openings == {0: {True}, 1: {False}, 2: {True}}


def test_mixed_case_models_are_not_spelled_again():
    vocabulary = Vocabulary(("<pad>", "|", *"aBcdefgh"), 0, 1, frozenset())
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    session = Session(16_000, Settings(), vocabulary, GRID, lambda frame: True)
    events = []
    for window in session.feed(Block(0, signal)) + session.finish():
        events += session.accept(window, letters(window))
    assert {event.text for event in finals(events)} == {events[-1].raw}
    assert events[-1].raw.startswith("aBc aBc")


def test_a_word_alone_behind_a_split_is_not_taken_for_noise():
    """Its letters were carried over the cut; the segment's own audio is silence."""
    session = Session(16_000, Settings(max_utterance_s=5), VOCABULARY, GRID, lambda frame: True)
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, int(5.3 * 16_000)).astype(np.float32)
    signal[np.arange(len(signal)) % 4_000 > 2_400] *= 0.1
    events = []
    for window in session.feed(Block(0, signal)) + session.finish():
        emission = np.full((GRID.frames(len(window.samples)), len(TOKENS)), -9, np.float32)
        emission[:, 0] = np.log(0.998)
        if window.last and window.right:
            emission[-window.right - 4 : -window.right - 1, 2] = np.log(0.999)
            emission[-window.right - 4 : -window.right - 1, 0] = -9
        if window.last:
            events += session.accept(window, emission)
    assert [event.raw for event in events if event.raw] == ["A"]


@pytest.mark.parametrize(("probability", "heard"), [(0.85, []), (0.95, ["A"])])
def test_one_letter_in_seconds_of_hiss_is_noise_unless_it_is_sure(probability, heard):
    session = Session(16_000, Settings(), VOCABULARY, GRID, lambda frame: True, previews=False)
    signal = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000 * 4).astype(np.float32)
    signal[np.arange(len(signal)) % 4_000 > 2_400] *= 0.1
    events = []
    for window in session.feed(Block(0, signal)) + session.finish():
        emission = np.full((GRID.frames(len(window.samples)), len(TOKENS)), -9, np.float32)
        emission[:, 0] = np.log(0.999)
        emission[100:103, 2] = np.log(probability)
        emission[100:103, 0] = np.log(1 - probability)
        events += session.accept(window, emission)
    assert [event.raw for event in events if event.raw] == heard


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
    session = Session(16_000, Settings(), VOCABULARY, GRID, lambda frame: True)
    talk = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000).astype(np.float32)
    talk[np.arange(len(talk)) % 4_000 > 2_400] *= 0.1
    silence = np.zeros(16_000, np.float32)
    position = 0
    for minute in range(15):
        for second in range(60):
            block = Block(position, silence if second % 40 > 36 or minute % 5 == 4 else talk)
            position = block.end
            for window in session.feed(block):
                if window.last or second % 10 == 0:
                    session.accept(window, letters(window))
            tape = session._segmenter._tape
            assert tape.end - tape.start < 32 * 16_000
            assert len(tape._data) < 70 * 16_000
            assert len(session._segmenter._levels) < 31 * 50
            assert len(session._stitcher.emission) < 32 * 50
            assert len(session._lengths) == 0
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
