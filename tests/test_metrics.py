import pytest

from streamer.evaluation.metrics import error_rates, scored


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


def test_words_where_nothing_was_said_are_errors():
    assert error_rates(["", "HELLO WORLD"], ["OH", "HELLO WORLD"]).wer == pytest.approx(1 / 2)
    assert error_rates([""], [""]).wer == 0
    assert error_rates([""], ["OH NO"]).wer > 0


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("Hello,  world!", "HELLO WORLD"),
        ("He said: \u201cIt\u2019s well-known\u201d\u2026", "HE SAID IT'S WELL KNOWN"),
        ("don\u00b4t don`t don\u02bct don\uff07t", "DON'T DON'T DON'T DON'T"),
        ("so [noise] I <unk> went", "SO I WENT"),
        ("[laughter]", ""),
        ("", ""),
        ("  \t\n ", ""),
        ("caf\u00e9 stra\u00dfe cafe\u0301", "CAF\u00c9 STRASSE CAF\u00c9"),
        ("snake_case 42 \ufb01ne", "SNAKE CASE 42 FINE"),
        ("a [b c", "A B C"),
    ],
)
def test_only_words_are_compared(written, compared):
    assert scored(written) == compared
    assert scored(compared) == compared
