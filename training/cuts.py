"""What cuts do to the words around them: ``python -m training.cuts RECORDINGS``.

The clips of each chapter are joined, their pauses shortened to ``--pause``, and heard as one
recording. A place where one final ends and the next begins is a cut. Errors in the two words on
both sides of it are compared with those of all other words: a cut that doubles, loses or breaks
words shows as more of them. Chapters without pauses are cut only where they are too long.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from streamer import Settings, load_recognizer, transcribe
from streamer.core.resample import Resampler
from streamer.corpora.recordings import find_recordings
from streamer.evaluation.metrics import scored
from streamer.messages import SAMPLE_RATE
from streamer.sources.files import read_audio
from training.command import run

AROUND = 2
"""Words on both sides of a cut."""
FRAME = SAMPLE_RATE // 100
QUIET_DB = 30.0
"""A frame so far below the louder ones belongs to a pause."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """Words at cuts and elsewhere, and the errors among them."""

    cuts: int = 0
    near: int = 0
    near_errors: float = 0.0
    far: int = 0
    far_errors: float = 0.0

    def __add__(self, other: "Cuts") -> "Cuts":
        return Cuts(
            self.cuts + other.cuts,
            self.near + other.near,
            self.near_errors + other.near_errors,
            self.far + other.far,
            self.far_errors + other.far_errors,
        )

    def __str__(self) -> str:
        near, far = self.near_errors / max(self.near, 1), self.far_errors / max(self.far, 1)
        return (
            f"{self.cuts} cuts; of {self.near} words beside one {near:.1%} wrong, "
            f"of {self.far} others {far:.1%}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the errors of each chapter, and the words at cuts that are wrong."""
    parser = argparse.ArgumentParser(prog="python -m training.cuts", description=__doc__)
    add = parser.add_argument
    add("recordings", type=Path, help="as for `streamer eval --join`")
    add("--pause", type=float, default=0.1, metavar="S", help="longest pause (default 0.1)")
    add("--longest", type=int, default=30, metavar="S", help="max_utterance_s (default 30)")
    options = parser.parse_args(arguments)
    recognizer = load_recognizer()
    settings = Settings(max_utterance_s=options.longest)
    total = Cuts()
    for recording in find_recordings(options.recordings, join=True):
        samples = with_short_pauses(
            np.concatenate([at_16_khz(clip.path) for clip in recording.clips]), options.pause
        )
        truth = " ".join(clip.text for clip in recording.clips)
        heard = transcribe(samples, SAMPLE_RATE, recognizer=recognizer, settings=settings)
        found = around_cuts(truth, [segment.text for segment in heard.segments])
        print(f"{recording.name}: {len(samples) / SAMPLE_RATE:.0f} s, {found}", flush=True)
        total += found
    print(f"all: {total}")


def at_16_khz(path: Path) -> NDArray[np.float32]:
    """A recording as the models hear it, shape (n,)."""
    samples, rate = read_audio(path)
    resampler = Resampler(rate)
    return np.concatenate((resampler.push(samples), resampler.flush()))


def with_short_pauses(samples: NDArray[np.float32], longest: float) -> NDArray[np.float32]:
    """Samples at 16 kHz, shape (n,), less the middle of every pause longer than so many seconds."""
    frames = samples[: len(samples) // FRAME * FRAME].reshape(-1, FRAME)
    level = 10 * np.log10(np.mean(frames**2, axis=1) + 1e-10)
    quiet = np.convolve(level, np.ones(3) / 3, "same") < np.percentile(level, 95) - QUIET_DB
    kept = np.ones(len(frames), bool)
    edges = np.flatnonzero(np.diff(np.concatenate(([False], quiet, [False]))))
    most = round(longest * SAMPLE_RATE / FRAME)
    for first, end in edges.reshape(-1, 2):
        kept[first + most // 2 : end - (most - most // 2)] = False
    return frames[kept].ravel()


def around_cuts(truth: str, finals: Sequence[str]) -> Cuts:
    """Compare the words beside cuts with the others.

    Args:
        truth: what is said in the recording.
        finals: its finals' texts, in order.
    """
    heard: list[str] = []
    cuts = []
    for final in finals:
        heard += scored(final).split()
        cuts.append(len(heard))
    errors = np.zeros(len(heard) + 1)
    for block in Levenshtein.opcodes(scored(truth).split(), heard):
        if block.tag != "equal":
            said, written = block.src_end - block.src_start, block.dest_end - block.dest_start
            # Words that are missing count at the word behind them.
            errors[block.dest_start : max(block.dest_end, block.dest_start + 1)] += max(
                said, written
            ) / max(written, 1)
    near = np.zeros(len(errors), bool)
    for cut in cuts[:-1]:
        near[max(cut - AROUND, 0) : cut + AROUND] = True
    return Cuts(
        cuts=len(cuts) - 1,
        near=int(near.sum()),
        near_errors=float(errors[near].sum()),
        far=int((~near).sum()),
        far_errors=float(errors[~near].sum()),
    )


if __name__ == "__main__":
    run(main)
