"""Speech on disk, as training reads it: shards of raw samples, each with a table.

A shard ``NAME`` is two files: ``NAME.pcm``, the samples of all its clips one after another
(16 kHz mono, 16-bit little-endian), and ``NAME.jsonl``, one clip a line. The table is put in place
last, so a shard that has one is whole, and an interrupted preparation goes on where it was.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 16_000


@dataclass(frozen=True)
class Clip:
    """One sentence, as it was said."""

    samples: NDArray[np.int16]
    """16 kHz mono; mapped from the file, not copied."""
    text: str
    """In the letters of the vocabulary: see ``training.text.normalize``."""
    voice: str
    phones: tuple[str, ...] = ()
    ends: tuple[int, ...] | None = None
    """Where each phone ends, in samples; ``None`` where only their order is known."""


def write_shard(folder: Path, name: str, clips: Iterable[Clip]) -> float:
    """Write a shard and return its hours."""
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    unfinished = folder / f"{name}.jsonl.part"
    with open(folder / f"{name}.pcm", "wb") as pcm, open(unfinished, "w") as table:
        for clip in clips:
            pcm.write(clip.samples.astype("<i2").tobytes())
            row = {
                "start": start,
                "samples": len(clip.samples),
                "text": clip.text,
                "voice": clip.voice,
                "phones": " ".join(clip.phones),
                "ends": clip.ends,
            }
            table.write(json.dumps(row) + "\n")
            start += len(clip.samples)
    unfinished.rename(folder / f"{name}.jsonl")
    return start / SAMPLE_RATE / 3600


def has_shard(folder: Path, name: str) -> bool:
    """Whether the shard is there and whole."""
    return (folder / f"{name}.jsonl").is_file()


def read_shard(folder: Path, name: str) -> list[Clip]:
    """The clips of a shard."""
    table = (folder / f"{name}.jsonl").read_text().splitlines()
    if not table:
        return []
    sound = np.memmap(folder / f"{name}.pcm", dtype="<i2", mode="r")
    clips = []
    for line in table:
        row = json.loads(line)
        samples = sound[row["start"] : row["start"] + row["samples"]]
        ends = tuple(row["ends"]) if row["ends"] is not None else None
        clips.append(Clip(samples, row["text"], row["voice"], tuple(row["phones"].split()), ends))
    return clips


def read_set(folder: Path, kind: str) -> list[Clip]:
    """The clips of all shards ``kind-000``, ``kind-001``, ... that are there."""
    names = sorted(path.stem for path in folder.glob(f"{kind}-[0-9]*.jsonl"))
    return [clip for name in names for clip in read_shard(folder, name)]
