"""Fill a corpus folder: ``python -m training.prepare --speech DIR --corpus DIR``.

Synthesizes speech and decodes the recordings of ``DIR/train.tsv`` (columns ``file``,
``transcript``, ``speaker``). What is there already is left as it is, so the command can be
interrupted and repeated, also with more hours.
"""

import argparse
import csv
import math
import os
import random
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from streamer.sources.files import read_audio
from training import synthesis
from training.command import run
from training.corpus import SAMPLE_RATE, Clip, has_shard, write_shard
from training.text import Text, lines, normalize

SHARD_HOURS = 0.25
"""Of a shard, at most."""
HELD_OUT_SENTENCES = 150
LONGEST_S, SHORTEST_S = 16.0, 0.4
"""Longer and shorter clips are left out."""


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training.prepare", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder to fill")
    parser.add_argument("--speech", type=Path, help="folder of recordings, with a train.tsv")
    parser.add_argument("--text", type=Path, action="append", default=[], help="more sentences")
    parser.add_argument("--flite-hours", type=float, default=16)
    parser.add_argument("--espeak-hours", type=float, default=10)
    parser.add_argument("--held-out", type=int, default=HELD_OUT_SENTENCES, metavar="SENTENCES")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    return parser


def main(argv: list[str] | None = None) -> None:
    """Make every shard that is not there yet."""
    options = arguments().parse_args(argv)
    corpus: Path = options.corpus
    jobs = []
    if options.speech:
        rows = _recordings(options.speech, "train.tsv", longest_s=LONGEST_S)
        for number in range(0, len(rows), 250):
            name = f"recorded-{number // 250:03d}"
            jobs.append((name, partial(_decode, rows[number : number + 250])))
    for kind, hours in (("flite", options.flite_hours), ("espeak", options.espeak_hours)):
        shards = math.ceil(hours / SHARD_HOURS)
        for number in range(shards):
            name = f"{kind}-{number:03d}"
            job = partial(_synthesize, kind, name, hours / shards, options.speech, options.text)
            jobs.append((name, job))
    for kind in ("flite", "espeak", synthesis.UNHEARD_VOICE):
        name = f"heldout-{kind}-000"
        jobs.append((name, partial(held_out_clips, kind, name, 0, options.held_out)))
    if options.speech:
        other = _recordings(options.speech, "eval.tsv", "eval/libri_test_other/")
        jobs.append(("heldout-test-other-000", partial(_decode, other)))
        chapters = _recordings(options.speech, "long.tsv")
        jobs.append(("heldout-chapters-000", partial(_decode, chapters[::2])))
    jobs = [(name, job) for name, job in jobs if not has_shard(corpus, name)]
    random.Random(0).shuffle(jobs)  # an interrupted preparation has some of everything
    with ProcessPoolExecutor(options.jobs) as pool:
        made = pool.map(_make, [corpus] * len(jobs), *zip(*jobs, strict=True)) if jobs else []
        for done, (name, hours) in enumerate(made, 1):
            print(f"{done}/{len(jobs)} {name}: {hours:.2f} h", flush=True)


def _make(corpus: Path, name: str, job: partial[Iterator[Clip]]) -> tuple[str, float]:
    return name, write_shard(corpus, name, job())


def _recordings(
    speech: Path, table_name: str, prefix: str = "", longest_s: float = math.inf
) -> list[tuple[Path, str, str]]:
    with open(speech / table_name, encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
    found = []
    for row in rows:
        text = normalize(row["transcript"]) if row["file"].startswith(prefix) else None
        if text and SHORTEST_S <= float(row["seconds"]) <= longest_s:
            found.append((speech / row["file"], text, row["speaker"]))
    return found


@cache
def _text(speech: Path | None, files: tuple[Path, ...]) -> Text:
    transcripts = [text for _, text, _ in _recordings(speech, "train.tsv")] if speech else []
    return Text(transcripts, (line for file in files for line in lines(file)))


def _decode(rows: list[tuple[Path, str, str]]) -> Iterator[Clip]:
    for path, text, speaker in rows:
        sound, rate = read_audio(path)
        if rate != SAMPLE_RATE:
            sound = resample_poly(sound, SAMPLE_RATE, rate)
        samples = np.clip(sound * 32768, -32768, 32767).astype(np.int16)
        yield Clip(samples, text, speaker, synthesis.phones_of(text))


def _synthesize(
    kind: str, name: str, wanted: float, speech: Path | None, files: list[Path]
) -> Iterator[Clip]:
    text, rng, hours = _text(speech, tuple(files)), random.Random(name), 0.0
    speak = synthesis.flite if kind == "flite" else synthesis.espeak
    while hours < wanted:
        sentence = text.draw(rng)
        try:
            said = speak(sentence, rng)
        except soundfile.LibsndfileError:  # nothing was said
            continue
        if not SHORTEST_S <= len(said.samples) / SAMPLE_RATE <= LONGEST_S:
            continue
        hours += len(said.samples) / SAMPLE_RATE / 3600
        yield Clip(said.samples, sentence, said.voice, said.phones, said.ends)


def held_out_clips(kind: str, name: str, first: int, count: int) -> Iterator[Clip]:
    """Held-out sentences from the ``first`` on in a synthesizer's voices, drawn by ``name``."""
    sentences = _text(None, ()).held_out[first : first + count]
    rng = random.Random(name)
    if kind == synthesis.UNHEARD_VOICE:
        speeches = synthesis.festival(sentences)
    else:
        speak = synthesis.flite if kind == "flite" else synthesis.espeak
        speeches = [speak(sentence, rng) for sentence in sentences]
    for sentence, said in zip(sentences, speeches, strict=True):
        yield Clip(said.samples, sentence, said.voice)


if __name__ == "__main__":
    run(main)
