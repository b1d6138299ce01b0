import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streamer.core.segmenter import (
    DETECTOR_LAG_MS,
    EDGE_CONTEXT_MS,
    SPLIT_CONTEXT_MS,
    Segmenter,
)

from streamer.config import Settings
from streamer.core.ctc import FrameGrid
from streamer.messages import SAMPLE_RATE

SEW = FrameGrid(hop=320, receptive=400, stride=640)
WAV2VEC2 = FrameGrid(hop=320, receptive=400, stride=320)
EDGE = SEW.receptive - SEW.hop


class ByLevel:
    """A voice detector that calls everything louder than -40 dB voice and notes what it heard.

    Without webrtcvad's lag: so the silence that ends an utterance is shorter by ``LAG_S``.
    """

    def __init__(self):
        self.heard = []

    def __call__(self, frame):
        self.heard.append(frame.copy())
        return bool(np.mean(frame**2) > 1e-4)


def always(frame):
    return True


QUIET, LOUD = 1e-4, 0.5
LAG_S = DETECTOR_LAG_MS / 1000


def audio(*parts, seed=0):
    """Noise in stretches of (seconds, amplitude); the loud ones have syllables, as speech does."""
    generator = np.random.default_rng(seed)
    stretches = []
    for seconds, amplitude in parts:
        stretch = generator.uniform(-1, 1, round(seconds * SAMPLE_RATE)) * amplitude
        if amplitude == LOUD:
            stretch[np.arange(len(stretch)) % 4_000 >= 2_400] *= 0.1
        stretches.append(stretch)
    return np.concatenate(stretches).astype(np.float32)


def segmented(signal, blocks=None, *, detector=None, grid=SEW, previews=True, **options):
    segmenter = Segmenter(Settings(**options), grid, detector or ByLevel(), previews=previews)
    windows = []
    for block in blocks or [signal]:
        windows += segmenter.push(block)
    return windows + segmenter.flush()


def finals(windows):
    return [window for window in windows if window.last]


def seconds(samples):
    return samples / SAMPLE_RATE


def check(windows, signal, grid=SEW):
    """What holds for every window, and between them."""
    ends = {}
    for window in windows:
        frames = grid.frames(len(window.samples))
        assert grid.fit(len(window.samples)) == len(window.samples)
        assert (window.start - window.onset) % grid.stride == 0
        assert window.left >= 0
        # Nothing is left to be heard where a cut lies in the pause that ends an utterance.
        assert window.left + window.right < frames + window.last
        assert window.start + window.left * grid.hop >= window.onset
        assert window.offset <= len(signal)
        known = signal[window.start : window.start + len(window.samples)]
        assert np.array_equal(window.samples[: len(known)], known)
        if window.last:
            inside = frames - window.left - window.right
            assert window.start + window.left * grid.hop == window.onset
            assert abs(window.onset + inside * grid.hop - window.offset) <= grid.stride
            ends[window.segment] = window.offset
        else:
            assert window.right == 0
            assert window.segment not in ends
    last = finals(windows)
    assert [window.segment for window in last] == list(range(len(last)))
    for before, after in itertools.pairwise(last):
        assert before.onset < before.offset <= after.onset
        assert before.due <= after.due


def same(one, other):
    fields = ("segment", "onset", "offset", "start", "left", "right", "last", "continues", "due")
    assert [[getattr(w, f) for f in fields] for w in one] == [
        [getattr(w, f) for f in fields] for w in other
    ]
    for a, b in zip(one, other, strict=True):
        assert np.array_equal(a.samples, b.samples)


def test_an_utterance_begins_before_its_first_voiced_frame_and_ends_after_its_last():
    signal = audio((2, QUIET), (1.5, LOUD), (2, QUIET))
    windows = segmented(signal)
    check(windows, signal)
    (final,) = finals(windows)
    assert seconds(final.onset) == pytest.approx(2 - 0.4, abs=0.021)
    assert 3.5 + 0.15 < seconds(final.offset) <= 3.5 + 0.45
    assert seconds(final.due) == pytest.approx(3.5 + 0.6 - LAG_S, abs=0.1)


def test_speech_that_begins_with_the_stream_is_whole():
    signal = audio((1, LOUD), (1, QUIET))
    (final,) = finals(segmented(signal))
    assert final.onset == 0


def test_silence_gives_nothing():
    assert segmented(audio((5, QUIET))) == []
    assert segmented(np.zeros(SAMPLE_RATE * 3, np.float32)) == []
    assert segmented(np.zeros(0, np.float32)) == []


