import numpy as np
import pytest

from streamer.evaluation.calibration import BINS, Confidence, are_right, calibration_error
from streamer.messages import Word


def said(*pairs):
    return [Word(text, 0.0, 1.0, confidence) for text, confidence in pairs]


def test_a_word_is_right_where_the_reference_has_it_at_its_place():
    the, fat, cat, mat = "THE", "FAT", "CAT", "MAT"
    assert are_right([the, fat, cat, the, mat], [the, cat, mat]) == [True, True, True]
    assert are_right([the, fat, mat], [the, cat, mat]) == [True, False, True]
    assert are_right([mat], [the, mat]) == [False, True]
    assert are_right([], ["OH"]) == [False]
    assert are_right(["OH"], []) == []


def test_confidence_that_is_the_chance_to_be_right_has_no_error():
    claimed = np.repeat([0.2, 0.5, 1.0], 100)
    right = [number % 100 < 100 * chance for number, chance in enumerate(claimed)]
    order = np.random.default_rng(0).permutation(300)
    error = calibration_error(claimed[order], np.array(right)[order])
    assert error == pytest.approx(0, abs=0.05)


def test_the_error_is_how_far_off_confidence_is_on_average():
    assert calibration_error([0.9] * 40, [True, False] * 20) == pytest.approx(0.4)
    assert calibration_error([1.0, 1.0], [False, False]) == 1
    assert calibration_error([0.0] * 5, [True] * 5) == 1


def test_too_much_here_does_not_make_up_for_too_little_there():
    claimed = [0.1] * 50 + [0.9] * 50
    assert calibration_error(claimed, [True, False] * 50) == pytest.approx(0.4)


def test_parts_are_of_equal_number_however_confidence_is_spread():
    rng = np.random.default_rng(0)
    claimed = 1 - rng.random(5_000) ** 4 * 0.1
    right = rng.random(5_000) < claimed - 0.3
    assert calibration_error(claimed, right) == pytest.approx(0.3, abs=0.03)
    assert BINS == 10


def test_words_are_compared_as_they_are_scored():
    confidence = Confidence()
    confidence.take("WELL KNOWN IT'S", said(("Well-known,", 0.8), ("its", 0.4), ("…", 0.9)))
    confidence.take("OH", said(("Oh!", 1.0)))
    assert confidence.claimed == [0.8, 0.8, 0.4, 1.0]
    assert confidence.right == [True, True, False, True]
    figures = confidence.figures()
    assert figures["mean_confidence"] == pytest.approx(0.75)
    assert figures["words_right"] == pytest.approx(0.75)
    assert figures["calibration_error"] == pytest.approx((0.4 + 0.2 + 0.2 + 0.0) / 4)


def test_of_no_words_there_are_no_figures():
    assert set(Confidence().figures().values()) == {None}
