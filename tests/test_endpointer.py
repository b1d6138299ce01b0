import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from synthetic import LAG_S, LOUD, QUIET, ByLevel, always, audio

from streamer.config import Settings
from streamer.core.endpointer import Closed, Endpointer, Opened, Split
from streamer.messages import SAMPLE_RATE

STEP, MARGIN = 640, 15_360


@dataclass
class Span:
    """An utterance: seconds, and what it knows of the one before."""

    start: float
    end: float
    split: bool
    continues: bool
    follows_split: bool


def listen(endpointer, signal):
    """What comes of the frames of a signal that begins where the endpointer is, and of its end."""
    begin = endpointer.position
    whole = len(signal) // endpointer.frame * endpointer.frame
    for frame in np.split(signal[:whole], whole // endpointer.frame or 1):
        if len(frame):
            boundary = endpointer.push(frame)
            if isinstance(boundary, Closed):
                endpointer.take(boundary.end)
            yield boundary
    yield endpointer.flush(begin + len(signal))


def spans(signal, *, detector=None, **options):
    """The utterances of a signal."""
    endpointer = Endpointer(
        Settings(**{"hangover_ms": 500} | options),
        detector or ByLevel(),
        step=STEP,
        margin=MARGIN,
    )
    found = []
    for boundary in listen(endpointer, signal):
        if isinstance(boundary, Closed | Split):
            split = isinstance(boundary, Split)
            end = boundary.cut if split else boundary.end
            one = boundary.utterance
            times = one.start / SAMPLE_RATE, end / SAMPLE_RATE
            found.append(Span(*times, split, one.continues, one.follows_split))
    return found


def test_an_utterance_begins_before_its_first_voiced_frame_and_ends_after_its_last():
    (span,) = spans(audio((2, QUIET), (1.5, LOUD), (2, QUIET)))
    assert span.start == pytest.approx(2 - 0.4, abs=0.021)
    assert 3.5 + 0.15 < span.end <= 3.5 + 0.45
    assert (span.split, span.continues, span.follows_split) == (False, False, False)


def test_a_boundary_is_told_by_the_frame_that_makes_it_sure():
    endpointer = Endpointer(Settings(hangover_ms=500), ByLevel(), step=STEP, margin=MARGIN)
    told = []
    for boundary in listen(endpointer, audio((2, QUIET), (1.5, LOUD), (2, QUIET))):
        if boundary:
            told.append((type(boundary), endpointer.position / SAMPLE_RATE))
    (opened, first), (closed, last) = told
    assert (opened, closed) == (Opened, Closed)
    assert first == pytest.approx(2.12, abs=0.05)
    assert last == pytest.approx(3.5 + 0.6 - LAG_S, abs=0.1)


def test_silence_gives_nothing():
    assert spans(audio((5, QUIET))) == []
    assert spans(np.zeros(SAMPLE_RATE * 3, np.float32)) == []
    assert spans(np.zeros(0, np.float32)) == []


@pytest.mark.parametrize("click", [0.02, 0.06])
def test_a_click_opens_nothing(click):
    assert spans(audio((1, QUIET), (click, LOUD), (1, QUIET))) == []


def test_a_pause_shorter_than_the_hangover_ends_nothing():
    def heard(pause):
        return len(spans(audio((1, QUIET), (1, LOUD), (pause, QUIET), (1, LOUD), (1, QUIET))))

    assert [heard(0.4 - LAG_S), heard(0.7 - LAG_S)] == [1, 2]


def test_the_longer_an_utterance_the_shorter_the_pause_that_ends_it():
    """In two fifths of 10 s it falls from 600 ms to 200, and the detector's lag counts."""

    def segments(seconds_of_speech, pause):
        signal = audio((1, QUIET), (seconds_of_speech, LOUD), (pause, QUIET), (2, LOUD), (2, QUIET))
        return spans(signal, hangover_ms=600, max_utterance_s=10)

    assert [len(segments(1.2, pause)) for pause in (0.2, 0.3, 0.48, 0.6)] == [1, 1, 1, 2]
    assert [len(segments(2, pause)) for pause in (0.2, 0.3, 0.48, 0.6)] == [1, 1, 2, 2]
    assert [len(segments(4.5, pause)) for pause in (0.1, 0.3, 0.48, 0.6)] == [1, 2, 2, 2]
    first, second = segments(4.5, 0.3)
    assert first.end < 5.7 <= second.start + 0.2


def test_what_follows_a_pause_that_only_ends_long_utterances_continues_it():
    def continued(pause, **options):
        signal = audio((1, QUIET), (6, LOUD), (pause, QUIET), (1, LOUD), (2, QUIET), (1, LOUD))
        options = {"hangover_ms": 600, "max_utterance_s": 10, **options}
        return [span.continues for span in spans(signal, **options)]

    assert continued(0.3) == continued(0.48) == [False, True, False]
    assert continued(0.6) == [False, False, False]
    assert continued(0.3, max_utterance_s=30) == [False, False]
    assert continued(0.3, max_utterance_s=30, hangover_ms=300) == [False, False, False]


def test_a_click_does_not_keep_an_utterance_open():
    clicks = [(0.3, QUIET), (0.02, LOUD)] * 8
    (span,) = spans(audio((1, QUIET), (1, LOUD), *clicks, (1, QUIET)))
    assert span.end < 2.6


def test_flush_keeps_the_tail_and_a_word_too_short_to_open():
    signal = audio((1, QUIET), (1.2345, LOUD))
    (span,) = spans(signal)
    assert span.end == len(signal) / SAMPLE_RATE
    assert spans(audio((1, QUIET), (0.05, LOUD)))
    assert not spans(audio((1, QUIET), (0.02, LOUD)))


def test_short_hangovers_open_no_utterance_twice():
    """Voiced frames that are still in memory when an utterance ends belong to it."""
    signal = audio((1, QUIET), (3, LOUD), (3, QUIET))
    for min_speech in (120, 500, 2_000):
        assert len(spans(signal, hangover_ms=100, min_speech_ms=min_speech)) == 1
    short = signal[: round(4.12 * SAMPLE_RATE)]
    assert len(spans(short, hangover_ms=100, vad_frame_ms=10)) == 1


def test_steady_noise_is_gated_although_the_detector_calls_it_speech():
    found = spans(audio((30, 0.05)), detector=always)
    # It opens before the floor is known, and only then.
    assert len(found) <= 1
    assert all(span.end < 3 for span in found)


def test_an_utterance_after_long_noise_is_found():
    found = spans(audio((60, 0.02), (2, LOUD), (3, 0.02)), detector=always)[-1]
    assert found.start < 60 < 62 < found.end


def test_a_louder_room_is_learned():
    found = spans(audio((10, 0.001), (40, 0.05)), detector=always)
    assert max(span.end for span in found) < 22


def test_quiet_speech_in_a_silent_room_is_found():
    zeros = np.zeros(5 * SAMPLE_RATE, np.float32)
    signal = np.concatenate((zeros, audio((1, 0.005)), zeros))
    assert len(spans(signal, detector=lambda frame: bool(frame.any()))) == 1


def test_a_click_before_a_gap_and_one_after_it_are_not_added_up():
    endpointer = Endpointer(Settings(hangover_ms=500), ByLevel(), step=STEP, margin=MARGIN)
    assert not any(listen(endpointer, audio((1, QUIET), (0.02, LOUD))))
    endpointer.skip_to(2 * SAMPLE_RATE)
    assert not any(listen(endpointer, audio((0.1, LOUD), (1, QUIET))))


def test_after_a_gap_nothing_continues_and_nothing_begins_earlier():
    endpointer = Endpointer(
        Settings(hangover_ms=600, max_utterance_s=10),
        ByLevel(),
        step=STEP,
        margin=MARGIN,
    )
    *_, before = listen(endpointer, audio((1, QUIET), (6, LOUD)))
    assert isinstance(before, Closed)
    endpointer.skip_to(before.end + 320)
    *_, after = listen(endpointer, audio((1, LOUD)))
    assert isinstance(after, Closed)
    assert after.utterance.start == before.end + 320
    assert not after.utterance.continues


def with_dips(seconds, *dips):
    """Loud noise with a short dip at each of these seconds."""
    signal = audio((seconds, LOUD))
    for dip in dips:
        at = round(dip * SAMPLE_RATE)
        signal[at : at + 3_200] *= 0.1
    return signal


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
def test_a_long_utterance_is_split_at_its_quietest_place(frame_ms):
    signal = np.concatenate((with_dips(18, 6.4, 13.1), audio((2, QUIET))))
    first, second, third = spans(signal, max_utterance_s=8, vad_frame_ms=frame_ms)
    assert first.end == pytest.approx(6.5, abs=0.11)
    assert second.end == pytest.approx(13.2, abs=0.11)
    for span in (first, second):
        assert round((span.end - span.start) * SAMPLE_RATE) % STEP == 0
    assert [span.split for span in (first, second, third)] == [True, True, False]
    assert [span.follows_split for span in (first, second, third)] == [False, True, True]
    assert [span.continues for span in (first, second, third)] == [False, True, True]


def test_a_cut_is_in_the_later_half_though_the_utterance_began_before_the_last_one_ended():
    """Its pre-roll reaches back to frames that were heard while that one was still open."""
    before = audio((0.5, QUIET), (0.8, LOUD), (2.02, QUIET))
    # Half of the 30 s are over at 16.5 s; of what comes after the last utterance, at 17.4 s.
    signal = np.concatenate((before, with_dips(32, 16.9 - len(before) / SAMPLE_RATE)))
    options = {"hangover_ms": 2_000, "pre_roll_ms": 2_000}
    first, second, _ = spans(signal, max_utterance_s=30, **options)
    assert first.end == second.start < 1.6
    assert second.end == pytest.approx(17.0, abs=0.11)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.02, 4), st.sampled_from([QUIET, 0.02, LOUD])), min_size=1, max_size=9
    ),
    st.fixed_dictionaries(
        {
            "vad_frame_ms": st.sampled_from([10, 20, 30]),
            "hangover_ms": st.sampled_from([100, 330, 600, 5_000]),
            "pre_roll_ms": st.sampled_from([0, 400, 2_000]),
            "min_speech_ms": st.sampled_from([30, 120, 2_000]),
        }
    ),
)
@example(
    [(3.5, LOUD), (3.0, QUIET)],
    {"vad_frame_ms": 10, "hangover_ms": 5_000, "pre_roll_ms": 0, "min_speech_ms": 30},
)
def test_utterances_follow_each_other_and_lie_in_the_audio_whatever_the_settings(parts, options):
    signal = audio(*parts)
    found = spans(signal, max_utterance_s=5, **options)
    assert all(0 <= span.start <= span.end <= len(signal) / SAMPLE_RATE for span in found)
    # Only what a split has left may be empty: a pause that ends the utterance.
    assert all(span.start < span.end or span.follows_split for span in found)
    assert all(span.end - span.start < 6 for span in found)
    for one, other in itertools.pairwise(found):
        assert one.end <= other.start
        assert one.split == other.follows_split
        assert not one.split or (one.end == other.start and other.continues)


def test_an_end_that_was_fixed_stays_unless_more_is_said():
    endpointer = Endpointer(Settings(hangover_ms=600), ByLevel(), step=STEP, margin=MARGIN)
    for frame in np.split(audio((1, QUIET), (1, LOUD), (0.4, QUIET)), 120):
        endpointer.push(frame)
    assert not endpointer.end_is_fixed
    endpointer.fix_end()
    fixed = endpointer.end
    assert endpointer.end_is_fixed
    for frame in np.split(audio((0.04, QUIET)), 2):
        endpointer.push(frame)
    assert endpointer.end == fixed
    for frame in np.split(audio((0.2, LOUD)), 10):
        endpointer.push(frame)
    assert not endpointer.end_is_fixed
    assert endpointer.end > fixed