@pytest.mark.parametrize("click", [0.02, 0.06])
def test_a_click_opens_nothing(click):
    assert segmented(audio((1, QUIET), (click, LOUD), (1, QUIET))) == []


def test_a_pause_shorter_than_the_hangover_ends_nothing():
    def heard(pause):
        parts = (1, QUIET), (1, LOUD), (pause, QUIET), (1, LOUD), (1, QUIET)
        return len(finals(segmented(audio(*parts))))

    assert [heard(0.4 - LAG_S), heard(0.7 - LAG_S)] == [1, 2]


def test_the_longer_an_utterance_the_shorter_the_pause_that_ends_it():
    """In two fifths of 10 s patience falls from 600 ms to 200, and the detector's lag counts."""

    def segments(seconds_of_speech, pause):
        signal = audio((1, QUIET), (seconds_of_speech, LOUD), (pause, QUIET), (2, LOUD), (2, QUIET))
        windows = segmented(signal, hangover_ms=600, max_utterance_s=10)
        check(windows, signal)
        return [(seconds(w.onset), seconds(w.offset)) for w in finals(windows)]

    assert [len(segments(1.2, pause)) for pause in (0.2, 0.3, 0.48, 0.6)] == [1, 1, 1, 2]
    assert [len(segments(2, pause)) for pause in (0.2, 0.3, 0.48, 0.6)] == [1, 1, 2, 2]
    assert [len(segments(4.5, pause)) for pause in (0.1, 0.3, 0.48, 0.6)] == [1, 2, 2, 2]
    first, second = segments(4.5, 0.3)
    assert first[1] < 5.7 <= second[0] + 0.2


def test_what_follows_a_pause_that_only_ends_long_utterances_continues_it():
    def continued(pause, **options):
        signal = audio((1, QUIET), (6, LOUD), (pause, QUIET), (1, LOUD), (2, QUIET), (1, LOUD))
        options = {"hangover_ms": 600, "max_utterance_s": 10, **options}
        windows = segmented(signal, **options)
        said = {(window.segment, window.continues) for window in windows}
        return [continues for _, continues in sorted(said)]

    assert continued(0.3) == continued(0.48) == [False, True, False]
    assert continued(0.6) == [False, False, False]
    assert continued(0.3, max_utterance_s=30) == [False, False]
    assert continued(0.3, max_utterance_s=30, hangover_ms=300) == [False, False, False]


def test_a_click_does_not_keep_an_utterance_open():
    clicks = [(0.3, QUIET), (0.02, LOUD)] * 8
    signal = audio((1, QUIET), (1, LOUD), *clicks, (1, QUIET))
    (final,) = finals(segmented(signal))
    assert seconds(final.offset) < 2.6


def test_flush_keeps_the_tail():
    signal = audio((1, QUIET), (1.2345, LOUD))
    (final,) = finals(segmented(signal))
    assert final.offset == len(signal)
    assert final.start + len(final.samples) >= len(signal)


def test_flush_keeps_a_word_too_short_to_open():
    assert finals(segmented(audio((1, QUIET), (0.05, LOUD))))
    assert not finals(segmented(audio((1, QUIET), (0.02, LOUD))))


def test_a_partial_frame_is_completed_with_faint_noise_at_the_end():
    signal = audio((1.0001, LOUD))
    (final,) = finals(segmented(signal))
    padding = final.samples[len(signal) - final.start :]
    assert 0 < len(padding) < SEW.stride
    assert 0 < np.abs(padding).max() < 1e-3


@pytest.mark.parametrize("frame_ms", [10, 20, 30])
def test_the_detector_hears_every_frame_once_and_in_order(frame_ms):
    detector = ByLevel()
    signal = audio((2, QUIET), (7, LOUD), (3, QUIET), (1.003, LOUD))
    blocks = np.array_split(signal, 41)
    segmented(signal, blocks, detector=detector, vad_frame_ms=frame_ms, max_utterance_s=5)
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
    windows = segmented(signal, max_utterance_s=8, vad_frame_ms=frame_ms)
    check(windows, signal)
    first, second, third = finals(windows)
    assert seconds(first.offset) == pytest.approx(6.5, abs=0.11)
    assert seconds(second.offset) == pytest.approx(13.2, abs=0.11)
    assert (first.right > 0, second.right > 0, third.right) == (True, True, 0)


