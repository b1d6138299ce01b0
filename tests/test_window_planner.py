import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic import (
    LAG_S,
    LOUD,
    QUIET,
    SEW,
    WAV2VEC2,
    ByLevel,
    always,
    audio,
    planned,
    shape_of,
)

from streamer.config import Settings
from streamer.core.window_planner import WindowPlanner
from streamer.messages import SAMPLE_RATE

EDGE = SEW.receptive - SEW.hop
CONTEXT = shape_of().context


def finals(windows):
    return [window for window in windows if window.kind == "final"]


def seconds(samples):
    return samples / SAMPLE_RATE


def end_of(window):
    """The sample after the window's last."""
    return window.start + len(window.samples)


def check(windows, signal, grid=SEW):
    """What holds for every window, and between them."""
    finished = set()
    edge = grid.receptive - grid.hop
    for window in windows:
        assert grid.fit(len(window.samples)) == len(window.samples)
        assert (window.start - window.speech_start) % grid.stride == 0
        assert window.speech_start <= window.speech_end <= min(len(signal), end_of(window))
        assert window.segment not in finished
        known = signal[window.start : end_of(window)]
        assert np.array_equal(window.samples[: len(known)], known)
        if window.kind == "preview":
            assert end_of(window) == window.speech_end
        else:
            assert window.start <= window.speech_start
        if window.kind == "final":
            finished.add(window.segment)
        if window.split:
            assert window.kind == "final"
            assert (end_of(window) - edge - window.speech_end) % grid.stride == 0
            assert end_of(window) - edge - window.speech_end >= 0
        else:
            assert abs(end_of(window) - edge - window.speech_end) <= grid.stride
    last = finals(windows)
    assert [window.segment for window in last] == list(range(len(last)))
    for before, after in itertools.pairwise(last):
        assert before.speech_start < before.speech_end <= after.speech_start
        assert before.due <= after.due
        # Only what was cut goes on at once.
        assert not before.split or after.speech_start == before.speech_end


def same(one, other):
    fields = ("segment", "speech_start", "speech_end", "start", "kind", "split", "continues", "due")
    assert [[getattr(w, f) for f in fields] for w in one] == [
        [getattr(w, f) for f in fields] for w in other
    ]
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.samples, b.samples)


def test_an_utterance_begins_before_its_first_voiced_frame_and_ends_after_its_last():
    signal = audio((2, QUIET), (1.5, LOUD), (2, QUIET))
    windows = planned(signal)
    check(windows, signal)
    (final,) = finals(windows)
    assert seconds(final.speech_start) == pytest.approx(2 - 0.4, abs=0.021)
    assert 3.5 + 0.15 < seconds(final.speech_end) <= 3.5 + 0.45
    assert seconds(final.due) == pytest.approx(3.5 + 0.6 - LAG_S, abs=0.1)


def test_speech_that_begins_with_the_stream_is_whole():
    signal = audio((1, LOUD), (1, QUIET))
    (final,) = finals(planned(signal))
    assert final.speech_start == 0


def test_silence_gives_nothing():
    assert planned(audio((5, QUIET))) == []
    assert planned(np.zeros(SAMPLE_RATE * 3, np.float32)) == []
    assert planned(np.zeros(0, np.float32)) == []


def test_flush_keeps_the_tail():
    signal = audio((1, QUIET), (1.2345, LOUD))
    (final,) = finals(planned(signal))
    assert final.speech_end == len(signal)
    assert final.start + len(final.samples) >= len(signal)


def test_a_partial_frame_is_completed_with_faint_noise_at_the_end():
    signal = audio((1.0001, LOUD))
    (final,) = finals(planned(signal))
    padding = final.samples[len(signal) - final.start :]
    assert 0 < len(padding) < SEW.stride
    assert 0 < np.abs(padding).max() < 1e-3


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
def test_the_detector_hears_every_frame_once_and_in_order(frame_ms):
    detector = ByLevel()
    signal = audio((2, QUIET), (7, LOUD), (3, QUIET), (1.003, LOUD))
    blocks = np.array_split(signal, 41)
    planned(signal, blocks, detector=detector, vad_frame_ms=frame_ms, max_utterance_s=5)
    frame = SAMPLE_RATE * frame_ms // 1000
    assert {len(heard) for heard in detector.heard} == {frame}
    heard = np.concatenate(detector.heard)
    assert len(heard) == len(signal) // frame * frame
    assert np.array_equal(heard, signal[: len(heard)])


def long_speech(dips=(6.4, 13.1)):
    """Loud noise with a short dip at each of these seconds."""
    signal = audio((18, LOUD))
    for dip in dips:
        at = round(dip * SAMPLE_RATE)
        signal[at : at + 3_200] *= 0.1
    return np.concatenate((signal, audio((2, QUIET))))


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
def test_a_long_utterance_is_split_at_its_quietest_place(frame_ms):
    signal = long_speech()
    windows = planned(signal, max_utterance_s=8, vad_frame_ms=frame_ms)
    check(windows, signal)
    first, second, third = finals(windows)
    assert seconds(first.speech_end) == pytest.approx(6.5, abs=0.11)
    assert seconds(second.speech_end) == pytest.approx(13.2, abs=0.11)
    assert (first.split, second.split, third.split) == (True, True, False)


