"""The model card's table, by one command."""

import random

import numpy as np
import pytest

from streamer.corpora.recordings import find_recordings
from streamer.sources.files import read_audio
from training import corpus, ngram, prepare, scoring, synthesis, write_set
from training.text import Text

SENTENCES = ["The dog ran home.", "She will call you in the morning.", "What do you want?"]


@pytest.fixture
def sentences(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("\n".join([*SENTENCES, "Room 12.", ""]))
    return path


def table(capsys, *arguments):
    scoring.main(["embedded-sew", *map(str, arguments)])
    rows = capsys.readouterr().out.splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_sentences_of_a_file_are_said_by_flite(sentences):
    clips = scoring.spoken(sentences)
    assert [clip.text for clip in clips] == [s.upper().strip(".?") for s in SENTENCES]
    assert {clip.voice for clip in clips} <= set(synthesis.FLITE_VOICES)
    assert all(len(clip.samples) > 8_000 for clip in clips)


def test_they_are_a_row_of_the_table(sentences, tmp_path, capsys):
    heading, _, row = table(capsys, "--corpus", tmp_path, "--text", sentences, "--lm", "none")
    assert heading == ["set", "clips", "WER, CER"]
    assert row[:2] == ["flite, mine.txt", "3"]
    wer, cer = map(float, row[2].split(","))
    assert 0 <= cer < wer + 0.5 < 1.6


def test_a_language_model_that_knows_the_sentences_stands_beside(sentences, tmp_path, capsys):
    model = tmp_path / "words.arpa"
    ngram.main([str(sentences), "--output", str(model)])
    capsys.readouterr()
    for lm in ([], ["--lm", model]):  # its own, and one that knows no other sentences
        heading, _, row = table(capsys, "--corpus", tmp_path, "--text", sentences, *lm)
        assert heading[-1] == "with the language model"
        plain, with_model = (float(rates.split(",")[0]) for rates in row[-2:])
        assert with_model < plain


def test_of_a_set_the_clips_that_nothing_is_fitted_on_can_be_written_alone(tmp_path):
    texts = ["IT IS LATE", "IT IS COLD", "SIT DOWN"]
    clips = [corpus.Clip(synthesis.flite(t, random.Random(0)).samples, t, "x") for t in texts]
    corpus.write_shard(tmp_path, "heldout-flite-000", clips)
    folder = tmp_path / "clips"
    write_set.main(["flite", str(folder), "--corpus", str(tmp_path), "--unseen"])
    _, *rows = (folder / "clips.tsv").read_text().splitlines()
    assert [row.partition("\t")[2] for row in rows] == ["IT IS COLD"]


def test_a_held_out_set_is_written_as_eval_reads_it(tmp_path, capsys):
    said = [synthesis.flite(text, random.Random(0)) for text in ("THE DOG RAN HOME", "IT IS LATE")]
    clips = [
        corpus.Clip(one.samples, text, one.voice) for one, text in zip(said, "AB", strict=True)
    ]
    corpus.write_shard(tmp_path, "heldout-flite-000", clips)
    folder = tmp_path / "clips"
    write_set.main(["flite", str(folder), "--corpus", str(tmp_path), "--limit", "1"])
    manifest = capsys.readouterr().out.strip()
    (recording,) = find_recordings(folder / "clips.tsv")
    assert manifest == str(folder / "clips.tsv")
    (clip,) = recording.clips
    assert clip.text == "A"
    samples, rate = read_audio(clip.path)
    assert rate == synthesis.SAMPLE_RATE
    np.testing.assert_array_equal(samples * 32768, said[0].samples)


def test_fresh_sentences_are_held_out_and_in_no_set(tmp_path):
    folder = tmp_path / "clips"
    write_set.main(["flite", str(folder), "--corpus", str(tmp_path / "none"), "--fresh", "3"])
    _, *rows = (folder / "clips.tsv").read_text().splitlines()
    held_out = Text().held_out
    first = prepare.HELD_OUT_SENTENCES
    assert [row.partition("\t")[2] for row in rows] == held_out[first : first + 3]
    for row in rows:
        samples, _ = read_audio(folder / row.partition("\t")[0])
        assert len(samples) > 4_000
    with pytest.raises(SystemExit, match="recorded"):
        write_set.main(["test-other", str(folder), "--fresh", "3"])


def test_a_set_that_is_not_there_cannot_be_written(tmp_path):
    with pytest.raises(SystemExit, match="no held-out set 'ked'"):
        write_set.main(["ked", str(tmp_path / "clips"), "--corpus", str(tmp_path)])
