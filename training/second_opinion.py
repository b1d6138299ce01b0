"""What keeps noise from becoming words: ``python -m training.second_opinion SPEECH --noise NOISE``.

Both tables (column ``file``) go through the live path. Of every final window it is noted how
certain the follower is, what the writer's text costs to spell on its emission, and the text; then
the gate's numbers are tried: how many words of speech they drop, how many of noise they let pass.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamer.config import Settings
from streamer.core.ctc import certainty
from streamer.core.word_times import spelling_cost
from streamer.core.writer_hypothesis import WriterHypothesis
from streamer.live import Transcriber
from streamer.recognition import load_recognizer
from streamer.recognition.writer import WriterRecognizer
from streamer.sources.files import read_audio

if TYPE_CHECKING:
    from streamer.messages import Reading, Samples, Window

GRID = {
    "certainty": (0.2, 0.25, 0.3),
    "short_cost": (2.3, 2.6, 2.9, 3.2),
    "doubtful_share": (0.4, 0.6, 0.8, 1.0),
    "doubtful_cost": (1.6, 1.9, 2.2),
}
SOFTEST_DB = 24.0


class Noting:
    """A recognizer that notes of each final window (certainty, cost, words, text)."""

    accelerator = "cpu"
    uses_language_model = False

    def __init__(self, recognizer: WriterRecognizer) -> None:
        self.name, self.shape = recognizer.name, recognizer.shape
        self.hotwords, self.lm = recognizer.hotwords, recognizer.lm
        self._recognizer = recognizer
        self.found: list[tuple[float, float, int, str]] = []

    def hypothesis(self, settings: Settings) -> WriterHypothesis:
        """The recognizer's own."""
        return self._recognizer.hypothesis(settings)

    def recognize(self, batch: Sequence[Window]) -> list[Reading]:
        """Note, and pass on."""
        readings = self._recognizer.recognize(batch)
        for reading in readings:
            words = reading.words or ()
            if words and reading.emission is not None:
                vocabulary = self._recognizer.model.vocabulary
                text = [word.text for word in words]
                cost = spelling_cost(text, reading.emission, vocabulary)
                sure = certainty(reading.emission, vocabulary)
                self.found.append((sure, 0.0 if cost is None else cost, len(words), " ".join(text)))
        return readings


def heard(recognizer: WriterRecognizer, recordings: Iterable[tuple[Samples, int]]) -> Noting:
    """All finals of some recordings."""
    noting = Noting(recognizer)
    for samples, rate in recordings:
        transcriber = Transcriber(noting, rate, Settings(), previews=False)
        transcriber.feed(samples)
        transcriber.finish()
    return noting


def noises(table: Path, minutes: float) -> Iterable[tuple[Samples, int]]:
    """The files of a table, again and again from random places and at random levels."""
    files = _files(table)
    chance = np.random.default_rng(0)
    for file in files:
        samples, rate = read_audio(file)
        for _ in range(max(1, round(minutes * 60 * rate / len(files) / len(samples)))):
            turned = np.roll(samples, int(chance.integers(len(samples))))
            yield turned * np.float32(10 ** (-chance.uniform(0, SOFTEST_DB) / 20)), rate


def _files(table: Path) -> list[Path]:
    with table.open(encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [table.parent / row["file"] for row in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what each gate does, and the doubtful cases."""
    parser = argparse.ArgumentParser(prog="python -m training.second_opinion", description=__doc__)
    parser.add_argument("speech", type=Path)
    parser.add_argument("--noise", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=20.0, help="of noise")
    options = parser.parse_args(arguments)
    recognizer = load_recognizer("moonshine-tiny")
    assert isinstance(recognizer, WriterRecognizer)
    speech = heard(recognizer, map(read_audio, _files(options.speech))).found
    noise = heard(recognizer, noises(options.noise, options.minutes)).found
    print(f"speech: {len(speech)} finals, {sum(f[2] for f in speech)} words")
    for found in sorted(speech)[:12]:
        print("  {:.2f} {:.2f} {} {}".format(*found))
    print(f"noise: {len(noise)} finals, {sum(f[2] for f in noise)} words")
    for found in sorted(noise, reverse=True)[:20]:
        print("  {:.2f} {:.2f} {} {}".format(*found))
    short = recognizer.model.rules.short_letters
    for values in itertools.product(*GRID.values()):
        gate = Gate(short, *values)
        dropped = sum(f[2] for f in speech if not gate.passes(f[0], f[1], f[3]))
        passed = sum(f[2] for f in noise if gate.passes(f[0], f[1], f[3]))
        print(" ".join(f"{value:g}" for value in values), f"| dropped {dropped} | passed {passed}")


@dataclass(frozen=True, slots=True)
class Gate:
    """What `WriterHypothesis` would say with these numbers; see `WriterRules`."""

    short_letters: int
    certainty: float
    short_cost: float
    doubtful_share: float
    doubtful_cost: float

    def passes(self, sure: float, cost: float, text: str) -> bool:
        """Whether a text is taken for speech."""
        if sure < self.doubtful_share * self.certainty:
            return False
        if sure < self.certainty:
            return cost <= self.doubtful_cost
        letters = sum(letter.isalnum() for letter in text)
        return letters > self.short_letters or cost <= self.short_cost


if __name__ == "__main__":
    main()