def test_both_sides_of_a_split_hear_the_same_context():
    first, second, third = finals(planned(long_speech(), max_utterance_s=8))
    for before, after in ((first, second), (second, third)):
        assert after.speech_start == before.speech_end
        assert after.speech_start - after.start == CONTEXT
        assert CONTEXT - SEW.stride < end_of(before) - EDGE - before.speech_end <= CONTEXT
        assert (after.start - before.start) % SEW.stride == 0


def test_a_model_that_needs_no_context_hears_none_beyond_a_split():
    planner = WindowPlanner(Settings(max_utterance_s=8), shape_of(slides=False), ByLevel())
    first, second, third = finals(planner.push(long_speech()) + planner.flush())
    assert (first.split, second.split, third.split) == (True, True, False)
    for before, after in ((first, second), (second, third)):
        assert after.start == after.speech_start == before.speech_end == end_of(before) - EDGE


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.02, 4), st.sampled_from([QUIET, 0.02, LOUD])), min_size=1, max_size=9
    ),
    st.sampled_from([10, 20, 30]),
    st.sampled_from([SEW, WAV2VEC2]),
    st.fixed_dictionaries(
        {
            "hangover_ms": st.sampled_from([100, 330, 600, 5_000]),
            "pre_roll_ms": st.sampled_from([0, 400, 2_000]),
            "min_speech_ms": st.sampled_from([30, 120, 2_000]),
            "preview_ms": st.sampled_from([80, 320, 2_000]),
            "preview_window_ms": st.sampled_from([1_000, 5_000]),
            "right_context_ms": st.sampled_from([0, 480, 2_000]),
        }
    ),
)
def test_windows_are_sound_whatever_the_settings(parts, frame_ms, grid, options):
    signal = audio(*parts)
    windows = planned(signal, vad_frame_ms=frame_ms, grid=grid, max_utterance_s=5, **options)
    check(windows, signal, grid)
    holes(windows, grid)


def holes(windows, grid=SEW):
    """Previews of a segment must meet: a frame between two of them would never be previewed."""
    reached = {}
    for window in windows:
        if window.kind == "final":
            # What was previewed behind a cut belongs to the next segment.
            reached[window.segment + 1] = reached.get(window.segment, 0)
            continue
        before = reached.get(window.segment, 0)
        assert window.start <= max(window.speech_start, before - shape_of(grid).edge)
        reached[window.segment] = window.start + grid.frames(len(window.samples)) * grid.hop


@pytest.mark.parametrize("preview_ms", [80, 320, 2_000])
@pytest.mark.parametrize("window_ms", [1_000, 5_000])
def test_no_frame_falls_between_two_previews(preview_ms, window_ms):
    parts = (1, QUIET), (4, LOUD), (4.5, QUIET), (14, LOUD), (1, QUIET)
    windows = planned(
        audio(*parts),
        preview_ms=preview_ms,
        preview_window_ms=window_ms,
        hangover_ms=5_000,
        max_utterance_s=12,
    )
    assert len(finals(windows)) > 1
    holes(windows)


@pytest.mark.parametrize("hangover_ms", [200, 500, 2_000])
def test_the_last_window_is_asked_for_while_the_silence_is_being_judged(hangover_ms):
    signal = audio((1, QUIET), (3, LOUD), (3, QUIET), (2, LOUD), (3, QUIET))
    windows = planned(signal, hangover_ms=hangover_ms)
    foreseen = [window for window in windows if window.kind == "likely_final"]
    assert len(foreseen) == len(finals(windows)) == 2
    for early, last in zip(foreseen, finals(windows), strict=True):
        assert early.start == last.start
        assert np.array_equal(early.samples, last.samples)
        assert early.due < last.due
        assert early.due - last.speech_end < 0.2 * SAMPLE_RATE  # not later than need be


