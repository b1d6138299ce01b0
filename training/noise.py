"""Count the words that noise becomes: ``python -m training.noise TSV``.

Every file of the manifest (column ``file``) is played through the live loop again and again, from
random places and 0 to 24 dB softer than it is, until all of them together have lasted so long.
"""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streamer.config import Settings
from streamer.live import Transcriber
from streamer.messages import Event, Final, Partial
from streamer.recognition import load_recognizer
from streamer.recognition.recognizer import Recognizer
from streamer.sources.files import read_audio
from training.command import run

SOFTEST_DB = 24.0


def looped(recognizer: Recognizer, path: Path, seconds: float) -> Iterator[Event]:
    """What a session shows that hears one file for so long."""
    samples, rate = read_audio(path)
    chance = np.random.default_rng(0)
    transcriber = Transcriber(recognizer, rate, Settings())
    heard = 0
    while heard < seconds * rate:
        turned = np.roll(samples, int(chance.integers(len(samples))))
        turned = turned * np.float32(10 ** (-chance.uniform(0, SOFTEST_DB) / 20))
        yield from transcriber.feed(turned)
        heard += len(turned)
    yield from transcriber.finish()


def main(argv: list[str] | None = None) -> None:
    """Print the words of each file, and how many they are."""
    parser = argparse.ArgumentParser(prog="python -m training.noise", description=__doc__)
    add = parser.add_argument
    add("manifest", type=Path)
    add("--model", default="embedded-sew")
    add("--minutes", type=float, default=60.0)
    options = parser.parse_args(argv)
    with options.manifest.open(encoding="utf-8", newline="") as table:
        files = [row["file"] for row in csv.DictReader(table, delimiter="\t")]
    recognizer = load_recognizer(options.model)
    final = shown = 0
    for file in files:
        seconds = options.minutes * 60 / len(files)
        events = list(looped(recognizer, options.manifest.parent / file, seconds))
        texts = [event.text for event in events if isinstance(event, Final) and event.text]
        final += sum(len(text.split()) for text in texts)
        shown += sum(isinstance(e, Partial) and bool(e.stable or e.tentative) for e in events)
        print(f"{file}: {' / '.join(texts) or 'no word'}", flush=True)
    print(f"{options.minutes:g} minutes: {final} final words, {shown} partials with words")


if __name__ == "__main__":
    run(main)
