import hashlib
import json
from dataclasses import asdict, replace
from functools import partial

import numpy as np
import pytest
import transformers
from conftest import model_error, write_json

from streamer.core.ctc import Calibration, Vocabulary, decode
from streamer.recognition.checkpoint_files import (
    BEAM_RULES,
    CALIBRATION,
    LIVE_RULES,
    SEW_TINY_LETTERS,
    WRITER_RULES,
    read_beam_rules,
    read_calibration,
    read_live_rules,
    read_normalization,
    read_vocabulary,
    read_writer_rules,
    write_small_files,
)
from streamer.recognition.checkpoints import resolve
from streamer.recognition.moonshine_files import MOONSHINE_RULES, installed_folder

EMBEDDED = resolve("embedded-sew").folder


LETTERS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "E": 5, "T": 6, "A": 7, "'": 8}
LOWER = {"|": 0, "e": 1, "t": 2, "a": 3, "[UNK]": 4, "[PAD]": 5}
VOCABULARIES = {
    "plain": ({"vocab.json": LETTERS}, 9),
    "lower case, own special tokens": (
        {
            "vocab.json": LOWER,
            "tokenizer_config.json": {
                "unk_token": "[UNK]",
                "pad_token": "[PAD]",
                "bos_token": None,
                "eos_token": None,
            },
        },
        6,
    ),
    "special tokens added behind the letters": (
        {
            "vocab.json": LOWER,
            "tokenizer_config.json": {"unk_token": "[UNK]", "pad_token": "[PAD]"},
            "added_tokens.json": {"<s>": 6, "</s>": 7},
        },
        8,
    ),
    "special tokens that only the tokenizer knows": (
        {"vocab.json": {"|": 0, "e": 1, "t": 2}},
        7,
    ),
    "special tokens as objects": (
        {
            "vocab.json": LETTERS,
            "tokenizer_config.json": {
                "pad_token": {"content": "<pad>", "__type": "AddedToken"},
                "added_tokens_decoder": {"0": {"content": "<pad>", "special": True}},
            },
        },
        9,
    ),
    "added tokens without an output": (
        {"vocab.json": LETTERS, "added_tokens.json": {"<extra>": 9}},
        9,
    ),
    "shown in lower case": (
        {"vocab.json": LETTERS, "tokenizer_config.json": {"do_lower_case": True}},
        9,
    ),
    "one of several languages": (
        {
            "vocab.json": {"eng": LETTERS, "deu": {"<pad>": 0}},
            "tokenizer_config.json": {"target_lang": "eng"},
        },
        9,
    ),
}


@pytest.mark.parametrize("case", VOCABULARIES)
def test_words_are_those_that_transformers_decodes(case, tmp_path):
    files, rows = VOCABULARIES[case]
    for name, content in files.items():
        write_json(tmp_path, name, content)
    vocabulary = read_vocabulary(tmp_path, rows)
    tokenizer = transformers.Wav2Vec2CTCTokenizer.from_pretrained(tmp_path)
    assert len(vocabulary.tokens) == rows
    assert vocabulary.blank == tokenizer.pad_token_id
    shown = [number for number in range(rows) if number not in vocabulary.special]
    shown.append(vocabulary.blank)
    rng = np.random.default_rng(0)
    for _ in range(50):
        path = rng.choice(shown, 30)
        log_probs = np.log(np.eye(rows, dtype=np.float32)[path] + 1e-9)
        words = [word.text for word in decode(log_probs, vocabulary)]
        assert words == tokenizer.decode(path).split()


def test_another_word_delimiter_parts_words(tmp_path):
    write_json(tmp_path, "vocab.json", {**LETTERS, "_": 9})
    write_json(tmp_path, "tokenizer_config.json", {"word_delimiter_token": "_"})
    vocabulary = read_vocabulary(tmp_path, 10)
    # Not from_pretrained: transformers 5.23 ignores this line of tokenizer_config.json there.
    tokenizer = transformers.Wav2Vec2CTCTokenizer(tmp_path / "vocab.json", word_delimiter_token="_")
    path = [5, 4, 6, 9, 7]
    log_probs = np.log(np.eye(10, dtype=np.float32)[path] + 1e-9)
    assert [word.text for word in decode(log_probs, vocabulary)] == ["E|T", "A"]
    assert tokenizer.decode(path) == "E|T A"


def test_special_tokens_are_never_shown():
    assert read_vocabulary(EMBEDDED, 32) == Vocabulary(
        tokens=("<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"),
        blank=0,
        delimiter=4,
        special=frozenset({0, 1, 2, 3}),
    )


def test_a_model_without_word_delimiter_has_none(tmp_path):
    write_json(tmp_path, "vocab.json", {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "a": 4})
    assert read_vocabulary(tmp_path, 5).delimiter is None
    write_json(tmp_path, "tokenizer_config.json", {"word_delimiter_token": None})
    assert read_vocabulary(tmp_path, 5).delimiter is None


