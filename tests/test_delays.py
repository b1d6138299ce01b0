import numpy as np
import pytest

from streamer.evaluation.delays import Delays, TimedWord, percentiles, timed_words
from streamer.messages import Final, Gap, Partial, SessionEnded


def offline(*words):
    return [TimedWord(text, start, end) for text, start, end in words]


def partial(at, stable, tentative="", *, segment=0, start=0.0, end=None):
    return Partial(segment, start, at if end is None else end, stable, tentative, at)


def final(at, text, *, segment=0, start=0.0, end=9.0):
    return Final(segment, start, end, text, text, (), at)


def judged(events, words=()):
    delays = Delays()
    delays.take(events, words)
    return delays


HELLO_BIG_WORLD = offline(("HELLO", 1.0, 1.5), ("BIG", 1.6, 1.8), ("WORLD", 2.0, 2.5))


def test_each_delay_of_one_segment():
    delays = judged(
        [
            partial(1.25, "", "hell"),
            partial(1.75, "", "Hello"),
            partial(2.0, "Hello", "big"),
            partial(2.75, "Hello big", "world"),
            final(3.5, "Hello big world"),
        ],
        HELLO_BIG_WORLD,
    )
    assert delays.word == pytest.approx([0.25, 0.2, 0.25])
    assert delays.settle == pytest.approx([0.5, 0.95, 1.0])
    assert delays.final == pytest.approx([1.0])
    assert delays.first_word == pytest.approx([0.25])
    assert (delays.unstable, delays.retracted, delays.final_words) == (1, 0, 3)
    assert delays.never_shown == 0
    assert delays.upwr == pytest.approx(1 / 3)


def test_the_first_time_counts_though_the_word_vanishes_for_a_while():
    events = [partial(1.75, "", "hello"), partial(2.0, "", "yellow"), final(3.0, "hello")]
    delays = judged(events, HELLO_BIG_WORLD[:1])
    assert delays.word == pytest.approx([0.25])
    assert delays.settle == pytest.approx([1.5])
    assert delays.unstable == 1


def test_a_wrong_word_that_stays_is_counted_once():
    events = [
        partial(2.0, "", "hello pig"),
        partial(2.3, "", "hello pig"),
        partial(2.6, "", "hello pig world"),
        partial(2.9, "", "hello fig world"),
        final(3.5, "hello big world"),
    ]
    assert judged(events, HELLO_BIG_WORLD).unstable == 2


def test_every_surplus_word_of_one_place_is_counted():
    events = [partial(2.0, "", "no no no way"), partial(2.3, "", "no no way"), final(3, "no way")]
    assert judged(events).unstable == 2


def test_a_word_in_the_wrong_place_is_not_seen():
    events = [partial(1.75, "", "world"), final(3.5, "hello big")]
    delays = judged(events, HELLO_BIG_WORLD)
    assert delays.word == pytest.approx([2.0, 1.7])
    assert delays.never_shown == 1


def test_a_final_shows_and_settles_what_no_partial_did():
    delays = judged([final(3.5, "Hello big world")], HELLO_BIG_WORLD)
    assert delays.word == delays.settle == pytest.approx([2.0, 1.7, 1.0])
    assert delays.first_word == pytest.approx([2.5])


def test_a_repeated_word_is_each_time_another_word():
    words = offline(("NO", 1.0, 1.2), ("NO", 2.0, 2.2), ("NO", 3.0, 3.2))
    events = [
        partial(1.3, "", "no"),
        partial(2.4, "no", "no"),
        partial(3.5, "no no", "no"),
        final(4.0, "no no no"),
    ]
    delays = judged(events, words)
    assert delays.word == pytest.approx([0.1, 0.2, 0.3])
    assert delays.settle == pytest.approx([1.2, 1.3, 0.8])


def test_no_word_is_seen_before_audio_from_its_beginning_was_heard():
    words = offline(("NO", 1.0, 1.2), ("NO", 2.0, 2.2))
    events = [partial(1.5, "", "no no"), partial(2.25, "", "no no"), final(3.0, "no no")]
    assert judged(events, words).word == pytest.approx([0.3, 0.05])


def test_retracted_are_the_last_stable_words_that_the_final_has_not():
    events = [
        partial(2.0, "hello"),
        partial(2.6, "hello pig world", "there"),
        final(3.5, "hello big world"),
    ]
    delays = judged(events, HELLO_BIG_WORLD)
    assert delays.retracted == 1
    assert delays.retracted_share == pytest.approx(1 / 3)
    assert delays.unstable == 2


def test_an_empty_final_takes_back_all_that_was_shown():
    delays = judged([partial(2.0, "hello", "big"), final(3.0, "")])
    assert (delays.unstable, delays.retracted, delays.final_words) == (2, 1, 0)
    assert (delays.word, delays.final, delays.first_word) == ([], [], [])
    assert delays.upwr == 2


def test_an_empty_partial_is_no_first_word():
    events = [partial(1.2, "", ""), partial(1.75, "", "hello"), final(3.0, "hello")]
    assert judged(events, HELLO_BIG_WORLD[:1]).first_word == pytest.approx([0.75])


