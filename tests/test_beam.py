"""The beam search and what it stands on: alignment and hotwords."""

from __future__ import annotations

import itertools
import math
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.core.alignment import align
from streamer.core.beam import BeamDecoder
from streamer.core.ctc import Vocabulary, decode, read_path
from streamer.core.hotwords import Hotwords
from streamer.core.ngram import NGram
from streamer.recognition.checkpoint_files import EMBEDDED_FOLDER, read_beam_rules

TOKENS = ("<pad>", "<s>", "|", *"ABCDEHINORTW")
VOCABULARY = Vocabulary(TOKENS, blank=0, delimiter=2, special=frozenset({0, 1}))
DELIMITER = VOCABULARY.delimiter
RULES = read_beam_rules(EMBEDDED_FOLDER)


def emission(*frames: str | dict[str, float], sure: float = 0.99) -> np.ndarray:
    """Frames as their probable token (`_` is the blank) or as the probabilities of some."""
    rows = []
    for frame in itertools.chain.from_iterable(f if isinstance(f, str) else [f] for f in frames):
        likely = {frame: sure} if isinstance(frame, str) else frame
        row = np.full(len(TOKENS), (1 - sum(likely.values())) / (len(TOKENS) - len(likely)))
        for token, probability in likely.items():
            row[TOKENS.index({"_": "<pad>"}.get(token, token))] = probability
        rows.append(np.log(row))
    return np.array(rows, np.float32)


def ids(text: str) -> list[int]:
    return [TOKENS.index({" ": "|"}.get(letter, letter)) for letter in text]


def hotwords(*phrases: str) -> Hotwords:
    return Hotwords(map(ids, phrases), DELIMITER)


def model(**words: float) -> NGram:
    """Unigrams."""
    table = {"<unk>": 1e-4, **words}
    return NGram({word: math.log(p) for word, p in table.items()}, {}, 1)


def decoder(*language: NGram | Hotwords | None, of: Vocabulary = VOCABULARY, **rules: float):
    return BeamDecoder(of, *language, rules=replace(RULES, **rules))


def text(reader: BeamDecoder, log_probs: np.ndarray) -> str:
    return " ".join(word.text for word in reader(log_probs))


@pytest.mark.parametrize(
    "path", ["_HH_I__|__DDAAN_|_", "ABBA", "AB_BA|", "||A|_|B", "__", "|", "_", "AAAA"]
)
@pytest.mark.parametrize("lm", [None, model(HI=0.1, DAN=0.1, ABA=0.1)])
def test_a_sure_emission_is_read_as_greedily(path, lm):
    log_probs = emission(path, sure=0.999999)
    read = decoder(lm, hotwords("DAN"), unknown_cost=1.0)(log_probs)
    assert read == decode(log_probs, VOCABULARY)


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 9]))
def test_the_most_probable_path_is_that_of_its_own_text(frames, seed, scale):
    logits = scale * np.random.default_rng(seed).standard_normal((frames, len(TOKENS)))
    log_probs = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    words = decode(log_probs, VOCABULARY)
    path = align(ids(" ".join(word.text for word in words)), log_probs, VOCABULARY)
    assert read_path(path, log_probs, VOCABULARY) == words


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1))
def test_the_best_text_has_the_most_probable_paths_together(seed):
    """Against all paths of a short emission, added up by their text."""
    vocabulary = Vocabulary(("<pad>", "|", "A", "B"), 0, 1, frozenset())
    logits = np.random.default_rng(seed).standard_normal((5, 4))
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    sums: dict[str, float] = {}
    for path in itertools.product(range(4), repeat=5):
        words = read_path(np.array(path), log_probs, vocabulary)
        spelled = " ".join(word.text for word in words)
        probability = math.exp(log_probs[np.arange(5), path].sum())
        sums[spelled] = sums.get(spelled, 0.0) + probability
    read = " ".join(word.text for word in decoder(of=vocabulary)(log_probs))
    assert sums[read] > 0.999 * max(sums.values())


def test_words_that_are_aligned_have_exact_frames_and_the_letters_own_probability():
    log_probs = emission("__", {"B": 0.6, "D": 0.3}, "AA_NN__|__HI")
    first, second = decoder(model(DAN=0.5, HI=0.1))(log_probs)
    assert (first.text, first.start, first.end, first.closed) == ("DAN", 2, 8, 11)
    assert first.confidence == pytest.approx((0.3 * 0.99 * 0.99) ** (1 / 3), rel=1e-4)
    assert (second.text, second.start, second.end, second.closed) == ("HI", 13, 15, None)


def test_a_language_model_decides_what_is_heard_badly():
    log_probs = emission("H", {"A": 0.5, "I": 0.4}, "T|")
    assert text(decoder(), log_probs) == "HAT"
    assert text(decoder(model(HIT=0.2, HAT=0.001)), log_probs) == "HIT"


