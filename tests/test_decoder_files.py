"""Hotwords and language models: their files, what is said of bad ones, and what they do."""

from __future__ import annotations

import copy
import gzip
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, word_errors, words

from streamer.cli import DEMO
from streamer.config import NO_LM, Settings
from streamer.core.ctc import Calibration, GreedyDecoder, Vocabulary, decode
from streamer.errors import SettingsError, StreamerWarning
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Final, Partial
from streamer.recognition import load_recognizer, resolve
from streamer.recognition.checkpoint_files import CALIBRATION, LANGUAGE_MODEL
from streamer.recognition.checkpoint_files import SEW_TINY_LETTERS as LETTERS
from streamer.recognition.decoder_files import load_decoder, read_arpa, read_hotwords
from streamer.sources.files import read_audio
from streamer.transcripts import transcribe
from training.ngram import Model

EMBEDDED = resolve("embedded-sew").folder
ARPA = """\
made by hand

\\data\\
ngram 1=5
ngram 2=3
ngram 3=1

\\1-grams:
-2.0\t<unk>
-99\t<s>\t-0.3
-1.0\tthe\t-0.2
-1.5\tred\t-0.4
-0.5\t</s>

\\2-grams:
-0.1\t<s> the\t-0.6
-0.7\tthe red\t-0.5
-0.9\tred red

\\3-grams:
-0.05\t<s> the red

\\end\\
"""


@pytest.fixture
def arpa(tmp_path: Path) -> Path:
    path = tmp_path / "words.arpa"
    path.write_text(ARPA)
    return path


@pytest.mark.parametrize(
    ("context", "word", "logs"),
    [
        ("<s>", "THE", [-0.1]),  # the bigram is there
        ("<s> THE", "RED", [-0.05]),  # the trigram is there
        ("<s> THE", "THE", [-0.6, -0.2, -1.0]),  # back to the word alone
        ("THE RED", "RED", [-0.5, -0.9]),  # back to the bigram
        ("RED RED", "THE", [-0.4, -1.0]),  # a context without a backoff of its own
        ("THE RED", "BLUE", [-0.5, -0.4, -2.0]),  # unknown
        ("", "RED", [-1.5]),
    ],
)
def test_probabilities_are_backed_off_as_the_format_says(arpa, context, word, logs):
    score, _ = read_arpa(arpa, LETTERS).score(context, word)
    assert score == pytest.approx(sum(logs) * math.log(10))


def test_a_context_is_what_the_next_word_can_depend_on(arpa):
    model = read_arpa(arpa, LETTERS)
    assert model.start == "<s>"
    _, context = model.score("<s>", "THE")
    assert context == "<s> THE"
    _, context = model.score(context, "RED")
    assert context == "THE RED"
    _, context = model.score(context, "BLUE")
    assert model.score(context, "THE")[0] == pytest.approx(-1.0 * math.log(10))


def test_the_words_ahead_of_a_beginning_are_known_by_their_best(arpa):
    model = read_arpa(arpa, LETTERS)
    assert model.ahead("R") == model.ahead("RED") == pytest.approx(-1.5 * math.log(10))
    assert model.ahead("REDS") is None
    assert model.ahead("<s>") is None
    assert "RED" in model
    assert "REDS" not in model


def test_a_gzipped_model_is_the_same(arpa, tmp_path):
    zipped = tmp_path / "words.arpa.gz"
    zipped.write_bytes(gzip.compress(ARPA.encode()))
    context = "<s> THE"
    plain = read_arpa(arpa, LETTERS).score(context, "RED")
    assert read_arpa(zipped, LETTERS).score(context, "RED") == plain


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; lm must name one"),
        (b"", "no complete ARPA file"),
        (b"just a text\n", "no complete ARPA file"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (ARPA.partition("\\3-grams")[0].encode(), "no complete ARPA file"),
        (ARPA.replace("-0.9\tred red", "red red -0.9").encode(), ":18: no line of an ARPA file"),
        (ARPA.replace("\tred red", "\tred").encode(), ":18: no line of an ARPA file"),
        (ARPA.replace("-0.9\tred red", "23135851162\tred red").encode(), ":18: no line of an ARPA"),
        (ARPA.replace("-0.9\tred red", "-inf\tred red").encode(), ":18: no line of an ARPA file"),
        (ARPA.replace("-0.9\tred red", "nan\tred red").encode(), ":18: no line of an ARPA file"),
        (ARPA.replace("ngram 1=5", "ngram one").encode(), ":4: no line of an ARPA file"),
        (ARPA.replace("the", "τὸ").replace("red", "ἐρυθρόν").encode(), "in the letters of the mo"),
    ],
)
def test_a_file_that_is_no_language_model_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "words.arpa"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_arpa(path, LETTERS)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_cut_gzipped_model_and_a_folder_are_one_clear_line(tmp_path):
    zipped = tmp_path / "words.arpa.gz"
    zipped.write_bytes(gzip.compress(ARPA.encode())[:60])
    for path in (zipped, tmp_path):
        with pytest.raises(SettingsError, match=r"cannot be read .*; check lm"):
            read_arpa(path, LETTERS)


