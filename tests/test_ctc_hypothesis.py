"""What one CTC network's emissions become: the frames of a window, what is shown, what is noise."""

import dataclasses
import gc
import itertools
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import (
    LOUD,
    QUIET,
    RULES,
    SEW,
    TOKENS,
    VOCABULARY,
    WAV2VEC2,
    ByLevel,
    Spelling,
    always,
    audio,
    letters,
    planned,
    shape_of,
    spelled,
)

from streamer.config import Settings
from streamer.core.ctc import Calibration, FrameWord, GreedyDecoder, Vocabulary, decode
from streamer.core.ctc_hypothesis import CtcHypothesis, CtcModel
from streamer.messages import SAMPLE_RATE, Reading


def new(vocabulary=VOCABULARY, *, grid=SEW, rules=RULES, calibration=None, **options):
    """The hypothesis of a stream's first utterance."""
    model = CtcModel(vocabulary, shape_of(grid), GreedyDecoder(vocabulary), rules, calibration)
    return CtcHypothesis(model, Settings(**options))


def heard(windows, emit=letters, hypothesis=None, **options):
    """What becomes of some windows, in their order: a preview, or a final text."""
    hypothesis = hypothesis or new(**options)
    for window in windows:
        reading = Reading(emission=emit(window))
        if window.kind == "final":
            yield hypothesis.close(window, reading)
            hypothesis = hypothesis.following()
        else:
            yield hypothesis.update(window, reading)


def texts(final):
    return [word.word for word in final.words]


def with_context(windows, grid=SEW):
    """Each window with the number of its first and last frames that are context only."""
    hypothesis = new(grid=grid)
    for window in windows:
        yield window, hypothesis._left(window), hypothesis._right(window)
        if window.kind == "final":
            nothing = np.zeros((grid.frames(len(window.samples)), len(TOKENS)), np.float32)
            hypothesis.close(window, Reading(emission=nothing))
            hypothesis = hypothesis.following()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.02, 4), st.sampled_from([QUIET, 0.02, LOUD])), min_size=1, max_size=9
    ),
    st.sampled_from([SEW, WAV2VEC2]),
    st.fixed_dictionaries(
        {
            "vad_frame_ms": st.sampled_from([10, 20, 30]),
            "hangover_ms": st.sampled_from([100, 600, 5_000]),
            "pre_roll_ms": st.sampled_from([0, 400, 2_000]),
            "preview_ms": st.sampled_from([80, 320, 2_000]),
            "preview_window_ms": st.sampled_from([1_000, 5_000]),
        }
    ),
)
def test_frames_that_are_not_context_lie_in_the_utterance_and_leave_no_hole(parts, grid, options):
    reached = {}
    windows = planned(audio(*parts), grid=grid, max_utterance_s=5, **options)
    for window, left, right in with_context(windows, grid):
        frames = grid.frames(len(window.samples))
        first = window.start + left * grid.hop
        assert left >= 0
        assert first >= window.speech_start
        # Nothing is left to be heard where a cut lies in the pause that ends an utterance.
        assert left + right < frames + (window.kind == "final")
        if window.kind == "final":
            assert first == window.speech_start
            end = first + (frames - left - right) * grid.hop
            assert abs(end - window.speech_end) <= (0 if window.split else grid.stride)
            # What was previewed behind a cut belongs to the next segment.
            reached[window.segment + 1] = reached.get(window.segment, 0)
            continue
        assert right == 0
        # A frame between two previews would never be previewed.
        assert first <= max(window.speech_start, reached.get(window.segment, 0))
        reached[window.segment] = window.start + frames * grid.hop


def test_both_sides_of_a_split_hear_the_same_context():
    signal = audio((18, LOUD), (2, QUIET))
    for dip in (6.4, 13.1):
        signal[round(dip * SAMPLE_RATE) :][:3_200] *= 0.1
    found = with_context(planned(signal, previews=False, max_utterance_s=8))
    context = RULES.context_ms // 20
    first, second, third = [(left, right) for _, left, right in found]
    assert (first[0], third[1]) == (0, 0)
    assert second[0] == third[0] == context
    for _, right in (first, second):
        assert context - 2 <= right <= context