def test_vocabularies_that_do_not_fit_are_refused(tmp_path):
    assert "no vocab.json" in model_error(read_vocabulary, tmp_path, 9)
    write_json(tmp_path, "vocab.json", LETTERS)
    assert "9 tokens, but the model 8 outputs" in model_error(read_vocabulary, tmp_path, 8)
    assert "9 tokens, but the model 12 outputs" in model_error(read_vocabulary, tmp_path, 12)
    write_json(tmp_path, "tokenizer_config.json", {"pad_token": None})
    assert "no output for the CTC blank" in model_error(read_vocabulary, tmp_path, 9)
    write_json(tmp_path, "vocab.json", {"a": "b"})
    assert "not a table of tokens" in model_error(read_vocabulary, tmp_path, 1)
    (tmp_path / "vocab.json").write_text("[1, 2")
    assert "not a readable JSON file" in model_error(read_vocabulary, tmp_path, 9)
    (tmp_path / "vocab.json").write_bytes(b"\xff\xfe\x00")
    assert "not a readable JSON file" in model_error(read_vocabulary, tmp_path, 9)
    write_json(tmp_path, "vocab.json", [1, 2])
    assert "not a JSON object" in model_error(read_vocabulary, tmp_path, 9)


def test_normalization_is_read_from_either_file(tmp_path):
    assert read_normalization(tmp_path) is True
    write_json(tmp_path, "processor_config.json", {"feature_extractor": {"do_normalize": False}})
    assert read_normalization(tmp_path) is False
    write_json(
        tmp_path, "preprocessor_config.json", {"do_normalize": True, "sampling_rate": 16_000}
    )
    assert read_normalization(tmp_path) is True
    write_json(tmp_path, "preprocessor_config.json", {"sampling_rate": 44_100})
    assert "hears 44100 samples a second" in model_error(read_normalization, tmp_path)


def test_the_embedded_models_calibration_is_of_its_weights():
    """Otherwise: python -m training.calibrate embedded-sew."""
    table = json.loads((EMBEDDED / CALIBRATION).read_text())
    weights = (EMBEDDED / "model.safetensors").read_bytes()
    assert table["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    for with_lm, fitted in ((False, table["greedy"]), (True, table["lm"])):
        expected = Calibration(fitted["bias"], fitted["slope"])
        assert read_calibration(EMBEDDED, with_lm=with_lm) == expected
        assert fitted["slope"] > 0


def test_a_model_without_a_calibration_has_none(tmp_path):
    assert read_calibration(tmp_path, with_lm=False) is None


def test_a_calibration_is_of_one_way_of_reading(tmp_path):
    write_json(tmp_path, CALIBRATION, {"greedy": {"bias": 1, "slope": 2}})
    assert read_calibration(tmp_path, with_lm=False) == Calibration(1, 2)
    assert read_calibration(tmp_path, with_lm=True) is None


def test_a_damaged_calibration_is_refused(tmp_path):
    read = partial(read_calibration, with_lm=False)
    for content in (3, {"bias": 1.0}, {"bias": "x", "slope": 1}, {"bias": None, "slope": 1}):
        write_json(tmp_path, CALIBRATION, {"greedy": content})
        assert "no bias and slope; delete" in model_error(read, tmp_path)
    write_json(tmp_path, CALIBRATION, {"greedy": {"bias": float("nan"), "slope": 1}})
    assert "is no number" in model_error(read, tmp_path)


@pytest.mark.parametrize(
    ("read", "file", "change"),
    [
        (read_live_rules, LIVE_RULES, {"show_chance": 0.5, "settle_frames": 12}),
        (read_beam_rules, BEAM_RULES, {"model_weight": 0.5, "width": 12}),
        (read_writer_rules, WRITER_RULES, {"show_chance": 0.6, "settle_windows": 12}),
    ],
)
def test_a_model_without_rules_has_the_embedded_ones_and_damaged_ones_are_refused(
    tmp_path, read, file, change
):
    embedded = read(EMBEDDED)
    assert read(tmp_path) == embedded
    if file == WRITER_RULES:  # those of Moonshine tiny, which are stricter
        fitted = read(installed_folder())
        assert fitted.show_chance > embedded.show_chance == 0.5
        assert replace(fitted, show_chance=0.5) == embedded
        embedded, file_of = fitted, EMBEDDED / MOONSHINE_RULES
    else:
        file_of = EMBEDDED / file
    assert json.loads(file_of.read_text()) == asdict(embedded)
    own = replace(embedded, **change)
    write_json(tmp_path, file, asdict(own))
    assert read(tmp_path) == own
    real, whole = change
    for content in ([], {}, asdict(own) | {whole: None}, asdict(own) | {real: "much"}):
        write_json(tmp_path, file, content)
        assert file in model_error(read, tmp_path)
    for bad in (float("nan"), float("inf")):
        for field in (real, whole):
            write_json(tmp_path, file, {**asdict(own), field: bad})
            assert "delete the file" in model_error(read, tmp_path)


def test_what_is_written_for_a_new_model_is_sew_tinys(tmp_path):
    write_small_files(tmp_path)
    assert read_vocabulary(tmp_path, 32) == SEW_TINY_LETTERS
    assert read_normalization(tmp_path) is True
    processor = transformers.Wav2Vec2Processor.from_pretrained(tmp_path)
    assert processor.tokenizer.decode([11, 5, 15, 0, 15, 8, 4]) == "HELLO"