def spelled(hotwords, text: str) -> int:
    """Letters of hotwords that a text completes."""
    state = paid = 0
    for letter in f"{text} ":
        token = 4 if letter == " " else LETTERS.tokens.index(letter)
        state, completed = hotwords.step(state, token)
        paid += completed
    return paid


def test_hotwords_stand_one_a_line_in_any_case(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("\ufeffNazarene\n\n# places\n  new  York \nO’Brien\n", encoding="utf-8")
    hotwords = read_hotwords(path, LETTERS)
    assert spelled(hotwords, "A NAZARENE IN NEW YORK") == 8 + 7
    assert spelled(hotwords, "O'BRIEN") == 7
    assert spelled(hotwords, "NAZARENES NEW YORKER PLACES") == 0


def test_hotwords_take_the_case_of_the_letters(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Ada")
    small = Vocabulary(("<pad>", "|", "a", "d"), 0, 1, frozenset())
    mixed = Vocabulary(("<pad>", "|", "A", "a", "d"), 0, 1, frozenset())
    for vocabulary, ids in ((small, [2, 3, 2, 1]), (mixed, [2, 4, 3, 1])):
        hotwords = read_hotwords(path, vocabulary)
        state = completed = 0
        for token in ids:
            state, completed = hotwords.step(state, token)
        assert completed == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; hotwords must name one"),
        (b"", "no words in it"),
        (b"# nothing\n\n", "no words in it"),
        (b"\nZo\xc3\xab\n", "cannot spell line 2, 'Zo\xeb' (no letter '\xcb'); write it as it is"),
        (b"4th\n5th", "line 1, '4th' (no letter '4'), line 2, '5th' (no letter '5'); write"),
        (b"a|b", "line 1, 'a|b' (no letter '|')"),
        (b"Zo\xeb\n", "no text in UTF-8"),
    ],
)
def test_a_bad_list_of_hotwords_is_one_clear_line(tmp_path, content, message):
    path = tmp_path / "names.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        read_hotwords(path, LETTERS)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_lines_that_the_model_cannot_spell_are_named_and_left_out(tmp_path):
    path = tmp_path / "names.txt"
    path.write_text("Ada\nZoë\n" + "4th\n" * 9 + "New York\n", encoding="utf-8")
    with pytest.warns(StreamerWarning) as caught:
        hotwords = read_hotwords(path, LETTERS)
    (line,) = [str(warning.message) for warning in caught]
    assert line.startswith(f"{path}: the model cannot spell line 2, 'Zoë' (no letter 'Ë'), line 3")
    assert "and 5 more; write it as it is spoken" in line
    assert spelled(hotwords, "ADA IN NEW YORK") == 3 + 7


def test_a_line_that_is_left_out_is_one_line_of_the_command(tmp_path):
    (tmp_path / "names.txt").write_text("Ada\nZoë\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "transcribe", DEMO, "--model", "embedded-sew",
         "--hotwords", "names.txt"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr.startswith("streamer: names.txt: the model cannot spell line 2, 'Zoë'")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("MCKINSEY MET ADA LOVELACE", "McKinsey met Ada Lovelace"),
        ("I ASKED ADA AND MCKINSEY'S IPHONE", "I asked ada and McKinsey's iPhone"),
        ("IPHONE LOVELACE", "iPhone lovelace"),
        ("VAN GOGH AND VAN GOGH", "Van Gogh and van Gogh"),
        ("PLAIN AND O'BRIEN", "Plain and O'Brien"),
    ],
)
def test_hotwords_keep_their_case_in_the_text(tmp_path, raw, shown):
    path = tmp_path / "names.txt"
    path.write_text("McKinsey\nAda Lovelace\niPhone\nvan Gogh\nplain\nO’Brien", encoding="utf-8")
    decoder = load_decoder(Settings(hotwords=str(path), lm="none"), LETTERS, tmp_path)
    assert " ".join(decoder.spell(raw.split(), opening=True)) == shown