def test_the_word_before_decides_too():
    words = {"RED": 0.01, "A": 0.01, "HAT": 0.01, "HIT": 0.01, "A HIT": 0.5, "RED HAT": 0.5}
    lm = NGram({gram: math.log(p) for gram, p in words.items()}, {"A": -1.0, "RED": -1.0}, order=2)
    either = {"A": 0.45, "I": 0.45}
    reader = decoder(lm, word_bonus=0.0)
    assert text(reader, emission("A|H", either, "T")) == "A HIT"
    assert text(reader, emission("RED|H", either, "T")) == "RED HAT"


def test_a_word_that_the_model_does_not_know_is_still_written_where_it_is_clear():
    log_probs = emission("_WWII_TTO__|_AN_D|", sure=0.999999)
    assert text(decoder(model(AND=0.1, WITH=0.1)), log_probs) == "WITO AND"


def test_a_hotword_is_preferred_where_it_may_have_been_said():
    log_probs = emission("D", {"E": 0.6, "A": 0.3}, {"R": 0.5, "N": 0.4}, "|AT")
    assert text(decoder(), log_probs) == "DER AT"
    assert text(decoder(None, hotwords("DAN")), log_probs) == "DAN AT"
    # It begins and ends with a word.
    assert text(decoder(None, hotwords("DA")), log_probs) == "DER AT"
    assert text(decoder(None, hotwords("AN")), log_probs) == "DER AT"


def test_a_phrase_counts_as_a_whole():
    log_probs = emission("WITH|D", {"E": 0.8, "A": 0.1}, "N")
    assert text(decoder(None, hotwords("DAN"), hotword_bonus=0.5), log_probs) == ("WITH DEN")
    assert text(decoder(None, hotwords("WITH DAN"), hotword_bonus=0.5), log_probs) == ("WITH DAN")
    assert text(decoder(None, hotwords("AND WITH DAN"), hotword_bonus=0.5), log_probs) == (
        "WITH DEN"
    )


def test_a_phrase_goes_on_from_the_words_before():
    log_probs = emission("D", {"E": 0.8, "A": 0.1}, "N")
    reader = decoder(None, hotwords("WITH DAN"), hotword_bonus=0.5)
    assert [word.text for word in reader(log_probs, ["AND", "WITH"])] == ["DAN"]
    assert [word.text for word in reader(log_probs, ["WITH", "AND"])] == ["DEN"]
    assert [word.text for word in reader(log_probs, ["WITH", "Ø"])] == ["DEN"]


def test_many_phrases_that_end_at_once_do_not_overflow():
    words = ["AND", "WITH", "DAN"] * 40
    nested = hotwords(*(" ".join(words[-count:]) for count in range(1, len(words))))
    path = "|".join("AND" if w == "AND" else "_".join(w) for w in words)
    assert text(decoder(None, nested), emission(path)) == " ".join(words)


def test_a_hotword_is_no_unknown_word_to_a_model():
    log_probs = emission("D", {"A": 0.5, "I": 0.45}, "N")
    lm = model(DIN=0.001)
    assert text(decoder(lm), log_probs) == "DIN"
    assert text(decoder(lm, hotwords("DAN")), log_probs) == "DAN"


def test_what_was_lent_for_letters_is_taken_back_where_no_hotword_came_of_it():
    automaton = hotwords("DAN", "DAN ODER", "AND")
    state, paid = 0, 0
    for token in ids("DAN OD "):
        state, completed = automaton.step(state, token)
        paid += completed
    assert paid == 3
    assert automaton.lent[state] == 0
    for token in ids("DAN ODER"):
        state, completed = automaton.step(state, token)
        paid += completed
    assert (paid, automaton.lent[state]) == (6, 7)
    assert automaton.step(state, DELIMITER)[1] == 7


def test_threads_may_share_hotwords():
    words = ["".join(letters) for letters in itertools.product("ABCD", repeat=4)]
    phrases = [f"{first} {second}" for first, second in itertools.pairwise(words)]
    text = ids(" ".join(words))

    def walk(automaton: Hotwords) -> list[tuple[int, int]]:
        state, seen = 0, []
        for token in text:
            state, completed = automaton.step(state, token)
            seen.append((automaton.lent[state], completed))
        return seen

    expected = walk(hotwords(*phrases))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            shared = hotwords(*phrases)
            with ThreadPoolExecutor(8) as pool:
                walks = [pool.submit(walk, shared) for _ in range(8)]
            assert all(one.result() == expected for one in walks)
    finally:
        sys.setswitchinterval(before)


def test_a_minute_of_doubt_does_not_underflow():
    rows = np.log(np.full((3_000, len(TOKENS)), 1 / len(TOKENS), np.float32))
    assert decoder(model(AND=0.1), hotwords("DAN"), hotword_bonus=1.0, width=4)(rows)


def test_an_emission_without_frames_has_no_words():
    assert decoder()(np.zeros((0, len(TOKENS)), np.float32)) == []
