"""Word and letter error rates on the held-out sets: ``python -m training.scoring CHECKPOINT``.

Greedy and, where it has one of its own or is given one, with a language model; each clip whole with
0.2 s of faint noise before and after it.
"""

import argparse
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.core.ctc import FrameGrid, FrameWord
from streamer.evaluation.metrics import ErrorRates, error_rates
from streamer.evaluation.padding import in_quiet_room
from training.command import load_ctc, run
from training.corpus import Clip, read_shard
from training.network import HOP, RECEPTIVE, SQUEEZE
from training.synthesis import UNHEARD_VOICE, flite
from training.text import lines, normalize

HELD_OUT = {
    "flite": "flite, unseen sentences, voices seen",
    UNHEARD_VOICE: "festival's ked, a synthesized voice never trained on",
    "espeak": "espeak-ng, unseen sentences, voices seen",
    "test-other": "LibriSpeech test-other",
    "chapters": "LibriSpeech dev-clean chapters kept out, every second clip",
}
"""Set → what it is."""
RECORDED = ("test-other", "chapters")
_GRID = FrameGrid(HOP, RECEPTIVE, SQUEEZE * HOP)

Transcribe = Callable[[NDArray[np.float32]], str]
"""Samples at 16 kHz → text in the letters of the vocabulary."""
Read = Callable[[NDArray[np.float32]], list[FrameWord]]
"""Log-probabilities, shape (frames, vocabulary) → words."""


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
    return in_quiet_room(np.asarray(clip.samples, np.float32) / np.float32(32768), _GRID)


def spoken(sentences: Path) -> list[Clip]:
    """The sentences of a text file, one a line, each in one of flite's four voices."""
    rng = random.Random(0)
    texts = [text for text in map(normalize, lines(sentences)) if text]
    said = [flite(text, rng) for text in texts]
    return [Clip(one.samples, text, one.voice) for text, one in zip(texts, said, strict=True)]


def main(argv: list[str] | None = None) -> None:
    """Print a table for the model card."""
    parser = argparse.ArgumentParser(prog="python -m training.scoring", description=__doc__)
    add = parser.add_argument
    add("checkpoint", help="folder, or a name that `streamer --model` takes")
    add("--corpus", type=Path, default=Path("training/data/corpus"))
    add("--text", type=Path, action="append", default=[], help="sentences, held out by you")
    add("--lm", default="", metavar="FILE", help="another language model than its own, or `none`")
    options = parser.parse_args(argv)

    from streamer.config import Settings
    from streamer.core.ctc import decode

    recognizer = load_ctc(Settings(model=options.checkpoint, lm=options.lm))
    greedy = partial(decode, vocabulary=recognizer.vocabulary)

    def transcribe_by(read: Read) -> Transcribe:
        return lambda samples: " ".join(word.text for word in read(recognizer.log_probs(samples)))

    names, sets = dict(HELD_OUT), held_out_sets(options.corpus)
    for path in options.text:
        names[path.name], sets[path.name] = f"flite, {path.name}", spoken(path)
    heading = ["set", "clips", "WER, CER"]
    if recognizer.decoder.has_language_model:
        heading += ["with the language model"]
    print(f"| {' | '.join(heading)} |\n|{' --- |' * len(heading)}")
    for name, clips in sets.items():
        row = [names[name], str(len(clips)), _score(transcribe_by(greedy), clips)]
        if recognizer.decoder.has_language_model:
            row += [_score(transcribe_by(recognizer.decoder), clips)]
        print(f"| {' | '.join(row)} |", flush=True)


def _score(transcribe: Transcribe, clips: Sequence[Clip]) -> str:
    (rates,) = score(transcribe, {"": clips}).values()
    return f"{rates.wer:.3f}, {rates.cer:.3f}"


if __name__ == "__main__":
    run(main)