def test_a_model_that_parts_no_words_takes_neither(arpa):
    vocabulary = Vocabulary(("<pad>", "A"), 0, None, frozenset())
    with pytest.raises(SettingsError, match="does not part words"):
        load_decoder(Settings(lm=str(arpa)), vocabulary, arpa.parent)
    (arpa.parent / LANGUAGE_MODEL).write_bytes(gzip.compress(arpa.read_bytes()))
    assert not load_decoder(Settings(), vocabulary, arpa.parent).has_language_model, (
        "nor one of its own"
    )


def test_a_damaged_language_model_of_its_own_is_the_models_fault(letters_alone):
    (letters_alone / LANGUAGE_MODEL).write_bytes(gzip.compress(ARPA.encode())[:60])
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "transcribe", DEMO, "--model", str(letters_alone)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert len(done.stderr.splitlines()) == 1
    assert f"its {LANGUAGE_MODEL} is damaged" in done.stderr
    assert not load_recognizer(
        Settings(model=str(letters_alone), lm="none")
    ).decoder.has_language_model


@pytest.mark.parametrize(
    ("flag", "model", "command"),
    [
        ("lm", "embedded-sew", ["listen", "--demo", "--pace", "fast"]),
        ("hotwords", "embedded-sew", ["transcribe", DEMO]),
        ("hotwords", "moonshine-tiny", ["transcribe", DEMO]),
        ("lm", "embedded-sew", ["eval", "all.tsv"]),
    ],
)
def test_a_missing_file_ends_a_command_with_one_line(tmp_path, flag, model, command):
    (tmp_path / "all.tsv").write_text(f"file\ttranscript\n{DEMO}\tLET US BEGIN\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "streamer",
            *command,
            "--model",
            model,
            f"--{flag}",
            "no.txt",
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == f"streamer: no.txt: no such file; {flag} must name one\n"


@pytest.fixture(scope="module")
def heard() -> np.ndarray:
    samples, rate = read_audio(DEMO)
    assert rate == SAMPLE_RATE
    return samples


def finals(recognizer, samples: np.ndarray) -> list[Final]:
    transcriber = Transcriber(recognizer, SAMPLE_RATE, previews=False)
    events = [*transcriber.feed(samples), *transcriber.finish()]
    return [event for event in events if isinstance(event, Final)]


def text(events: list[Final]) -> str:
    return " ".join(final.text for final in events)


def test_what_noise_makes_of_final_texts_is_mended_by_either(heard, tmp_path):
    """With the embedded model, on the bundled recording in as much noise as it takes."""
    truth = DEMO.with_suffix(".txt").read_text(encoding="utf-8")
    letters = load_recognizer(Settings(model="embedded-sew", lm="none"))
    noise = np.random.default_rng(1).standard_normal(len(heard), np.float32) * heard.std()
    for level in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5):
        samples = heard + np.float32(level) * noise
        greedy = finals(letters, samples)
        if word_errors(truth, text(greedy)) > 8:
            break
    lines = [" ".join(words(line)) for line in truth.splitlines()]
    names, model = tmp_path / "names.txt", tmp_path / "words.arpa"
    names.write_text("\n".join(lines))
    with model.open("w", encoding="utf-8") as file:
        Model(lines, order=2).write(file)
    for given in ({"hotwords": str(names), "lm": "none"}, {"lm": str(model)}):
        biased = finals(load_recognizer(Settings(model="embedded-sew", **given)), samples)
        assert word_errors(truth, text(biased)) < word_errors(truth, text(greedy)), given
        for final in biased:
            assert final.text == " ".join(word.word for word in final.words)
            assert all(final.start <= w.start < w.end <= final.end for w in final.words)
            assert all(0 <= word.confidence <= 1 for word in final.words)