def test_a_pause_that_ends_with_its_utterances_last_frame_is_not_looked_at():
    signal = audio((1, QUIET), (2, LOUD), (3, QUIET))
    [early] = [window for window in planned(signal) if window.kind == "likely_final"]
    enough = early.start + len(early.samples)
    assert early.due - enough >= 0.04 * SAMPLE_RATE
    resumed = np.concatenate((signal[: enough + SAMPLE_RATE // 50], signal[SAMPLE_RATE:]))
    [*_, last] = looked = [window for window in planned(resumed) if window.kind != "preview"]
    assert len(looked) == 2
    assert last.segment == 0


def test_a_foreseen_end_at_which_speech_goes_on_ends_nothing():
    pause = (0.4 - LAG_S, QUIET)
    signal = audio((1, QUIET), (2, LOUD), pause, (2, LOUD), (2, QUIET))
    windows = planned(signal, hangover_ms=500)
    assert len(finals(windows)) == 1
    assert [window.kind for window in windows if window.kind != "preview"] == [
        "likely_final",
        "likely_final",
        "final",
    ]
    after = [end_of(w) for w in windows if w.kind == "preview"]
    assert max(after) > 4.4 * SAMPLE_RATE  # previews went on


def test_previews_come_at_the_cadence_and_reach_back_as_far_as_set():
    signal = audio((1, QUIET), (9, LOUD), (1, QUIET))
    windows = planned(signal, preview_ms=320, preview_window_ms=5_000)
    previews = [window for window in windows if window.kind == "preview"]
    ends = [window.start + len(window.samples) for window in previews]
    assert set(np.diff(ends)) == {5_120}
    assert all(
        0 <= window.due - end < 320 for window, end in list(zip(previews, ends, strict=True))[1:]
    )
    assert max(len(window.samples) for window in previews) == 80_000 + EDGE
    assert len({len(window.samples) for window in previews[-10:]}) == 1
    assert previews[0].due <= 1.2 * SAMPLE_RATE


def test_no_previews_of_silence_and_none_unless_asked_for():
    signal = audio((1, QUIET), (1, LOUD), (6, QUIET))
    windows = planned(signal, hangover_ms=5_000)
    late = [seconds(window.due) for window in windows if window.kind != "final"]
    assert max(late) < 3.1
    assert [window.kind for window in planned(signal, previews=False)] == ["final"]
    same(finals(planned(signal, previews=False)), finals(planned(signal)))


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_split_gives_the_same_windows(data):
    signal = np.concatenate(
        (audio((1, QUIET), (2.3, LOUD), (1, QUIET)), long_speech((3.3,))[:100_001])
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(signal)), max_size=30)))
    options = {"max_utterance_s": 5}
    same(planned(signal, np.split(signal, cuts), **options), planned(signal, **options))


def test_single_samples_and_one_long_block_give_the_same_windows():
    signal = audio((0.5, QUIET), (1, LOUD), (0.8, QUIET))
    same(planned(signal, list(signal.reshape(-1, 1))), planned(signal))


def test_after_a_gap_time_goes_on_and_nothing_before_it_is_used():
    planner = WindowPlanner(Settings(), shape_of(), ByLevel())
    windows = planner.push(audio((1, QUIET), (1, LOUD))) + planner.flush()
    (before,) = finals(windows)
    planner.skip_to(10 * SAMPLE_RATE)
    signal = audio((1, LOUD), (1, QUIET))
    windows = planner.push(signal) + planner.flush()
    (after,) = finals(windows)
    assert (after.segment, after.speech_start) == (before.segment + 1, 10 * SAMPLE_RATE)
    assert np.array_equal(after.samples, signal[: len(after.samples)])


def test_gaps_at_the_beginning_and_one_after_another():
    planner = WindowPlanner(Settings(), shape_of(), ByLevel())
    for position in (0, 16_000, 16_000, 40_000):
        assert planner.flush() == []
        planner.skip_to(position)
    assert planner.flush() == []


def test_long_talk_is_split_in_its_dips_and_memory_stays_small():
    """Frames of 30 ms do not divide the stride: what is rounded must not add up."""
    period = 16_111
    settings = Settings(vad_frame_ms=30, max_utterance_s=5)
    planner = WindowPlanner(settings, shape_of(), always, previews=False)
    wave = np.random.default_rng(0).uniform(-1, 1, period).astype(np.float32)
    wave[:3_200] *= 0.01
    windows = []
    for _ in range(1_200):
        windows += planner.push(wave)
        assert len(planner._endpointer._levels) * 480 <= 6 * SAMPLE_RATE
        assert planner._audio.end - planner._audio.start < 7 * SAMPLE_RATE
        assert len(planner._audio._data) < 20 * SAMPLE_RATE
    assert len(windows) > 1_200 / 5
    for window in windows:
        assert 0 <= window.speech_end % period < 3_200
        beyond = end_of(window) - EDGE - window.speech_end
        assert beyond >= CONTEXT - 2 * SEW.stride


def test_previews_that_do_not_slide_begin_where_nothing_changes_any_more():
    """Never behind that place, which lies anywhere; nor before the utterance, or for another's."""
    planner = WindowPlanner(Settings(), shape_of(slides=False), always)
    signal = audio((14, LOUD))
    windows = planner.push(signal[: 8 * SAMPLE_RATE])
    assert {(window.start, window.speech_start) for window in windows} == {(0, 0)}
    settled = 2 * SAMPLE_RATE + 123
    planner.settle(0, settled)
    planner.settle(1, 5 * SAMPLE_RATE)
    windows = planner.push(signal[8 * SAMPLE_RATE :])
    assert len(windows) > 10
    assert {window.start for window in windows} == {settled // SEW.stride * SEW.stride}
    (final,) = planner.flush()
    assert (final.kind, final.start) == ("final", 0)


def test_where_an_utterance_settled_is_forgotten_with_it():
    planner = WindowPlanner(Settings(), shape_of(slides=False), ByLevel())
    planner.push(audio((1, QUIET), (3, LOUD)))
    planner.settle(0, 3 * SAMPLE_RATE)
    windows = planner.push(audio((2, QUIET), (3, LOUD)))
    later = [window for window in windows if window.segment == 1]
    assert later
    assert {window.start - window.speech_start for window in later} == {0}
