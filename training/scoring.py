"""Word and letter error rates on the held-out sets: ``python -m training.scoring CHECKPOINT``.

Greedy, no language model, each clip whole with 0.2 s of faint noise before and after it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.core.ctc import FrameGrid
from streamer.evaluation.metrics import ErrorRates, error_rates
from streamer.evaluation.offline import in_quiet_room
from training.corpus import Clip, read_shard
from training.network import HOP, RECEPTIVE, SQUEEZE
from training.synthesis import UNHEARD_VOICE

HELD_OUT = {
    "flite": "flite, unseen sentences, voices seen",
    UNHEARD_VOICE: "festival's ked, a synthesized voice never trained on",
    "espeak": "espeak-ng, unseen sentences, voices seen",
    "test-other": "LibriSpeech test-other",
    "chapters": "LibriSpeech dev-clean chapters kept out, every second clip",
}
"""Set → what it is."""
_GRID = FrameGrid(HOP, RECEPTIVE, SQUEEZE * HOP)

Transcribe = Callable[[NDArray[np.float32]], str]
"""Samples at 16 kHz → text in the letters of the vocabulary."""


def held_out_sets(corpus: Path, limit: int | None = None) -> dict[str, list[Clip]]:
    """The held-out sets that lie in a corpus folder, ``limit`` clips of each at most."""
    return {
        name: read_shard(corpus, f"heldout-{name}-000")[:limit]
        for name in HELD_OUT
        if (corpus / f"heldout-{name}-000.jsonl").is_file()
    }


def score(transcribe: Transcribe, sets: Mapping[str, Sequence[Clip]]) -> dict[str, ErrorRates]:
    """Error rates of each set."""
    return {
        name: error_rates(
            [clip.text for clip in clips], [transcribe(padded(clip)) for clip in clips]
        )
        for name, clips in sets.items()
        if clips
    }


def padded(clip: Clip) -> NDArray[np.float32]:
    """The clip as it is heard here."""
    return in_quiet_room(np.asarray(clip.samples, np.float32) / 32768, _GRID)


def main(argv: list[str] | None = None) -> None:
    """Print a table for the model card."""
    parser = argparse.ArgumentParser(prog="python -m training.scoring", description=__doc__)
    parser.add_argument("checkpoint", help="folder, or a name that `streamer --model` takes")
    parser.add_argument("--corpus", type=Path, default=Path("training/data/corpus"))
    options = parser.parse_args(argv)

    from streamer.core.ctc import decode
    from streamer.recognition import load_recognizer

    recognizer = load_recognizer(options.checkpoint)

    def transcribe(samples: NDArray[np.float32]) -> str:
        words = decode(recognizer.log_probs(samples), recognizer.vocabulary)
        return " ".join(word.text for word in words)

    sets = held_out_sets(options.corpus)
    print("| set | clips | WER | CER |\n| --- | --- | --- | --- |")
    for name, rates in score(transcribe, sets).items():
        row = f"{HELD_OUT[name]} | {len(sets[name])} | {rates.wer:.3f} | {rates.cer:.3f}"
        print(f"| {row} |", flush=True)


if __name__ == "__main__":
    main()
