"""What is foretold of a writer's words."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from conftest import RECORDINGS

from streamer.core.writer_hypothesis import evidences
from training import writer_rules
from training.writer_rules import WEIGHTS, Example, fit, halves


def test_the_fit_finds_the_weights_that_made_the_examples() -> None:
    weights = (0.5, 0.7, 0.4, 0.3, 0.2)
    chance = np.random.default_rng(0)
    examples = []
    for _ in range(2_000):
        probabilities = chance.uniform(0.01, 0.999, 8).tolist()
        for evidence in evidences(probabilities, chance.integers(1, 8, 8).tolist()):
            logit = np.dot(weights, evidence)
            examples.append(Example(evidence, bool(chance.random() < 1 / (1 + np.exp(-logit)))))
    found = fit(examples)
    assert [found[name] for name in WEIGHTS] == pytest.approx(weights, rel=0.25)


def test_no_speaker_is_in_both_halves() -> None:
    rows = [{"file": str(n), "speaker": f"speaker {n % 5}" if n % 3 else ""} for n in range(60)]
    first, second = (set(half) for half in halves(rows))
    assert len(first | second) == 60
    assert min(len(first), len(second)) >= 15
    speakers = [{row["speaker"] for row in rows if row["file"] in half} for half in (first, second)]
    assert speakers[0] & speakers[1] <= {""}


def test_recordings_become_weights_and_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_rules, "GRID", {"show_chance": (0.5, 0.95)})
    clips = ["LJ002-0098.ogg", "LJ001-0079.ogg"]
    manifest = tmp_path / "clips.tsv"
    manifest.write_text("".join(f"{line}\n" for line in ["file", *(RECORDINGS / c for c in clips)]))
    writer_rules.main([str(manifest)])
    fitted, *rows = capsys.readouterr().out.splitlines()
    assert int(fitted.split()[0]) > 20
    shown = [float(re.search(r"word p50 (\S+)", row)[1]) for row in rows if "word p50" in row]  # type: ignore[index]
    assert len(shown) == 3
    assert shown[1] < shown[2], "where more is asked of words they are shown later"