def test_both_sides_of_a_split_hear_the_same_context():
    first, second, third = finals(segmented(long_speech(), max_utterance_s=8))
    context = SPLIT_CONTEXT_MS * SAMPLE_RATE // 1000
    for before, after in ((first, second), (second, third)):
        assert after.onset == before.offset
        assert after.left * SEW.hop == after.onset - after.start
        assert after.onset - after.start == pytest.approx(context, abs=SEW.stride)
        assert before.start + len(before.samples) - EDGE == before.offset + before.right * SEW.hop
        assert 0 < before.right * SEW.hop <= context + SEW.stride
        assert (after.start - before.start) % SEW.stride == 0


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
    windows = segmented(signal, vad_frame_ms=frame_ms, grid=grid, max_utterance_s=5, **options)
    check(windows, signal, grid)
    holes(windows, grid)


def holes(windows, grid=SEW):
    """Previews of a segment must meet: a frame between two of them would never be previewed."""
    reached = {}
    for window in windows:
        if window.last:
            # What was previewed behind a cut belongs to the next segment.
            reached[window.segment + 1] = reached.get(window.segment)
            continue
        first = window.start + window.left * grid.hop
        before = reached.get(window.segment)
        assert first <= max(window.onset, before or 0)
        reached[window.segment] = window.start + grid.frames(len(window.samples)) * grid.hop


