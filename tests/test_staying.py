"""What is foretold of previewed words."""

import json
import random
from dataclasses import asdict, replace

import numpy as np
import pytest

from streamer.config import Settings
from streamer.recognition import load_recognizer
from streamer.recognition.checkpoint_files import EMBEDDED_FOLDER, LIVE_RULES, read_live_rules
from training import corpus, staying, synthesis

SENTENCES = ["IT WAS A LONG DAY", "WHAT DO YOU WANT", "SHE WENT HOME", "THE DOG RAN"]
MOST = 40
"""Frames after a word that count."""


def foretold(constants, count=4_000, seed=0):
    """Examples that stay as often as the constants say."""
    chance = np.random.default_rng(seed)
    greedy = chance.random(count) < 0.5
    root = chance.uniform(0, 2, count)
    columns = chance.integers(0, 100, count), root * greedy, root * ~greedy, np.zeros(count)
    known = np.column_stack(columns)
    stay = 1 / (1 + np.exp(-staying.logits(known, constants, MOST)))
    known[:, 3] = chance.random(count) < stay
    return known


def test_the_fit_finds_the_constants_that_made_the_examples():
    constants = (0.5, 0.05, 1.5, 0.8)
    many, few = foretold(constants, 20_000), foretold(constants, 2_000, seed=1)
    np.testing.assert_allclose(staying.fit([many, few], MOST), constants, rtol=0.4)


def test_each_set_counts_the_same_however_large():
    often, seldom = foretold((2.0, 0.0, 0.0, 0.0), 20_000), foretold((-2.0, 0.0, 0.0, 0.0), 500)
    bias, *_ = staying.fit([often, seldom], MOST)
    assert abs(bias) < 0.5


def test_a_word_that_the_final_text_has_elsewhere_did_not_stay():
    assert staying._in_place(["A", "B", "C"], ["A", "X", "C", "B"]) == {0, 2}


@pytest.mark.parametrize("lm", ["none", ""])
def test_previews_of_a_clip_are_examples(lm):
    recognizer = load_recognizer(Settings(model="embedded-sew", lm=lm))
    said = synthesis.flite(SENTENCES[0], random.Random(0))
    known = staying.examples(recognizer, [corpus.Clip(said.samples, SENTENCES[0], said.voice)])
    assert len(known) >= 3
    heard, greedily, with_lm, stayed = known.T
    doubt, none = (greedily, with_lm) if lm else (with_lm, greedily)
    assert not none.any()
    assert (heard >= 0).all()
    assert (heard < 150).all()
    assert (doubt >= 0).all()
    assert set(stayed) <= {0.0, 1.0}


def test_the_table_has_a_row_for_each_set(tmp_path, capsys):
    for name in ("flite", "espeak"):
        clips = [synthesis.flite(text, random.Random(1)) for text in SENTENCES]
        clips = [corpus.Clip(c.samples, t, c.voice) for c, t in zip(clips, SENTENCES, strict=True)]
        corpus.write_shard(tmp_path, f"heldout-{name}-000", clips)
    model = tmp_path / "model"
    model.mkdir()
    for file in EMBEDDED_FOLDER.iterdir():
        (model / file.name).symlink_to(file)
    before = read_live_rules(model)
    for write in ([], ["--write"]):
        (model / LIVE_RULES).unlink(missing_ok=True)
        staying.main([str(model), "--corpus", str(tmp_path), "--limit", "2", *write])
        printed, _, _, _, *rows = capsys.readouterr().out.splitlines()
        fitted = json.loads(printed)
        assert len(rows) == 4, "each set, read greedily and with the language model"
        assert set(fitted) < set(asdict(before))
        assert all(field.startswith("stay_") for field in fitted)
        expected = replace(before, **fitted) if write else before
        assert read_live_rules(model) == expected
        assert (model / LIVE_RULES).exists() == bool(write)


def test_without_held_out_speech_it_says_so(tmp_path):
    with pytest.raises(SystemExit, match="no held-out sets"):
        staying.main(["embedded-sew", "--corpus", str(tmp_path)])
