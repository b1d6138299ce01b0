"""What keeps noise from becoming words: ``python -m training.second_opinion SPEECH --noise NOISE``.

Both tables (columns ``file``, and ``transcript`` for speech) go through the live path. For every
final window the follower's certainty and the writer's mean probability are noted; then the gate's
numbers (`certain`, `doubtful`, `probable` of `WriterRules`) are tried: how many words of speech
they drop, and how many words of noise they let through.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamer.config import Settings
from streamer.core.ctc import certainty
from streamer.core.writer_hypothesis import WriterHypothesis
from streamer.live import Transcriber
from streamer.recognition import load_recognizer
from streamer.recognition.writer import WriterRecognizer
from streamer.sources.files import read_audio

if TYPE_CHECKING:
    from streamer.messages import Reading, Samples, Window

GRID = {
    "certain": (0.15, 0.2, 0.25, 0.3, 0.35),
    "doubtful": (0.05, 0.1, 0.15, 0.2, 0.25),
    "probable": (0.6, 0.7, 0.8, 0.9),
}
SOFTEST_DB = 24.0


class Noting:
    """A recognizer that notes of each final window (certainty, mean probability, words)."""

    accelerator = "cpu"

    def __init__(self, recognizer: WriterRecognizer) -> None:
        self.name, self.shape = recognizer.name, recognizer.shape
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
                sure = certainty(reading.emission, self._recognizer.model.vocabulary)
                mean = sum(word.probability for word in words) / len(words)
                text = " ".join(word.text for word in words)
                self.found.append((sure, mean, len(words), text))
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
    for certain, doubtful, probable in itertools.product(*GRID.values()):
        if doubtful > certain:
            continue

        def passes(found: tuple[float, float, int, str]) -> bool:
            sure, mean = found[:2]
            return sure >= certain or (sure >= doubtful and mean >= probable)  # noqa: B023

        dropped = sum(found[2] for found in speech if not passes(found))
        through = sum(found[2] for found in noise if passes(found))
        print(f"{certain} {doubtful} {probable} | dropped {dropped} | through {through}")


if __name__ == "__main__":
    main()