def test_a_segment_without_final_is_neither_stable_nor_unstable():
    delays = judged([partial(1.75, "hello", "big")], HELLO_BIG_WORLD[:1])
    assert delays.word == pytest.approx([0.25])
    assert (delays.final, delays.unstable, delays.retracted) == ([], 0, 0)


def test_words_belong_to_the_segment_that_has_their_middle():
    words = offline(("ONE", 1.0, 1.5), ("LOST", 2.4, 2.8), ("TWO", 3.5, 4.2))
    events = [
        final(2.5, "one", start=0.5, end=2.0),
        partial(4.5, "", "two", segment=1, start=3.8),
        final(5.0, "two", segment=1, start=3.8, end=4.5),
    ]
    delays = judged(events, words)
    assert delays.word == pytest.approx([1.0, 0.3])
    assert delays.final == pytest.approx([1.0, 0.8])
    assert delays.first_word == pytest.approx([1.5, 1.0])
    assert delays.never_shown == 1


def test_a_word_that_a_split_moves_on_is_judged_in_the_next_segment():
    words = offline(("ONE", 1.0, 1.5), ("TWO", 4.6, 5.4), ("THREE", 6.0, 6.5))
    events = [
        partial(2.0, "", "one", start=0.5),
        partial(5.5, "one two", "", start=0.5),
        partial(6.2, "one two", "th", start=0.5),
        final(6.2, "one", start=0.5, end=4.5),
        partial(6.3, "two", "th", segment=1, start=4.8, end=6.2),
        partial(6.75, "two", "three", segment=1, start=4.8),
        final(7.5, "two three", segment=1, start=4.5, end=7.0),
    ]
    delays = judged(events, words)
    assert delays.word == pytest.approx([0.5, 0.1, 0.25])
    assert delays.settle == pytest.approx([4.0, 0.1, 1.0])
    assert delays.final == pytest.approx([4.7, 1.0])
    assert delays.first_word == pytest.approx([1.0])
    assert (delays.retracted, delays.final_words, delays.never_shown) == (0, 3, 0)
    assert delays.unstable == 2  # "th", in both segments


def test_a_following_segment_that_is_no_continuation_excuses_nothing():
    events = [
        partial(2.0, "one two", start=0.5),
        final(2.5, "one", start=0.5, end=2.0),
        final(5.0, "two", segment=1, start=3.0, end=4.5),
    ]
    assert judged(events).retracted == 1


def test_recordings_add_up_and_each_begins_at_nought():
    delays = Delays()
    for _ in range(2):
        delays.take([partial(1.75, "", "hello"), final(3.0, "hello")], HELLO_BIG_WORLD[:1])
    assert delays.word == pytest.approx([0.25, 0.25])
    assert delays.final_words == 2


def test_nothing_said_or_nothing_shown():
    assert judged([]).upwr == 0
    assert judged([], HELLO_BIG_WORLD).never_shown == 3
    delays = judged([Gap(0, 10, 16_000, "overflow"), SessionEnded(10, 0, 0, 10, 16_000, 0)])
    assert delays == Delays()


def test_case_is_of_no_importance():
    delays = judged([partial(2, "hELLO"), final(3, "Hello")], HELLO_BIG_WORLD[:1])
    assert (len(delays.settle), delays.unstable, delays.retracted) == (1, 0, 0)


def test_punctuation_is_of_no_importance():
    events = [partial(2, "Hello,", "big-world"), final(3, "Hello, big world.")]
    delays = judged(events, HELLO_BIG_WORLD)
    assert (len(delays.settle), delays.unstable, delays.never_shown) == (3, 0, 0)


def test_what_was_stable_before_the_final_of_a_long_segment_is_counted():
    events = [
        partial(2, "hello pig", "world"),
        partial(3, "hello pig"),
        final(9, "Hello, big world."),
    ]
    delays = judged(events)
    assert (delays.stable_early, delays.long_words) == (1, 3)
    assert delays.stable_early_share == pytest.approx(1 / 3)
    delays.take([partial(2, "short", end=2.0), final(3, "short", end=4.0)], ())
    assert delays.long_words == 3
    assert Delays().stable_early_share is None


def test_stable_words_behind_a_split_do_not_count_for_the_words_before_it():
    events = [
        partial(6, "one two", start=0.5),
        final(6.2, "one", start=0.5, end=5.5),
        final(9, "two", segment=1, start=5.5, end=8.0),
    ]
    delays = judged(events)
    assert (delays.stable_early, delays.long_words) == (1, 1)


def test_the_parts_of_a_written_word_share_its_time_by_their_letters():
    assert timed_words("Well-known,", 1.0, 2.0) == offline(
        ("WELL", 1.0, pytest.approx(1.44, abs=0.01)), ("KNOWN", pytest.approx(1.44, abs=0.01), 2.0)
    )
    assert timed_words("it's", 1.0, 2.0) == offline(("IT'S", 1.0, 2.0))
    assert timed_words("…", 1.0, 2.0) == []


def test_percentiles_are_interpolated_in_seconds():
    assert percentiles([0.1, 0.2, 0.3]) == {"p50": 0.2, "p95": 0.29}
    assert percentiles(list(np.arange(101) / 100)) == {"p50": 0.5, "p95": 0.95}
    assert percentiles([]) == {"p50": None, "p95": None}
