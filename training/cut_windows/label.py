"""What the writer makes of whole training clips: ``python -m training.cut_windows.label SPEECH``.

Each clip of `train.tsv` is written down by the published weights. Where that is near enough to the
transcript it is kept, with the times of its words (forced alignment with the embedded CTC model)
and its sound. The speakers take turns, so that an early end leaves many of them. Ctrl-C or a crash
costs the clip at hand: the same command goes on. The folder of the labels holds

    labels.jsonl   one clip a line, also those that were not kept
    audio.pcm      samples of the kept clips one after another, 16 kHz mono, 16-bit little-endian
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from streamer.config import EMBEDDED_MODEL
from streamer.core.resample import Resampler
from streamer.core.word_times import word_frames
from streamer.errors import InputError
from streamer.evaluation.metrics import error_rates, scored
from streamer.evaluation.padding import AROUND, in_quiet_room
from streamer.messages import SAMPLE_RATE
from streamer.recognition.checkpoints import resolve
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.recognition.moonshine import Moonshine
from streamer.recognition.moonshine_files import installed_folder
from streamer.sources.files import read_audio
from training.command import run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from streamer.messages import Samples
    from streamer.recognition.moonshine import Writing

HELD_OUT = ("ljspeech_part1", "lj_prompts_matthes")
"""Sets of the table that are only ever evaluated on."""
SHORTEST_S, LONGEST_S = 2.0, 14.0
WORST = 0.2
"""Word error rate up to which a text is kept: the ends of words that were not said mean nothing."""
_SPREAD = 40
"""Turns over which speakers of a single clip, thousands of one source, are spread."""


@dataclass(frozen=True)
class Row:
    """A clip of the table."""

    file: str
    """Below the folder of the table."""
    speaker: str
    """With the set in front: speakers are named in each set anew."""
    transcript: str


def read_table(table: Path) -> Iterator[dict[str, str]]:
    """The rows of a table of recordings."""
    with table.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)


def in_turns(table: Path, held_out: tuple[str, ...] = HELD_OUT) -> list[Row]:
    """The clips of a table to label, each speaker's first before anybody's second."""
    speakers: dict[tuple[str, str], list[Row]] = {}
    for row in read_table(table):
        source = row["file"].split("/")[1]
        if SHORTEST_S <= float(row["seconds"]) <= LONGEST_S and source not in held_out:
            clip = Row(row["file"], f"{source}/{row['speaker']}", row["transcript"])
            speakers.setdefault((source, row["speaker"]), []).append(clip)
    chance = random.Random(1)
    order = []
    for rows in speakers.values():
        chance.shuffle(rows)
        order += [(turn + chance.random(), len(rows), row) for turn, row in enumerate(rows)]
    order.sort(key=lambda one: one[0] if one[1] > 1 else chance.random() * _SPREAD)
    return [row for *_, row in order]


def read_16k(path: Path) -> Samples:
    """A recording at 16 kHz, mono.

    Raises:
        InputError: it cannot be read.
    """
    samples, rate = read_audio(path)
    if rate == SAMPLE_RATE:
        return samples
    resampler = Resampler(rate)
    return np.concatenate((resampler.push(samples), resampler.flush()))


class Labeller:
    """The two models."""

    def __init__(self, threads: int = 1) -> None:
        self._writer = Moonshine(installed_folder(), threads=threads)
        self._follower = CtcRecognizer(resolve(EMBEDDED_MODEL), accelerator="cpu", threads=threads)

    def write(self, samples: Samples) -> Writing:
        """What the published weights write of a clip."""
        return self._writer.write(samples)

    def times(self, words: list[str], samples: Samples) -> list[tuple[float, float]]:
        """When each word begins and ends, in seconds."""
        grid, vocabulary = self._follower.grid, self._follower.vocabulary
        emission = self._follower.log_probs(in_quiet_room(samples, grid))
        return [
            ((start * grid.hop - AROUND) / SAMPLE_RATE, (end * grid.hop - AROUND) / SAMPLE_RATE)
            for start, end in word_frames(words, emission, vocabulary)
        ]

    def label(self, samples: Samples, transcript: str) -> dict[str, Any] | None:
        """The label of a clip, or `None` if it is not one to learn from.

        Returns:
            `text`, `tokens`, and of each of its `words` the number of tokens, start and end in s.
        """
        writing = self.write(samples)
        if writing.ended != "end" or not writing.words or re.search(r"\d", writing.text):
            return None
        if sum(len(word.tokens) for word in writing.words) != len(writing.tokens):
            return None
        said = scored(transcript)
        if not said or error_rates([said], [scored(writing.text)]).wer > WORST:
            return None
        times = self.times([word.text for word in writing.words], samples)
        words = [
            (len(word.tokens), round(start, 2), round(end, 2))
            for word, (start, end) in zip(writing.words, times, strict=True)
        ]
        return {"text": writing.text, "tokens": writing.tokens, "words": words}


class Labels:
    """The folder of the labels, appended to."""

    def __init__(self, folder: Path) -> None:
        """Open it; what a crash left half written is cut off."""
        folder.mkdir(parents=True, exist_ok=True)
        self.seen: set[str] = set()
        self.samples = self.kept = 0
        self._table, self._sound = folder / "labels.jsonl", folder / "audio.pcm"
        for path in (self._table, self._sound):
            path.touch()
        whole = 0
        for line in self._table.read_bytes().splitlines(keepends=True):
            with suppress(ValueError):
                row = json.loads(line)
                whole += len(line)
                self._count(row)
        os.truncate(self._table, whole)
        os.truncate(self._sound, 2 * self.samples)

    def add(self, row: Row, label: dict[str, Any] | None, pcm: NDArray[np.int16]) -> None:
        """Append a clip. The sound goes first, so that a line is never without it."""
        known: dict[str, Any] = {"file": row.file}
        if label is not None:
            known |= {"speaker": row.speaker, "start": self.samples, "samples": len(pcm), **label}
            _append(self._sound, pcm.astype("<i2").tobytes())
        _append(self._table, json.dumps(known).encode() + b"\n")
        self._count(known)

    def _count(self, known: dict[str, Any]) -> None:
        self.seen.add(known["file"])
        if "samples" in known:
            self.kept += 1
            self.samples = known["start"] + known["samples"]


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as stream:
        stream.write(data)


_labeller: Labeller
"""Of this process."""


def _load() -> None:
    global _labeller
    _labeller = Labeller()


def _label(job: tuple[Path, Row]) -> tuple[Row, dict[str, Any] | None, NDArray[np.int16]]:
    speech, row = job
    try:
        samples = read_16k(speech / row.file)
    except InputError:
        return row, None, np.zeros(0, np.int16)
    pcm = np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
    return row, _labeller.label(samples, row.transcript), pcm


def main(argv: list[str] | None = None) -> None:
    """Label clips until all are seen or the time is over."""
    parser = argparse.ArgumentParser(
        prog="python -m training.cut_windows.label",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("speech", type=Path, help="recordings with a train.tsv")
    add("--labels", type=Path, default=Path("training/data/cut_windows/labels"), help="folder")
    add("--minutes", type=float, default=1e6, help="stop after so many")
    add("--clips", type=int, help="stop after so many, of this call")
    add("--skip", type=int, default=0, help="leave out the first clips of the order")
    add("--processes", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args(argv)
    began = shown = time.monotonic()
    labels = Labels(options.labels)
    rows = in_turns(options.speech / "train.tsv")[options.skip :]
    jobs = ((options.speech, row) for row in rows if row.file not in labels.seen)
    context = multiprocessing.get_context("spawn")
    with context.Pool(options.processes, _load) as pool:
        for row, label, pcm in pool.imap(_label, islice(jobs, options.clips)):
            labels.add(row, label, pcm)
            now = time.monotonic()
            if now - shown > 20:
                shown = now
                print(_progress(labels, len(rows)), flush=True)
            if now - began > 60 * options.minutes:
                break
    print(_progress(labels, len(rows)))


def _progress(labels: Labels, rows: int) -> str:
    hours = labels.samples / SAMPLE_RATE / 3600
    return f"{len(labels.seen)} of {rows} clips seen, {labels.kept} kept, {hours:.2f} h"


if __name__ == "__main__":
    run(main)
