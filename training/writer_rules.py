"""Fits what a writer's words are shown and settled by: ``python -m training.writer_rules TSV``.

Every recording goes through the live path once; what the writer and the follower made of each
window is remembered. On the recordings of every second speaker (column ``speaker`` of the
manifest; each recording is one where there is none) the chance of a word to stay is fitted: a
logistic regression on what `evidences` gives, against whether the final has the word at its place.
On the other half, thresholds are then played over the same windows, without computing; delays are
those of a machine that takes no time. The rules are chosen from what this prints.

Choose on some speakers and report on others.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import minimize

from streamer.config import DEFAULT_MODEL, Settings
from streamer.core.resample import Resampler
from streamer.core.writer_hypothesis import (
    WriterHypothesis,
    WriterModel,
    WriterRules,
    evidences,
)
from streamer.evaluation.delays import Delays, TimedWord, matches, percentiles
from streamer.evaluation.metrics import scored
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Event, Final
from streamer.recognition import load_recognizer
from streamer.recognition.checkpoint_files import WRITER_RULES
from streamer.recognition.writer import WriterRecognizer
from streamer.sources.files import read_audio
from training.command import run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from streamer.core.hypothesis import FinalText
    from streamer.messages import Reading, Samples, Window, WrittenWord

GRID: dict[str, tuple[float, ...]] = {
    "show_chance": (0.5, 0.6, 0.7, 0.75, 0.8, 0.85),
    "settle_chance": (0.86, 0.88, 0.92, 0.94),
    "settle_windows": (2, 3),
    "passed_words": (2, 3, 99),
    "passed_chance": (0.85, 0.95),
}
"""One is changed at a time."""
WEIGHTS = ("chance_bias", "chance_odds", "chance_before", "chance_behind", "chance_again")
PENALTY = 1.0
"""Of the squares of all weights but the first."""


@dataclass(frozen=True, slots=True)
class Example:
    """A word of a preview: its evidence, and whether the final has it at its place."""

    evidence: tuple[float, ...]
    stayed: bool


class Noting(WriterHypothesis):
    """Notes an example for each word of each preview that was not yet stable."""

    def __init__(self, model: WriterModel, settings: Settings, examples: list[Example]) -> None:
        super().__init__(model, settings)
        self._settings = settings
        self._examples = examples
        self._previews: list[tuple[list[str], Sequence[tuple[float, ...]]]] = []

    def _settle(self, words: Sequence[WrittenWord], chances: Sequence[float]) -> None:
        first = self._first(len(words) - 1)
        texts = [*self._stable, *(word.text for word in words[first:])]
        evidence = evidences([word.probability for word in words], self._counts)
        self._previews.append((texts, evidence[first:]))
        super()._settle(words, chances)

    def close(self, window: Window, reading: Reading) -> FinalText:
        """Compare the previews with it."""
        final = super().close(window, reading)
        truth = scored(final.raw).split()
        for texts, evidence in self._previews if truth else ():
            parts = [(place, part) for place, text in enumerate(texts)
                     for part in scored(text).split()]  # fmt: skip
            right = {number for _, number in matches(truth, [part for _, part in parts])}
            wrong = {place for number, (place, _) in enumerate(parts) if number not in right}
            first = len(texts) - len(evidence)
            self._examples += [
                Example(one, first + number not in wrong) for number, one in enumerate(evidence)
            ]
        return final

    def following(self) -> Noting:
        """One that notes in the same place."""
        return Noting(self._model, self._settings, self._examples)


class Remembering:
    """A writer that computes each window once, and hypotheses by rules that may change."""

    accelerator = "cpu"
    uses_language_model = False

    def __init__(self, recognizer: WriterRecognizer) -> None:
        self.name, self.shape = recognizer.name, recognizer.shape
        self.hotwords, self.lm = recognizer.hotwords, recognizer.lm
        self.rules = recognizer.model.rules
        self.examples: list[Example] = []
        """Of all previews so far."""
        self._recognizer = recognizer
        self._known: dict[tuple[str, bytes], Reading] = {}

    def hypothesis(self, settings: Settings) -> WriterHypothesis:
        """By the rules of the moment."""
        model = self._recognizer.model
        rules = WriterModel(model.vocabulary, model.grid, self.rules)
        return Noting(rules, settings, self.examples)

    def recognize(self, batch: Sequence[Window]) -> list[Reading]:
        """From memory, where the same was heard before."""
        readings = []
        for window in batch:
            key = window.kind, window.samples.tobytes()
            if key not in self._known:
                [self._known[key]] = self._recognizer.recognize([window])
            readings.append(self._known[key])
        return readings


def heard(recognizer: Remembering, audio: Samples) -> list[Event]:
    """The events of a stream in blocks of 20 ms."""
    transcriber = Transcriber(recognizer, SAMPLE_RATE, Settings())
    events: list[Event] = []
    for start in range(0, len(audio), SAMPLE_RATE // 50):
        events += transcriber.feed(audio[start : start + SAMPLE_RATE // 50])
    return events + transcriber.finish()


def fit(examples: Sequence[Example]) -> dict[str, float]:
    """The weights of the chance that make the examples most probable."""
    evidence = np.array([one.evidence for one in examples])
    stayed = np.array([one.stayed for one in examples], float)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logits = evidence @ weights
        rest = np.append(0.0, weights[1:])
        error = np.logaddexp(0, logits).sum() - stayed @ logits + PENALTY / 2 * rest @ rest
        return error, evidence.T @ (1 / (1 + np.exp(-logits)) - stayed) + PENALTY * rest

    found = minimize(loss, np.zeros(len(WEIGHTS)), jac=True, method="L-BFGS-B").x
    return dict(zip(WEIGHTS, map(float, found), strict=True))


def measure(recognizer: Remembering, recordings: Sequence[Samples]) -> dict[str, float]:
    """What the rules of the moment give."""
    delays = Delays()
    for audio in recordings:
        events = heard(recognizer, audio)
        finals = [event for event in events if isinstance(event, Final)]
        delays.take(
            events, [TimedWord(w.word.upper(), w.start, w.end) for f in finals for w in f.words]
        )
    shown, settle = percentiles(delays.word), percentiles(delays.settle)
    return {
        "word p50": shown["p50"] or 0.0,
        "p95": shown["p95"] or 0.0,
        "settle p50": settle["p50"] or 0.0,
        "UPWR": delays.upwr,
        "retracted": delays.retracted_share,
        "stable early": delays.stable_early_share or 0.0,
    }


def audio_of(place: Path, file: str) -> Samples:
    """A recording at the model's rate, and a second of silence behind it."""
    samples, rate = read_audio(place.parent / file)
    resampler = Resampler(rate)
    silence = np.zeros(SAMPLE_RATE, np.float32)
    return np.concatenate((resampler.push(samples), resampler.flush(), silence))


