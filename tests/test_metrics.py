import pytest

from streamer.evaluation.metrics import error_rates


def test_errors_are_counted_over_all_texts_not_averaged():
    rates = error_rates(["A B C D", "E"], ["A X C D", "E"])
    assert rates.wer == pytest.approx(1 / 5)
    assert rates.words == 5


def test_words_and_letters_are_both_counted():
    rates = error_rates(["HELLO WORLD"], ["HELO WORLD"])
    assert rates.wer == pytest.approx(1 / 2)
    assert rates.cer == pytest.approx(1 / 11)


def test_nothing_heard_is_every_word_wrong():
    assert error_rates(["HELLO WORLD"], [""]).wer == 1


def test_more_written_than_said_is_above_one():
    assert error_rates(["HELLO"], ["HE LL O O"]).wer == 4
