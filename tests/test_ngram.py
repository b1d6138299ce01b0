"""The tool that makes a language model from text, against what Kneser-Ney asks of one."""

from __future__ import annotations

import gzip
import math
import random
import subprocess
import sys
from pathlib import Path

import pytest

from streamer.core.ngram import NGram
from streamer.recognition.checkpoint_files import SEW_TINY_LETTERS
from streamer.recognition.decoder_files import read_arpa
from training.ngram import Model, main, sentences
from training.text import held_out, normalize, wordnet_examples

WORDS = ["A", "LAMB", "ATE", "RED", "HAY", "AND", "THE", "OLD", "WOLF", "SAW", "IT"]


def text(count: int) -> list[str]:
    """Sentences in which some words follow others more often than chance has it."""
    rng = random.Random(1)
    made = []
    for _ in range(count):
        place = rng.randrange(len(WORDS))
        sentence = []
        for _ in range(rng.randint(1, 7)):
            sentence.append(WORDS[place])
            place = (place + rng.choice((1, 1, 1, 2, 5))) % len(WORDS)
        made.append(" ".join(sentence))
    return made


@pytest.fixture(scope="module")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ngram")
    (folder / "text.txt").write_text("\n".join(text(400)).lower())
    main([str(folder / "text.txt"), "--prune", "0,0,1", "--output", str(folder / "made.arpa")])
    return folder / "made.arpa"


@pytest.fixture(scope="module")
def model(arpa: Path) -> NGram:
    return read_arpa(arpa, SEW_TINY_LETTERS)


@pytest.mark.parametrize("context", ["", "<s>", "THE", "<s> A", "A LAMB", "WOLF WOLF", "IT ATE"])
def test_after_every_context_all_probabilities_sum_up_to_one(model, context):
    everything = [*WORDS, "</s>", "<unk>"]
    total = sum(math.exp(model.score(context, word)[0]) for word in everything)
    assert total == pytest.approx(1.0, abs=1e-3)


def test_what_was_seen_is_more_probable_and_nothing_is_impossible(model):
    assert model.score("THE OLD", "WOLF")[0] > model.score("THE OLD", "LAMB")[0]
    assert math.isfinite(model.score("OLD", "ZEBRA")[0])
    assert model.score("OLD", "ZEBRA")[0] < model.score("OLD", "LAMB")[0]


def test_unseen_text_is_foretold_better_with_more_context():
    heard, unheard = text(400)[:300], text(400)[300:]
    bits = []
    for order in (1, 2):
        model = Model(heard, order)
        words = [("<s>", *sentence.split()) for sentence in unheard]
        bits.append(sum(model.log(s[max(0, i - order + 1) : i + 1])
                        for s in words for i in range(1, len(s))))  # fmt: skip
    assert bits[1] > bits[0] + 100


def test_a_word_counts_before_how_many_others_it_follows():
    """FRANCISCO follows one word alone, however often: elsewhere it is improbable."""
    lines = ["SAN FRANCISCO"] * 9 + ["A DOG", "THE DOG", "OLD DOG", "RED DOG", "A CAT", "RED CAT"]
    model = Model(lines, 2)
    assert model.log(("DOG",)) > model.log(("CAT",)) > model.log(("FRANCISCO",))
    assert model.log(("SAN", "FRANCISCO")) > math.log(0.8)


def test_rare_ngrams_are_left_out_and_single_words_are_not():
    lines = ["A B C", "A B C", "A B D", "E F"]
    model = Model(lines, 3, (0, 0, 1))
    assert ("A", "B", "C") in model.logs[2]
    assert ("A", "B", "D") not in model.logs[2]
    assert ("E", "F") in model.logs[1]
    assert {("A",), ("E",)} <= set(model.logs[0])


def test_a_table_of_recordings_is_a_text(tmp_path):
    table = tmp_path / "train.tsv"
    table.write_text('file\ttranscript\na.wav\tWell, "no".\nb.wav\t42\nc.wav\tIt\'s I\n')
    assert list(sentences(str(table))) == ["WELL NO", "IT'S I"]


def test_rows_with_a_text_in_them_are_left_out(tmp_path):
    table = tmp_path / "train.tsv"
    table.write_text("file\ttranscript\tsource\na\tONE\thers\nb\tTWO\tmine\nc\tTHREE\n")
    assert list(sentences(str(table), "mine")) == ["ONE", "THREE"]


def test_the_same_text_gives_the_same_packed_file(tmp_path):
    (tmp_path / "lines.txt").write_text("IT IS LATE\nIT IS COLD\n")
    made = []
    for name in ("one.arpa.gz", "two.arpa.gz", "plain.arpa"):
        main([str(tmp_path / "lines.txt"), "--output", str(tmp_path / name)])
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    assert gzip.decompress(made[0]) == made[2]
    assert "IT" in read_arpa(tmp_path / "one.arpa.gz", SEW_TINY_LETTERS)


def test_a_model_of_few_words_is_told(tmp_path, capsys):
    (tmp_path / "lines.txt").write_text("IT IS LATE\n")
    main([str(tmp_path / "lines.txt"), "--output", str(tmp_path / "few.arpa")])
    assert "--hotwords" in capsys.readouterr().out
    main(["wordnet", "--output", str(tmp_path / "many.arpa"), "--order", "1"])
    assert "--hotwords" not in capsys.readouterr().out


def test_no_text_is_told(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(SystemExit, match=r"no sentences in .*empty\.txt"):
        main(["wordnet", str(tmp_path / "empty.txt"), "--output", str(tmp_path / "made.arpa")])


def test_a_text_that_is_not_installed_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="install Debian's bible-kjv"):
        main(["bible", "--output", str(tmp_path / "made.arpa")])


@pytest.mark.parametrize(
    ("content", "message"), [(None, "No such file"), (b"\xff\xfe\x00", "no text in UTF-8")]
)
def test_what_cannot_be_read_is_one_line(content, message, tmp_path):
    text = tmp_path / "text.txt"
    if content is not None:
        text.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "training.ngram", text, "--output", tmp_path / "made.arpa"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_what_is_kept_apart_for_measuring_is_not_learned():
    learned = set(sentences("wordnet"))
    examples = {sentence for text in wordnet_examples() if (sentence := normalize(text))}
    assert len(learned & examples) > 10_000
    apart = {sentence for sentence in examples if held_out(sentence)}
    assert len(apart) > 100
    assert not learned & apart