def test_frames_at_the_edge_of_a_window_that_begins_inside_speech_are_not_used():
    windows = planned(audio((1, QUIET), (9, LOUD), (1, QUIET)), preview_window_ms=5_000)
    previews = [
        (window, left) for window, left, _ in with_context(windows) if window.kind == "preview"
    ]
    slid = {left for window, left in previews if window.start > window.speech_start}
    assert slid == {RULES.edge_ms // 20}
    assert {left for window, left in previews if window.start == window.speech_start} == {0}


def test_a_word_is_likelier_to_stay_the_more_was_heard_and_the_surer_its_letters():
    def chance(confidence, heard, with_lm=False):
        word = FrameWord("WORD", 0, 9, 10, confidence)
        return RULES.chance_to_stay(word, heard, with_lm=with_lm)

    assert chance(0.99, 0) < chance(0.99, 10) < chance(0.99, RULES.stay_frames)
    assert chance(0.99, RULES.stay_frames) == chance(0.99, 250)
    assert chance(0.3, 10) < chance(0.6, 10) < chance(1.0, 10) < 1
    assert chance(0.99, 10) > 0.5 > chance(0.3, 10) > 0
    assert chance(0.8, 10) < chance(0.8, 10, with_lm=True), "language makes up for doubt"


def test_doubt_weighs_as_the_decoder_knows_language():
    word = FrameWord("WORD", 0, 9, 10, 0.8)
    for with_lm in (False, True):
        decoder = SimpleNamespace(has_language_model=with_lm)
        model = CtcModel(VOCABULARY, shape_of(), decoder, RULES)
        expected = RULES.chance_to_stay(word, 10, with_lm=with_lm)
        assert model.chance_to_stay(word, 10) == expected


def previews(probability, *, fickle=False):
    """Of words of such letters: seconds heard, words in it, how many are shown.

    A fickle network spells the newest 0.6 s otherwise every time.
    """
    asked, found = [], []

    def emit(window):
        emission = letters(window)
        best = emission.argmax(axis=1)
        emission[np.arange(len(best)), best] = np.where(best > 1, np.log(probability), 0)
        if fickle and len(asked) % 2:
            emission[-30:, [2, 3]] = emission[-30:, [3, 2]]
        asked.append(emission)
        return emission

    windows = planned(audio((2, LOUD)), detector=always, preview_ms=80)[:-1]
    for preview in heard(windows, emit):
        seconds = len(asked[-1]) * SEW.hop / SAMPLE_RATE
        shown = len(preview.stable) + len(preview.tentative)
        found.append((seconds, decode(asked[-1], VOCABULARY), shown))
    return found


@pytest.mark.parametrize("fickle", [False, True])
@pytest.mark.parametrize("probability", [0.99, 0.9, 0.8])
def test_a_word_is_shown_when_it_is_likely_to_stay_or_was_read_the_same_before(probability, fickle):
    found = previews(probability, fickle=fickle)
    before = []
    for known, words, shown in found:
        worth = []
        for place, word in enumerate(words):
            heard = round(known * 50) - word.end
            likely = RULES.chance_to_stay(word, heard, with_lm=False) >= RULES.show_chance
            read_before = before[place : place + 1] == [word.text]
            worth.append(heard >= RULES.show_after_frames and (likely or read_before))
        assert shown == sum(itertools.takewhile(bool, worth))
        before = [word.text for word in words]
    assert found[-1][2] > 3


def test_unsure_words_of_a_fickle_network_are_shown_later():
    def shown(probability, fickle):
        return [shown for _, _, shown in previews(probability, fickle=fickle)]

    sure, steady, fickle = shown(0.99, True), shown(0.7, False), shown(0.7, True)
    assert sum(sure) > sum(fickle) < sum(steady)
    assert all(more >= fewer for more, fewer in zip(sure, fickle, strict=True))
    assert max(fickle) > 0


@pytest.mark.parametrize("rule", ["show_chance", "settle_chance"])
def test_rules_of_another_checkpoint_show_and_settle_otherwise(rule):
    def counted(chance):
        rules = dataclasses.replace(RULES, **{rule: chance})
        windows = planned(audio((6, LOUD)), detector=always)[:-1]
        found = list(heard(windows, rules=rules))
        stable = sum(len(preview.stable) for preview in found)
        return stable, stable + sum(len(preview.tentative) for preview in found)

    generous, strict = counted(0.0), counted(1.0)
    place = 0 if rule == "settle_chance" else 1
    assert generous[place] > strict[place]
    assert strict[0] == 0 or rule == "show_chance"


def test_stable_words_only_grow():
    stable = ()
    for preview in heard(planned(audio((9, LOUD)), detector=always)[:-1]):
        assert preview.stable[: len(stable)] == stable
        stable = preview.stable
    assert len(stable) > 30


@pytest.mark.parametrize(("probability", "words"), [(0.85, []), (0.95, ["A"])])
def test_one_letter_in_seconds_of_hiss_is_noise_unless_it_is_sure(probability, words):
    def emit(window):
        emission = np.full((SEW.frames(len(window.samples)), len(TOKENS)), -9, np.float32)
        emission[:, 0] = np.log(0.999)
        emission[100:103, 2] = np.log(probability)
        emission[100:103, 0] = np.log(1 - probability)
        return emission

    windows = planned(audio((4, LOUD)), detector=always, previews=False)
    assert [final.raw for final in heard(windows, emit)] == ["".join(words)]


@pytest.mark.parametrize(
    ("letters_spelled", "factor", "is_noise"),
    [(8, 1.0, False), (8, 4 / 3, True), (9, 4 / 3, False)],
)
def test_a_short_text_must_be_more_certain(letters_spelled, factor, is_noise):
    """Seven tenths of what is heard are its letters, and six are asked of longer texts."""
    rules = dataclasses.replace(RULES, short_factor=factor, short_letters=8)
    columns = np.array([0, 2, 0, 3] * 25)
    columns[2 * letters_spelled :] = 0

    def emit(window):
        emission = spelled(columns)
        silent = columns == 0
        heard_beside = letters_spelled * (0.99 / 0.7 - 1)
        emission[silent, 0] = np.log(1 - heard_beside / silent.sum())
        return emission

    (window,) = planned(audio((2, LOUD)), detector=always, previews=False)
    assert SEW.frames(len(window.samples)) == len(columns)
    (open_minded,) = heard([window], emit, rules=rules, min_certainty=0.0)
    assert len(open_minded.raw) == letters_spelled
    (final,) = heard([window], emit, rules=rules, min_certainty=0.6)
    assert (final.raw == "") == is_noise


def test_a_word_alone_behind_a_split_is_not_taken_for_noise():
    """Its letters were carried over the cut; the segment's own audio is silence."""

    def emit(window):
        emission = np.full((SEW.frames(len(window.samples)), len(TOKENS)), -9, np.float32)
        emission[:, 0] = np.log(0.998)
        if window.split:
            right = new()._right(window)
            emission[-right - 4 : -right - 1, 2] = np.log(0.999)
            emission[-right - 4 : -right - 1, 0] = -9
        return emission

    windows = planned(audio((5.3, LOUD)), detector=always, previews=False, max_utterance_s=5)
    assert [window.split for window in windows] == [True, False]
    assert [final.raw for final in heard(windows, emit)] == ["", "A"]


def test_a_word_that_a_split_cuts_is_in_the_next_text_with_its_own_time():
    windows = planned(audio((9, LOUD)), detector=always, previews=False, max_utterance_s=5)
    first, second, *_ = finals = list(heard(windows))
    assert first.end == second.start <= windows[1].speech_start
    assert {word for final in finals[:-1] for word in texts(final)[1:]} == {"abc"}
    every = [word for final in finals for word in final.words]
    assert all(one.end <= other.start for one, other in itertools.pairwise(every))
    # Eight frames from word to word, over the cut as well.
    starts = np.diff([word.start for word in every[1:]])
    assert starts == pytest.approx(np.full(len(starts), 0.16))


def test_words_behind_a_cut_are_not_retracted():
    """They were shown as stable in the segment that was split, and belong to the next."""
    found = list(heard(planned(audio((20, LOUD)), detector=always, max_utterance_s=5)))
    finals = [final for final in found if hasattr(final, "raw")]
    assert len(finals) > 3
    assert sum(len(preview.stable) for preview in found if preview not in finals) > 50
    assert [final.retracted for final in finals] == [0] * len(finals)


def test_a_stable_word_that_the_final_text_contradicts_is_counted():
    def emit(window):
        emission = letters(window)
        if window.kind == "final":
            emission[:, 2] = np.log(1e-4)  # every word loses its first letter
        return emission

    windows = planned(audio((2, LOUD)), detector=always)
    *shown, final = heard(windows, emit, right_context_ms=0)
    assert set(final.raw.split()) <= {"BC", "B"}
    assert final.retracted == len(shown[-1].stable) > 0


@pytest.mark.parametrize(
    ("continues", "raw", "spelled_as"),
    [
        (False, False, ["Abc", "abc"]),
        (True, False, ["abc", "abc"]),
        (False, True, ["ABC", "ABC"]),
    ],
)
def test_words_are_spelled_as_a_sentence_unless_it_goes_on_or_is_wanted_raw(
    continues, raw, spelled_as
):
    windows = planned(audio((3, LOUD)), detector=always)
    windows = [dataclasses.replace(window, continues=continues) for window in windows]
    *shown, final = heard(windows, raw=raw)
    assert texts(final)[:2] == spelled_as
    assert final.raw.startswith("ABC ABC")
    assert [*shown[-1].stable, *shown[-1].tentative][:2] == spelled_as


def test_mixed_case_models_are_not_spelled_again():
    vocabulary = Vocabulary(("<pad>", "|", *"aBcdefgh"), 0, 1, frozenset())
    windows = planned(audio((1, LOUD)), detector=always)
    *_, final = heard(windows, vocabulary=vocabulary)
    assert " ".join(texts(final)) == final.raw
    assert final.raw.startswith("aBc aBc")


def test_confidence_is_what_the_calibration_makes_of_it():
    windows = planned(audio((1, LOUD)), detector=always, previews=False)
    calibration = Calibration(0.3, 2.0)
    (plain,), (calibrated,) = heard(windows), heard(windows, calibration=calibration)
    words = decode(letters(windows[0]), VOCABULARY)
    assert texts(plain) == texts(calibrated)
    for word, one, other in zip(words, plain.words, calibrated.words, strict=True):
        assert one.confidence == pytest.approx(word.confidence, abs=1e-4)
        assert other.confidence == pytest.approx(calibration(word), abs=1e-4)


def test_what_was_foreseen_is_not_decoded_again():
    asked = []

    class Counting(GreedyDecoder):
        def __call__(self, log_probs, after=()):
            asked.append(len(log_probs))
            return super().__call__(log_probs, after)

    model = CtcModel(VOCABULARY, shape_of(), Counting(VOCABULARY), RULES)
    windows = planned(audio((1, QUIET), (2, LOUD), (1, QUIET)), detector=ByLevel())
    assert [window.kind for window in windows[-2:]] == ["likely_final", "final"]
    hypothesis = CtcHypothesis(model, Settings())
    *_, final = heard(windows[:-1], hypothesis=hypothesis)
    asked.clear()
    final = hypothesis.close(windows[-1], Reading(emission=letters(windows[-1])))
    assert asked == []
    assert len(final.words) > 10


def test_an_utterance_is_forgotten_once_the_next_one_is_heard():
    hypothesis, before = Spelling().hypothesis(Settings(max_utterance_s=5)), []
    signal = audio((1, QUIET), (12, LOUD), (1, QUIET), (2, LOUD), (1, QUIET))
    for window in planned(signal, max_utterance_s=5):
        reading = Reading(emission=letters(window))
        if window.kind == "final":
            hypothesis.close(window, reading)
            before.append(weakref.ref(hypothesis))
            hypothesis = hypothesis.following()
        else:
            hypothesis.update(window, reading)
    gc.collect()
    assert len(before) > 3
    assert [one() for one in before] == [None] * len(before)
