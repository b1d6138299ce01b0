"""Count the words that noise becomes: ``python -m training.noise [TSV]``.

An hour of made sounds, a third each of noise, music and silence, goes through the live loop; then
every file of the manifest (column ``file``), again and again, from random places and 0 to 24 dB
softer than it is, until all of them together have lasted as long. A word that a final has counts,
and so does each one that was only shown for a moment.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.config import DEFAULT_MODEL, Settings
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Event, Final, Partial
from streamer.recognition import load_recognizer
from streamer.sources.files import read_audio
from training.command import run

if TYPE_CHECKING:
    from streamer.messages import Samples
    from streamer.recognition import Recognizer

SOFTEST_DB = 24.0
PIECE_S = 10


def noise(chance: np.random.Generator) -> Samples:
    """White to brown noise, steady or in gusts, some of it with a hum of the mains."""
    size = PIECE_S * SAMPLE_RATE
    spectrum = np.fft.rfft(chance.standard_normal(size))
    spectrum[1:] /= np.arange(1, len(spectrum)) ** chance.uniform(0, 1)
    sound = np.fft.irfft(spectrum, size)
    sound /= sound.std()
    time = np.arange(size) / SAMPLE_RATE
    if chance.random() < 0.5:
        sound *= 1 + np.sin(2 * np.pi * chance.uniform(0.2, 5) * time)
    if chance.random() < 0.3:
        sound += chance.uniform(0, 2) * np.sin(2 * np.pi * 50 * time)
    return _at_level(sound, chance.uniform(-60, -25))


def music(chance: np.random.Generator) -> Samples:
    """Plucked chords over a beat: harmonic, and in the rhythm of syllables."""
    size = PIECE_S * SAMPLE_RATE
    sound = np.zeros(size)
    beat = chance.uniform(0.15, 0.6)
    for start in np.arange(0, PIECE_S, beat):
        length = min(size - int(start * SAMPLE_RATE), SAMPLE_RATE)
        time = np.arange(length) / SAMPLE_RATE
        fading = np.exp(-time * chance.uniform(2, 8))
        for _ in range(int(chance.integers(1, 4))):
            pitch = 110 * 2 ** (int(chance.integers(0, 36)) / 12)
            for overtone in range(1, 9):
                part = np.sin(2 * np.pi * pitch * overtone * time + chance.uniform(0, 6))
                sound[int(start * SAMPLE_RATE) :][:length] += part * fading / overtone
        if chance.random() < 0.5:
            drum = chance.standard_normal(length) * np.exp(-time * 60)
            sound[int(start * SAMPLE_RATE) :][:length] += drum
    return _at_level(sound, chance.uniform(-45, -15))


def silence(chance: np.random.Generator) -> Samples:
    """Nothing at all, or the faint hiss of a sound card."""
    size = PIECE_S * SAMPLE_RATE
    if chance.random() < 0.2:
        return np.zeros(size, np.float32)
    return _at_level(chance.standard_normal(size), chance.uniform(-95, -70))


KINDS = {"noise": noise, "music": music, "silence": silence}


def pieces(kind: str, seconds: float) -> Iterator[Samples]:
    """Made sounds of a kind, one after another, for at least so long."""
    chance = np.random.default_rng(0)
    for _ in range(-int(-seconds // PIECE_S)):
        yield KINDS[kind](chance)


def looped(samples: Samples, rate: int, seconds: float) -> Iterator[Samples]:
    """A recording again and again for so long."""
    chance = np.random.default_rng(0)
    heard = 0
    while heard < seconds * rate:
        turned = np.roll(samples, int(chance.integers(len(samples))))
        yield turned * np.float32(10 ** (-chance.uniform(0, SOFTEST_DB) / 20))
        heard += len(turned)


def words_of(
    recognizer: Recognizer, rate: int, sounds: Iterable[Samples]
) -> tuple[list[str], list[str], float]:
    """What a session makes of sounds.

    Returns:
        The texts of its finals, those that were shown for a moment and that no final has, and
        seconds heard.
    """
    transcriber = Transcriber(recognizer, rate, Settings())
    events = chain.from_iterable(map(transcriber.feed, sounds))
    shown: dict[int, str] = {}
    final: dict[int, str] = {}
    for event in chain(events, _late(transcriber)):
        if isinstance(event, Partial):
            text = f"{event.stable} {event.tentative}".strip()
            shown[event.segment] = max(shown.get(event.segment, ""), text, key=_words)
        elif isinstance(event, Final) and event.text:
            final[event.segment] = event.text
    passing = [text for segment, text in shown.items() if text and segment not in final]
    return list(final.values()), passing, transcriber.heard_s


def _late(transcriber: Transcriber) -> Iterator[Event]:
    yield from transcriber.finish()


def _words(text: str) -> int:
    return len(text.split())


def _at_level(sound: Any, level_db: float) -> Samples:
    """Of so many decibels on average; those of full scale are 0."""
    scaled: Samples = (sound * 10 ** (level_db / 20) / sound.std()).astype(np.float32)
    return scaled


def main(argv: list[str] | None = None) -> None:
    """Print the words of each sound, and how many they are."""
    parser = argparse.ArgumentParser(prog="python -m training.noise", description=__doc__)
    add = parser.add_argument
    add("manifest", type=Path, nargs="?", help="a .tsv with the column file")
    add("--model", default=DEFAULT_MODEL)
    add("--minutes", type=float, default=60.0, help="of made sounds, and again of the manifest")
    options = parser.parse_args(argv)
    seconds = options.minutes * 60
    recognizer = load_recognizer(options.model)
    part = seconds / len(KINDS)
    totals = [_report(k, *words_of(recognizer, SAMPLE_RATE, pieces(k, part))) for k in KINDS]
    if options.manifest:
        with options.manifest.open(encoding="utf-8", newline="") as table:
            files = [row["file"] for row in csv.DictReader(table, delimiter="\t")]
        for file in files:
            samples, rate = read_audio(options.manifest.parent / file)
            sounds = looped(samples, rate, seconds / len(files))
            totals.append(_report(file, *words_of(recognizer, rate, sounds)))
    final, passing, heard_s = (sum(column) for column in zip(*totals, strict=True))
    print(
        f"{heard_s / 60:.1f} minutes: {final} final words, "
        f"{passing} words shown for a moment ({recognizer.name})"
    )


def _report(
    name: str, final: list[str], passing: list[str], heard_s: float
) -> tuple[int, int, float]:
    """Print a line; return words of finals, words shown for a moment, and seconds."""
    print(f"{name}: {' / '.join(final) or 'no word'}", end="")
    print(f"; for a moment: {' / '.join(passing)}" if passing else "", flush=True)
    return sum(map(_words, final)), sum(map(_words, passing)), heard_s


if __name__ == "__main__":
    run(main)
