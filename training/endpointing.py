"""How long a pause ends an utterance: ``python -m training.endpointing RECORDINGS``.

The clips of each chapter are joined and heard as a file, with several hangovers: the shorter one
is, the sooner a final comes, and the less an encoder-decoder hears around a word. The finals'
windows are also heard with zeros or faint noise behind. Choose on one half of the speakers
(`--half 0`), and give the figures of the other.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from streamer import Settings, load_recognizer, transcribe
from streamer.corpora.recordings import find_recordings
from streamer.evaluation.metrics import error_rates, scored
from streamer.evaluation.padding import faint_noise
from streamer.messages import SAMPLE_RATE, Reading, Window
from streamer.recognition.writer import WriterRecognizer
from training.command import run
from training.cuts import at_16_khz
from training.writer_biasing import half_of

HANGOVERS_MS = 400, 500, 600, 700, 800, 1000
PADDINGS = "none", "zeros", "noise"
PADDING = 3 * SAMPLE_RATE // 10


class Padded(WriterRecognizer):
    """A recognizer whose final windows are heard with something behind them."""

    padding = "none"

    def recognize(self, batch: Sequence[Window]) -> list[Reading]:
        """See `streamer.recognition.Recognizer`."""
        if self.padding != "none":
            batch = [replace(one, samples=self._padded(one.samples)) for one in batch]
        return super().recognize(batch)

    def _padded(self, samples: np.ndarray) -> np.ndarray:
        zeros = np.zeros(PADDING, np.float32)
        return np.concatenate(
            (samples, zeros if self.padding == "zeros" else faint_noise(samples, PADDING))
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each hangover and padding."""
    parser = argparse.ArgumentParser(prog="python -m training.endpointing", description=__doc__)
    add = parser.add_argument
    add("recordings", type=Path, help="as for `streamer eval --join`")
    add("--names", type=re.compile, default="", help="only chapters whose paths match this")
    add("--half", choices=("0", "1"), help="only this half of the speakers")
    add("--minutes", type=float, default=20, help="of sound at most (default 20)")
    options = parser.parse_args(arguments)
    recognizer = load_recognizer()
    assert isinstance(recognizer, WriterRecognizer)
    recognizer.__class__ = Padded
    assert isinstance(recognizer, Padded)
    sounds, references, left = [], [], options.minutes * 60 * SAMPLE_RATE
    for recording in find_recordings(options.recordings, join=True):
        path = recording.clips[0].path
        its_half = options.half is None or half_of(path) == int(options.half)
        if left <= 0 or not its_half or not options.names.search(str(path)):
            continue
        sounds.append(np.concatenate([at_16_khz(clip.path) for clip in recording.clips]))
        references.append(scored(" ".join(clip.text for clip in recording.clips)))
        left -= len(sounds[-1])
    minutes = sum(map(len, sounds)) / SAMPLE_RATE / 60
    print(f"{len(sounds)} chapters, {minutes:.1f} minutes\n")
    print("| hangover, ms | behind a final | words wrong | finals | inside a sentence |")
    print("| --- | --- | --- | --- | --- |")

    def show(hangover_ms: int, padding: str) -> None:
        recognizer.padding = padding
        settings = Settings(hangover_ms=hangover_ms)
        texts, finals = [], []
        for samples in sounds:
            heard = transcribe(samples, SAMPLE_RATE, recognizer=recognizer, settings=settings)
            texts.append(scored(heard.text))
            finals += [segment.text for segment in heard.segments]
        open_ended = sum(text[-1] not in ".?!\"'" for text in finals) / len(finals)
        wrong = error_rates(references, texts).wer
        print(
            f"| {hangover_ms} | {padding} | {wrong:.2%} | {len(finals)} | {open_ended:.0%} |",
            flush=True,
        )

    chosen = recognizer.shape.hangover_ms
    for hangover_ms in HANGOVERS_MS:
        show(hangover_ms, "none")
    for padding in PADDINGS[1:]:
        show(chosen, padding)


if __name__ == "__main__":
    run(main)