@pytest.mark.parametrize("preview_ms", [80, 320, 2_000])
@pytest.mark.parametrize("window_ms", [1_000, 5_000])
def test_no_frame_falls_between_two_previews(preview_ms, window_ms):
    parts = (1, QUIET), (4, LOUD), (4.5, QUIET), (14, LOUD), (1, QUIET)
    windows = segmented(
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
    windows = segmented(signal, hangover_ms=hangover_ms)
    foreseen = [window for window in windows if window.whole and not window.last]
    assert len(foreseen) == len(finals(windows)) == 2
    for early, last in zip(foreseen, finals(windows), strict=True):
        assert early.start == last.start
        assert np.array_equal(early.samples, last.samples)
        assert early.due < last.due
        assert early.due - last.offset < 0.2 * SAMPLE_RATE  # not later than need be


def test_a_pause_that_ends_with_its_utterances_last_frame_is_not_looked_at():
    signal = audio((1, QUIET), (2, LOUD), (3, QUIET))
    [early] = [window for window in segmented(signal) if window.whole and not window.last]
    enough = early.start + len(early.samples)
    assert early.due - enough >= 0.04 * SAMPLE_RATE
    resumed = np.concatenate((signal[: enough + SAMPLE_RATE // 50], signal[SAMPLE_RATE:]))
    [*_, last] = looked = [window for window in segmented(resumed) if window.whole]
    assert len(looked) == 2
    assert last.segment == 0


def test_a_foreseen_end_at_which_speech_goes_on_ends_nothing():
    pause = (0.4 - LAG_S, QUIET)
    signal = audio((1, QUIET), (2, LOUD), pause, (2, LOUD), (2, QUIET))
    windows = segmented(signal, hangover_ms=500)
    assert len(finals(windows)) == 1
    assert [window.segment for window in windows if window.whole] == [0, 0, 0]
    after = [w.start + len(w.samples) for w in windows if not w.whole]
    assert max(after) > 4.4 * SAMPLE_RATE  # previews went on


def test_previews_come_at_the_cadence_and_reach_back_as_far_as_set():
    signal = audio((1, QUIET), (9, LOUD), (1, QUIET))
    windows = segmented(signal, preview_ms=320, preview_window_ms=5_000)
    previews = [window for window in windows if not window.whole and not window.last]
    ends = [window.start + len(window.samples) for window in previews]
    assert set(np.diff(ends)) == {5_120}
    assert all(
        0 <= window.due - end < 320 for window, end in list(zip(previews, ends, strict=True))[1:]
    )
    assert max(len(window.samples) for window in previews) == 80_000 + EDGE
    assert len({len(window.samples) for window in previews[-10:]}) == 1
    assert {window.left for window in previews} == {0, EDGE_CONTEXT_MS // 20}
    assert previews[0].due <= 1.2 * SAMPLE_RATE


def test_no_previews_of_silence_and_none_unless_asked_for():
    signal = audio((1, QUIET), (1, LOUD), (6, QUIET))
    windows = segmented(signal, hangover_ms=5_000)
    late = [seconds(window.due) for window in windows if not window.last]
    assert max(late) < 3.1
    assert [window.last for window in segmented(signal, previews=False)] == [True]
    same(finals(segmented(signal, previews=False)), finals(segmented(signal)))


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_split_gives_the_same_windows(data):
    signal = np.concatenate(
        (audio((1, QUIET), (2.3, LOUD), (1, QUIET)), long_speech((3.3,))[:100_001])
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(signal)), max_size=30)))
    options = {"max_utterance_s": 5}
    same(segmented(signal, np.split(signal, cuts), **options), segmented(signal, **options))


def test_single_samples_and_one_long_block_give_the_same_windows():
    signal = audio((0.5, QUIET), (1, LOUD), (0.8, QUIET))
    same(segmented(signal, list(signal.reshape(-1, 1))), segmented(signal))


def test_short_hangovers_open_no_utterance_twice():
    """Voiced frames that are still in memory when an utterance ends belong to it."""
    signal = audio((1, QUIET), (3, LOUD), (3, QUIET))
    for min_speech in (120, 500, 2_000):
        windows = segmented(signal, hangover_ms=100, min_speech_ms=min_speech)
        assert len(finals(windows)) == 1
    short = signal[: round(4.12 * SAMPLE_RATE)]
    assert len(finals(segmented(short, hangover_ms=100, vad_frame_ms=10))) == 1


def test_steady_noise_is_gated_although_the_detector_calls_it_speech():
    signal = audio((30, 0.05))
    windows = segmented(signal, detector=always)
    check(windows, signal)
    # It opens before the floor is known, and only then.
    assert len(finals(windows)) <= 1
    assert all(window.offset < 3 * SAMPLE_RATE for window in windows)


def test_an_utterance_after_long_noise_is_found():
    signal = audio((60, 0.02), (2, LOUD), (3, 0.02))
    found = finals(segmented(signal, detector=always))[-1]
    assert found.onset < 60 * SAMPLE_RATE < 62 * SAMPLE_RATE < found.offset


def test_a_louder_room_is_learned():
    signal = audio((10, 0.001), (40, 0.05))
    windows = segmented(signal, detector=always)
    assert max(window.offset for window in windows) < 22 * SAMPLE_RATE


def test_quiet_speech_in_a_silent_room_is_found():
    zeros = np.zeros(5 * SAMPLE_RATE, np.float32)
    signal = np.concatenate((zeros, audio((1, 0.005)), zeros))
    assert len(finals(segmented(signal, detector=lambda frame: bool(frame.any())))) == 1


def test_after_a_gap_time_goes_on_and_nothing_before_it_is_used():
    segmenter = Segmenter(Settings(), SEW, ByLevel())
    windows = segmenter.push(audio((1, QUIET), (1, LOUD))) + segmenter.flush()
    (before,) = finals(windows)
    segmenter.skip_to(10 * SAMPLE_RATE)
    signal = audio((1, LOUD), (1, QUIET))
    windows = segmenter.push(signal) + segmenter.flush()
    (after,) = finals(windows)
    assert (after.segment, after.onset) == (before.segment + 1, 10 * SAMPLE_RATE)
    assert np.array_equal(after.samples, signal[: len(after.samples)])


def test_a_click_before_a_gap_and_one_after_it_are_not_added_up():
    segmenter = Segmenter(Settings(), SEW, ByLevel())
    assert segmenter.push(audio((1, QUIET), (0.02, LOUD))) + segmenter.flush() == []
    segmenter.skip_to(2 * SAMPLE_RATE)
    assert segmenter.push(audio((0.1, LOUD), (1, QUIET))) + segmenter.flush() == []


def test_gaps_at_the_beginning_and_one_after_another():
    segmenter = Segmenter(Settings(), SEW, ByLevel())
    for position in (0, 16_000, 16_000, 40_000):
        assert segmenter.flush() == []
        segmenter.skip_to(position)
    assert segmenter.flush() == []


def test_long_talk_is_split_in_its_dips_and_memory_stays_small():
    """Frames of 30 ms do not divide the stride: what is rounded must not add up."""
    period = 16_111
    segmenter = Segmenter(Settings(vad_frame_ms=30, max_utterance_s=5), SEW, always, previews=False)
    wave = np.random.default_rng(0).uniform(-1, 1, period).astype(np.float32)
    wave[:3_200] *= 0.01
    windows = []
    for _ in range(1_200):
        windows += segmenter.push(wave)
        assert len(segmenter._levels) * 480 <= 6 * SAMPLE_RATE
        assert segmenter._tape.end - segmenter._tape.start < 7 * SAMPLE_RATE
        assert len(segmenter._tape._data) < 20 * SAMPLE_RATE
    assert len(windows) > 1_200 / 5
    context = SPLIT_CONTEXT_MS * SAMPLE_RATE // 1000
    for window in windows:
        assert 0 <= window.offset % period < 3_200
        assert window.right * SEW.hop >= context - 2 * SEW.stride
