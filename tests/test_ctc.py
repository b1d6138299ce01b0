import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from streamer.core.ctc import (
    Calibration,
    FrameGrid,
    Vocabulary,
    certainty,
    decode,
    doubt,
    sentence_case,
)

LETTERS = "ETAONIHSRDLUMWCFGYPBVK'XJQZ"
TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS)
VOCABULARY = Vocabulary(TOKENS, blank=0, delimiter=4, special=frozenset({1, 2, 3}))
SEW = FrameGrid(hop=320, receptive=400, stride=640)
WAV2VEC2 = FrameGrid(hop=320, receptive=400, stride=320)


def emission(path, peak=0.9):
    """Log-probabilities whose most probable path is `path`: letters, `_` for blank."""
    ids = [0 if token == "_" else TOKENS.index(token) for token in path]
    probabilities = np.full((len(ids), len(TOKENS)), (1 - peak) / (len(TOKENS) - 1))
    probabilities[np.arange(len(ids)), ids] = peak
    return np.log(probabilities).astype(np.float32)


def texts(path):
    return [word.text for word in decode(emission(path), VOCABULARY)]


@pytest.mark.parametrize(
    ("samples", "frames"),
    [(0, 0), (399, 0), (400, 0), (719, 0), (720, 2), (1359, 2), (1360, 4), (16_080, 50)],
)
def test_a_squeezed_grid_counts_frames_in_pairs(samples, frames):
    assert SEW.frames(samples) == frames


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (399, 0), (400, 1), (719, 1), (720, 2), (16_000, 49)]
)
def test_a_plain_grid_counts_single_frames(samples, frames):
    assert WAV2VEC2.frames(samples) == frames


@given(st.integers(0, 10**6), st.sampled_from([SEW, WAV2VEC2]))
def test_fit_is_the_shortest_length_without_a_partial_frame(samples, grid):
    fit = grid.fit(samples)
    assert fit >= samples
    assert (fit - (grid.receptive - grid.hop)) % grid.stride == 0
    assert grid.frames(fit) * grid.hop + grid.receptive - grid.hop == fit
    assert grid.fit(fit) == fit
    shorter = fit - grid.stride
    assert shorter < samples or grid.frames(shorter) == 0


@pytest.mark.parametrize("samples", [720, 1_360, 1_500, 4_000, 16_000, 16_080, 33_333])
def test_the_grid_is_the_models_own(recognizer, samples):
    assert recognizer.grid == SEW
    signal = np.random.default_rng(0).standard_normal(samples).astype(np.float32)
    assert recognizer.log_probs(signal).shape == (SEW.frames(samples), len(TOKENS))


def test_frames_of_a_fitting_window_are_all_real(recognizer):
    """A squeezed model fills an odd number up with a frame that has seen nothing."""
    signal = np.random.default_rng(0).standard_normal(SEW.fit(16_000)).astype(np.float32)
    log_probs = recognizer.log_probs(signal)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, atol=1e-4)
    assert len(np.unique(log_probs, axis=0)) == len(log_probs)


def test_runs_collapse_and_blanks_part_double_letters():
    assert texts("__HHE_LL_LOO_|_II_") == ["HELLO", "I"]


def test_delimiters_give_no_empty_words():
    assert texts("|__||A|_|") == ["A"]
    assert texts("||_||") == texts("") == texts("___") == []


def test_words_know_their_frames_and_whether_they_are_closed():
    first, second = decode(emission("_HI__|__YOU__"), VOCABULARY)
    assert (first.start, first.end, first.closed) == (1, 3, 6)
    assert (second.start, second.end, second.closed) == (8, 11, None)


def test_confidence_is_the_geometric_mean_of_the_letters():
    log_probs = np.concatenate((emission("A", 0.9), emission("B", 0.4), emission("|", 0.3)))
    (word,) = decode(log_probs, VOCABULARY)
    assert word.confidence == pytest.approx((0.9 * 0.4) ** 0.5, abs=1e-5)


def test_a_run_counts_with_its_most_certain_frame():
    log_probs = np.concatenate((emission("A", 0.4), emission("A", 0.8), emission("A", 0.5)))
    (word,) = decode(log_probs, VOCABULARY)
    assert word.confidence == pytest.approx(0.8, abs=1e-5)


