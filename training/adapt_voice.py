"""What `streamer adapt` does for a voice: ``python -m training.adapt_voice``.

Ten minutes of festival's ``ked``, which the embedded model never heard; then other sentences of
that voice, and voices that it knew. Prints the table of docs/ctc.md.
"""

import argparse
import random
import time
from collections.abc import Sequence

import numpy as np

from streamer.adaptation.adapt import adapt, rates, seconds
from streamer.adaptation.others import other_voices
from streamer.config import Settings
from streamer.corpora.examples import Example, split_held_out
from streamer.recognition import load_finetuning, resolve
from training import synthesis
from training.command import run
from training.text import Text

MINUTES = 10
TEST_SENTENCES, OTHER_SENTENCES = 50, 100
_AROUND = synthesis.SAMPLE_RATE // 5
"""Silence before and after each sentence, in samples."""


def voices() -> tuple[list[Example], list[Example], list[Example]]:
    """What is learned from, other sentences of that voice, and sentences of voices known before."""
    sentences = Text().held_out
    said = _examples(sentences[:330], synthesis.festival(sentences[:330]))
    count = next(n for n in range(1, len(said)) if seconds(said[:n]) >= MINUTES * 60)
    rng, speak = random.Random(0), (synthesis.flite, synthesis.espeak)
    others = sentences[:OTHER_SENTENCES]
    known = [speak[number % 2](sentence, rng) for number, sentence in enumerate(others)]
    return said[:count], said[count : count + TEST_SENTENCES], _examples(others, known)


def _examples(sentences: Sequence[str], speeches: Sequence[synthesis.Speech]) -> list[Example]:
    return [
        Example(np.pad(said.samples.astype(np.float32) / 32768, _AROUND), sentence, said.voice)
        for sentence, said in zip(sentences, speeches, strict=True)
    ]


def main(argv: list[str] | None = None) -> None:
    """Adapt with frozen and with trained features, and print how often words are wrong."""
    parser = argparse.ArgumentParser(prog="python -m training.adapt_voice", description=__doc__)
    parser.add_argument("--epochs", type=int, help="default: as `streamer adapt`")
    options = parser.parse_args(argv)
    mine, test, others = voices()
    examples, held_out = split_held_out(mine)
    print("| features | way gone | time | this voice | other voices |\n|" + " --- |" * 5)
    for trained in (False, True):
        model = load_finetuning(
            resolve("embedded-sew"), Settings(accelerator="cpu"), train_features=trained
        )
        before = rates(model, test).wer, rates(model, others).wer
        began = time.monotonic()
        outcome = adapt(model, examples, held_out, other_voices(), epochs=options.epochs)
        took = time.monotonic() - began
        after = rates(model, test).wer, rates(model, others).wer
        changes = [f"{old:.3f} → {new:.3f}" for old, new in zip(before, after, strict=True)]
        features = "`--train-features`" if trained else "frozen (the default)"
        row = [features, f"{outcome.share:.0%}", f"{took:.0f} s", *changes]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    run(main)