def halves(rows: Sequence[dict[str, str]]) -> tuple[list[str], list[str]]:
    """The files of every second speaker, and those of the others."""
    speakers = sorted({row.get("speaker") or row["file"] for row in rows})
    random.Random(0).shuffle(speakers)
    first = set(speakers[::2])
    is_first = [(row.get("speaker") or row["file"]) in first for row in rows]
    return (
        [row["file"] for row, its in zip(rows, is_first, strict=True) if its],
        [row["file"] for row, its in zip(rows, is_first, strict=True) if not its],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit on one half, try thresholds on the other."""
    parser = argparse.ArgumentParser(prog="python -m training.writer_rules", description=__doc__)
    parser.add_argument("manifest", type=Path, help="a .tsv with the columns file and speaker")
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--adapter", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--write", type=Path, metavar="FILE", help=f"as a model's {WRITER_RULES}")
    options = parser.parse_args(arguments)
    with options.manifest.open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    loaded = load_recognizer(Settings(model=options.model, adapter=options.adapter))
    assert isinstance(loaded, WriterRecognizer)
    recognizer = Remembering(loaded)
    fitted_on, tried_on = (
        [audio_of(options.manifest, file) for file in files] for files in halves(rows)
    )
    for audio in fitted_on:
        heard(recognizer, audio)
    half = fit(recognizer.examples)
    print(f"{len(recognizer.examples)} words of previews: {_spelled(half)}", flush=True)
    began = recognizer.rules = changed(recognizer.rules, half)
    count = len(recognizer.examples)
    show("as they are", measure(recognizer, tried_on))
    whole = fit(recognizer.examples)
    print("fitted on all:", _spelled(whole), flush=True)
    if options.write:
        rules = changed(began, {name: round(value, 3) for name, value in whole.items()})
        options.write.write_text(json.dumps(asdict(rules), indent=1) + "\n")
    del recognizer.examples[count:]
    for name, values in GRID.items():
        for value in values:
            recognizer.rules = changed(began, {name: value})
            show(f"{name} = {value:g}", measure(recognizer, tried_on))


def changed(rules: WriterRules, values: Mapping[str, float]) -> WriterRules:
    """Rules with some other values, each of the type that it has."""
    return replace(
        rules, **{name: type(getattr(rules, name))(value) for name, value in values.items()}
    )


def _spelled(weights: dict[str, float]) -> str:
    return ", ".join(f"{name}={value:.3f}" for name, value in weights.items())


def show(name: str, figures: dict[str, float]) -> None:
    """One line."""
    print(f"{name:22}", "  ".join(f"{k} {v:.3f}" for k, v in figures.items()), flush=True)


if __name__ == "__main__":
    run(main)