def test_doubt_is_the_mean_of_that_about_a_words_letters():
    log_probs = np.concatenate((emission("A", 0.9), emission("B", 0.4), emission("|", 0.3)))
    (word,) = decode(log_probs, VOCABULARY)
    assert doubt(word) == pytest.approx(-np.log(0.9 * 0.4) / 2, abs=1e-5)


def test_a_calibrated_chance_falls_with_doubt():
    calibration = Calibration(bias=2.0, slope=3.0)
    chances = []
    for path, peak in (("CAT", 0.9999), ("CAT", 0.9), ("CAT", 0.6), ("CAT", 0.3)):
        (word,) = decode(emission(path, peak), VOCABULARY)
        chances.append(calibration(word))
    assert chances == sorted(chances, reverse=True)
    assert len(set(chances)) == 4
    assert chances[0] == pytest.approx(1 / (1 + np.exp(-2.0)), abs=0.01)
    assert 0 < chances[-1] < 0.3


def test_no_curve_however_steep_leaves_0_to_1():
    (word,) = decode(emission("CAT", 0.1), VOCABULARY)
    assert Calibration(0.0, 1e9)(word) == 0
    assert Calibration(1e9, 0.0)(word) == 1


def test_special_tokens_are_never_shown():
    path = [0, 1, TOKENS.index("A"), 3, TOKENS.index("B"), 2, 4]
    log_probs = np.log(np.eye(len(TOKENS), dtype=np.float32)[path] * 0.9 + 1e-3)
    assert [word.text for word in decode(log_probs, VOCABULARY)] == ["AB"]


def test_without_a_delimiter_everything_is_one_open_word():
    vocabulary = Vocabulary(TOKENS, blank=0, delimiter=None, special=frozenset({1, 2, 3, 4}))
    (word,) = decode(emission("AB|C"), vocabulary)
    assert (word.text, word.closed) == ("ABC", None)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(TOKENS)}))
    return transformers.Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))


@settings(max_examples=200, deadline=None)
@given(path=st.lists(st.sampled_from([0, 0, 4, *range(4, 12)]), max_size=60))
def test_decodes_as_the_reference_tokenizer_does(tokenizer, path):
    log_probs = np.log(np.eye(len(TOKENS), dtype=np.float32)[path] * 0.9 + 1e-3)
    words = decode(log_probs.reshape(-1, len(TOKENS)), VOCABULARY)
    assert [word.text for word in words] == tokenizer.decode(path).split()


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(0, 30), st.just(32)),
        elements=st.floats(-60, 60, width=32),
    )
)
def test_certainty_is_a_share(logits):
    log_probs = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    assert 0 <= certainty(log_probs, VOCABULARY) <= 1
    for word in decode(log_probs, VOCABULARY):
        assert 0 <= word.confidence <= 1 + 1e-6


def test_clear_letters_are_certain_and_thinly_spread_ones_are_not():
    assert certainty(emission("_HI_|", 0.999), VOCABULARY) > 0.6
    assert certainty(emission("_A_________________", 0.5), VOCABULARY) < 0.1
    assert certainty(emission("____"), VOCABULARY) == 0
    assert certainty(emission(""), VOCABULARY) == 0


@pytest.mark.parametrize(
    ("words", "spelled"),
    [
        ("AND I SAID I'M HERE", "And I said I'm here"),
        ("i will if i'll", "I will if I'll"),
        ("IT IS IN INDIA", "It is in india"),
        ("'TIS", "'tis"),
        ("", ""),
    ],
)
def test_sentence_case(words, spelled):
    assert " ".join(sentence_case(words.split())) == spelled


def test_a_continued_sentence_begins_small():
    assert sentence_case(["WORDS", "I", "SAY"], opening=False) == ["words", "I", "say"]


@pytest.mark.parametrize(
    ("letters", "mixed"), [("ABC'", False), ("abc'", False), ("abCD", True), ("あ我", False)]
)
def test_a_vocabulary_knows_whether_it_writes_both_cases(letters, mixed):
    tokens = ("<pad>", "<unk>", "|", *letters)
    assert Vocabulary(tokens, 0, 2, frozenset({1})).mixed_case is mixed