@pytest.mark.parametrize(
    ("loaded", "asked", "missing"),
    [
        ({}, {"hotwords": "names.txt"}, "hotwords"),
        ({"lm": "none"}, {"lm": "words.arpa"}, "lm"),
        ({}, {"lm": "none"}, "lm"),
        ({"lm": "none"}, {"lm": "none"}, None),
        ({"hotwords": "names.txt"}, {"hotwords": "names.txt"}, None),
        ({"hotwords": "names.txt"}, {"hotwords": "others.txt"}, "hotwords"),
        ({"hotwords": "names.txt", "lm": "none"}, {}, None),
    ],
)
def test_words_that_a_ready_recognizer_does_not_expect_are_an_error(
    recognizer, loaded, asked, missing
):
    ready = copy.copy(recognizer)
    given = Settings(**loaded)
    ready.hotwords, ready.lm = given.hotwords, given.lm
    if given.lm == NO_LM:
        ready.decoder = GreedyDecoder(ready.vocabulary)
    if missing is None:
        Transcriber(ready, SAMPLE_RATE, Settings(**asked))
        return
    with pytest.raises(SettingsError, match=rf"^{missing} = .*load_recognizer\(settings\)$"):
        transcribe([], SAMPLE_RATE, recognizer=ready, settings=Settings(**asked))


def test_a_recognizer_knows_which_words_it_was_loaded_with(tmp_path):
    (tmp_path / "names.txt").write_text("Ada")
    given = Settings(model="embedded-sew", hotwords=tmp_path / "names.txt", lm="none")
    Transcriber(load_recognizer(given), SAMPLE_RATE, given)


def test_a_phrase_changes_no_word_that_was_shown_as_stable(heard, tmp_path):
    truth = DEMO.with_suffix(".txt").read_text(encoding="utf-8")
    titles = [" ".join(words(line)).title() for line in truth.splitlines()]
    (tmp_path / "names.txt").write_text("\n".join(titles))
    given = Settings(model="embedded-sew", hotwords=str(tmp_path / "names.txt"))
    transcriber = Transcriber(load_recognizer(given), SAMPLE_RATE, given)
    events = [*transcriber.feed(heard[: 12 * SAMPLE_RATE]), *transcriber.finish()]
    stable: dict[int, str] = {}
    for event in events:
        if isinstance(event, Partial):
            assert event.stable.startswith(stable.get(event.segment, ""))
            stable[event.segment] = event.stable
    assert any(final.text in titles for final in events if isinstance(final, Final))


@pytest.fixture
def letters_alone(tmp_path) -> Path:
    """A model's folder without a language model."""
    shutil.copytree(EMBEDDED, tmp_path / "model")
    (tmp_path / "model" / LANGUAGE_MODEL).unlink()
    return tmp_path / "model"


def test_without_a_language_model_the_reader_is_greedy(heard, letters_alone):
    found = [
        load_recognizer(Settings(model="embedded-sew", lm="none")),
        load_recognizer(str(letters_alone)),
    ]
    log_probs = found[0].log_probs(heard[: found[0].grid.fit(5 * SAMPLE_RATE)])
    for recognizer in found:
        assert not recognizer.decoder.has_language_model
        assert recognizer.decoder(log_probs) == decode(log_probs, recognizer.vocabulary)


def test_a_model_reads_with_its_own_language_model_unless_told_otherwise(letters_alone, arpa):
    shutil.copyfile(arpa, letters_alone / "words.arpa")
    packed = gzip.compress(arpa.read_bytes())
    (letters_alone / LANGUAGE_MODEL).write_bytes(packed)
    own = load_recognizer(str(letters_alone))
    assert own.decoder.has_language_model
    named = load_recognizer(Settings(model="embedded-sew", lm=str(arpa)))
    embedded = load_recognizer("embedded-sew")
    noise = np.random.default_rng(0).standard_normal((200, 32)).astype(np.float32)
    log_probs = noise - np.log(np.exp(noise).sum(axis=1, keepdims=True))
    assert own.decoder(log_probs) == named.decoder(log_probs) != embedded.decoder(log_probs)


def test_confidence_is_calibrated_for_the_way_of_reading():
    table = json.loads((EMBEDDED / CALIBRATION).read_text())
    for lm, reader in (("", "lm"), ("none", "greedy")):
        calibration = load_recognizer(Settings(model="embedded-sew", lm=lm)).calibration
        assert calibration == Calibration(table[reader]["bias"], table[reader]["slope"])
