from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from synthetic import SEW, TOKENS, VOCABULARY, spelled

from streamer.config import Settings
from streamer.core.hypothesis import Preview
from streamer.core.writer_hypothesis import WriterHypothesis, WriterModel, WriterRules
from streamer.messages import Reading, Window, WrittenWord

RULES = WriterRules(
    chance_bias=0,
    chance_odds=1,
    chance_before=0,
    chance_behind=0,
    chance_again=0,
    show_chance=0.7,
    settle_windows=3,
    settle_chance=0.7,
    passed_words=2,
    passed_chance=0.8,
    short_letters=5,
    short_cost=1.0,
    doubtful_share=0.5,
    doubtful_cost=0.5,
    slide_after_ms=10_000,
    slide_keep_ms=3_000,
)
"""A word's chance to stay is its probability."""
SILENT = spelled([0] * 50)


def written(text: str, probability: float = 0.9) -> tuple[WrittenWord, ...]:
    """Words; `word?0.2` has a probability of its own."""
    words = []
    for number, item in enumerate(text.split()):
        word, _, own = item.partition("?")
        words.append(WrittenWord(word, (number + 3,), float(own or probability)))
    return tuple(words)


def followed(words: tuple[WrittenWord, ...], frames: int = 0) -> np.ndarray:
    """An emission that spells the words, spread over so many frames."""
    columns = [0]
    for word in words:
        letters = [TOKENS.index(letter) for letter in word.text.upper() if letter in TOKENS]
        columns += [*(letters or [2]), 1, 0]
    if frames:
        columns = [columns[at * len(columns) // frames] for at in range(frames)]
    return spelled(columns)


def window(kind: str = "preview", seconds: float = 2.0, **fields: object) -> Window:
    samples = np.zeros(round(seconds * 16_000), np.float32)
    start = int(fields.pop("start", 0))  # type: ignore[call-overload]
    known = Window(0, start, samples, 0, start + len(samples), "preview", False, False, 0)
    return replace(known, kind=kind, **fields)  # type: ignore[arg-type]


def hypothesis(**rules: float) -> WriterHypothesis:
    model = WriterModel(VOCABULARY, SEW, replace(RULES, **rules))  # type: ignore[arg-type]
    return WriterHypothesis(model, Settings())


def previews(texts: list[str], one: WriterHypothesis | None = None) -> list[tuple[str, str]]:
    """What each of some windows' words leads to, as it is shown."""
    one = one or hypothesis()
    shown = []
    for text in texts:
        words = written(text)
        shown.append(joined(one.update(window(), Reading(followed(words), words))))
    return shown


def joined(preview: Preview) -> tuple[str, str]:
    return " ".join(preview.stable), " ".join(preview.tentative)


@pytest.mark.parametrize(
    ("texts", "rules", "shown"),
    [
        (["Abba cab?0.6"], {}, "Abba"),
        (["Abba cab?0.5 bad dad"], {}, "Abba cab bad dad"),
        (["Abba cab?0.2 bad dad"], {}, "Abba"),
        (["cab?0.6"], {}, ""),
        (["cab?0.6"] * 2, {"chance_again": 1}, "cab"),
        (["cab?0.6", "bad?0.6"], {"chance_again": 1}, ""),
        (["Abba bad?0.2"], {"chance_behind": 1}, ""),
        (["bad?0.6 Abba"], {}, "bad Abba"),
        (["bad?0.6 Abba"], {"chance_before": 2}, ""),
        (["Abba"], {"chance_bias": -2}, ""),
    ],
)
def test_words_are_shown_up_to_where_most_is_gained(
    texts: list[str], rules: dict[str, float], shown: str
) -> None:
    assert previews(texts, hypothesis(**rules))[-1] == ("", shown)


def test_a_word_is_stable_once_enough_windows_have_it_whatever_its_case_and_marks() -> None:
    shown = previews(["abba cab feed", "Abba, cab feed", "Abba cab. feed bad"])
    assert shown[-1] == ("Abba cab. feed", "bad")
    assert previews(["abba?0.6 cab"] * 4)[-1] == ("", "abba cab")


def test_a_word_that_comes_out_otherwise_each_time_holds_up_those_behind_it_only_for_a_while() -> (
    None
):
    names = ["abba", "hab", "gabe", "cab", "dab"]
    shown = previews([f"{name} feed bad head dad" for name in names])
    stable = "gabe feed bad head"
    assert [text for text, _ in shown] == ["", "", stable, stable, stable]


def test_stable_words_stay_and_what_is_said_before_them_doubles_none() -> None:
    one = hypothesis()
    texts = ["abba cab feed bad"] * 3 + ["a abba cab feed bad head", "abba feed bad head dad"]
    shown = previews(texts, one)
    for (before, _), (after, _) in pairwise(shown):
        assert after.startswith(before)
    assert shown[2] == ("abba cab feed", "bad")
    assert shown[3] == ("abba cab feed bad", "head")
    assert shown[4] == ("abba cab feed bad", "head dad")
    words = written("Abba fed feed bad head dad.")
    final = one.close(window("final"), Reading(followed(words), words))
    assert (final.raw, final.retracted) == ("Abba fed feed bad head dad.", 1)


FAINT = spelled([0, 3, 0, 2, 0, 5, 0, 1, 0, 2, 0, 1, 4, 2, 3, 0], 0.3)
"""Letters of "bad a cab" that the network is not certain of."""


@pytest.mark.parametrize(
    ("emission", "text", "heard"),
    [
        (SILENT, "You", False),
        (SILENT, "What are you going to do.", False),
        (followed(written("bad cab")), "Bad cab.", True),
        (
            followed(written("bad cab")),
            "What are you going to do.",
            True,
        ),  # long: letters are enough
        (followed(written("bad")), "Bad!", True),
        (followed(written("bad")), "Gee", False),  # short: they must be these letters
        (followed(written("bad")), "1984", True),  # no letters to compare
        (FAINT, "Bad a cab.", True),  # doubtful: likewise
        (FAINT, "Feed the heads.", False),
    ],
)
def test_words_need_letters_that_the_follower_hears(
    emission: np.ndarray, text: str, heard: bool
) -> None:
    words = written(text)
    one = hypothesis(show_chance=0)
    for _ in range(2):
        shown = one.update(window(), Reading(emission, words))
    assert bool(shown.tentative) == heard
    final = one.close(window("final"), Reading(emission, words))
    assert [word.word for word in final.words] == (text.split() if heard else [])


@pytest.mark.parametrize(
    ("before", "split", "continues", "text", "opening"),
    [
        ("A cab,", False, False, "Bad cab", "Bad cab"),
        ("A cab,", False, True, "Bad cab", "bad cab"),
        ("A cab,", False, True, "I'd bake a cab", "I'd bake a cab"),
        ("A cab,", False, True, "BBC fed", "BBC fed"),
        ("A cab.", False, True, "Bad cab", "Bad cab"),
        ("A cab!", False, True, "Bad cab", "Bad cab"),
        ("A cab.", True, True, "Bad cab", "bad cab"),
        ("A cab!", True, True, "Bad cab", "Bad cab"),
    ],
)
def test_what_continues_a_sentence_opens_with_no_capital(
    before: str, split: bool, continues: bool, text: str, opening: str
) -> None:
    one, words = hypothesis(), written(before)
    cut = one.close(window("final", split=split), Reading(followed(words, 60), words))
    # The full stop of a cut utterance is the writer's way to end any window.
    assert cut.raw == (before.removesuffix(".") if split else before)
    words = written(text)
    heard = Reading(followed(words, 60), words)
    final = one.following().close(window("final", continues=continues), heard)
    assert final.raw == " ".join(word.word for word in final.words) == opening


@pytest.mark.parametrize(
    ("cut_s", "first", "second"),
    [
        (1.0, "Abba cab feed.", "bad head dad"),  # between two words
        (0.9, "Abba cab feed.", "bad head dad"),  # inside of one, more of it before
        (1.1, "Abba cab feed.", "bad head dad"),  # the other way round
        (0.7, "Abba cab", "feed. bad head dad"),
        (2.0, "Abba cab feed. bad head dad", ""),
    ],
)
def test_at_a_split_each_word_is_written_once_whatever_side_of_the_cut_most_of_it_is(
    cut_s: float, first: str, second: str
) -> None:
    one = hypothesis(short_letters=0)
    words = written("Abba cab feed. bad head dad")
    emission, cut = followed(words, 100), round(cut_s * 16_000)
    both = window("final", 2.0), Reading(emission, words)
    before = one.close(replace(both[0], split=True, speech_end=cut), both[1])
    following = one.following()
    after = following.close(replace(both[0], speech_start=cut, continues=True), both[1])
    assert (before.raw, after.raw) == (first, second)
    assert all(
        before.start <= word.start * 16_000 < word.end * 16_000 <= cut for word in before.words
    )
    assert all(cut_s <= word.start < word.end <= 2 for word in after.words)
    assert following.settled_until <= cut + 0.2 * 16_000


def test_times_lie_in_the_segment_in_order_and_none_is_empty() -> None:
    words = written("Abba 27 cab feed & bad.")
    reading = Reading(followed(words, 100), words)
    final = hypothesis().close(window("final", speech_start=8_000, speech_end=24_000), reading)
    times = [(word.start, word.end) for word in final.words]
    assert all(0.5 <= start < end <= 1.5 for start, end in times)
    assert all(before[1] <= after[0] for before, after in pairwise(times))


def test_long_windows_slide_to_a_pause_between_stable_words() -> None:
    one = hypothesis()
    words = written("abba cab feed bad head dad")
    columns = [*([0] * 20), 2, 3, 0, 3, 2, 1, *([0] * 10), 4, 2, 3, 1, *([0] * 80)]
    columns += [7, 6, 0, 6, 5, 1, 0, 3, 2, 5, 1, *([0] * 300), 9, 6, 2, 5, 1, 0, 5, 2, 5, 1]
    emission = spelled([*columns, *([0] * (550 - len(columns)))])
    for _ in range(3):
        shown = joined(one.update(window(seconds=11), Reading(emission, words)))
    assert shown == ("abba cab feed bad head", "dad")
    # The longest pause is the last one, but less than three seconds would be left behind it.
    pause = (columns.index(4), columns.index(7))
    assert pause[0] < one.settled_until / SEW.hop < pause[1]
    assert one.draft == (5, 6, 7, 8)
    rest = written("feed bad head dad cab")
    for _ in range(3):
        moved = window(seconds=3, start=one.settled_until)
        shown = joined(one.update(moved, Reading(None, rest)))
    assert shown == ("abba cab feed bad head dad", "cab")
