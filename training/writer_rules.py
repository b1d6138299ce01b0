"""What other rules would show and settle: ``python -m training.writer_rules RECORDINGS``.

Every recording goes through the live path once; what the writer and the follower made of each
window is remembered. Then all rules of a grid are played over the same windows, as often as there
are rules, without computing. Delays are those of a machine that takes no time.

Choose on some speakers and report on others (``--names`` picks recordings).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamer.config import Settings
from streamer.core.resample import Resampler
from streamer.core.writer_hypothesis import WriterHypothesis, WriterModel, WriterRules
from streamer.corpora.recordings import find_recordings
from streamer.evaluation.delays import Delays, TimedWord, percentiles
from streamer.live import Transcriber
from streamer.messages import SAMPLE_RATE, Event, Final, Partial
from streamer.recognition import load_recognizer
from streamer.recognition.writer import RULES, WriterRecognizer
from streamer.sources.files import read_audio

if TYPE_CHECKING:
    from streamer.messages import Reading, Samples, Window

GRID = {
    "show_probability": (0.5, 0.6),
    "agreed_probability": (0.2, 0.3, 0.4),
    "settle_windows": (3, 4),
    "settle_probability": (0.5, 0.6, 0.7),
    "settle_anyway_windows": (6, 9),
}
LONG_S = 4.0
"""Utterances from which the share of words that settle before the final is taken."""


class Remembering:
    """A writer that computes each window once, and hypotheses by rules that may change."""

    accelerator = "cpu"

    def __init__(self, recognizer: WriterRecognizer) -> None:
        self.name, self.shape = recognizer.name, recognizer.shape
        self.rules = RULES
        self._recognizer = recognizer
        self._known: dict[tuple[str, bytes], Reading] = {}

    def hypothesis(self, settings: Settings) -> WriterHypothesis:
        """By the rules of the moment."""
        model = self._recognizer.model
        return WriterHypothesis(WriterModel(model.vocabulary, model.grid, self.rules), settings)

    def recognize(self, batch: Sequence[Window]) -> list[Reading]:
        """From memory, where the same was heard before."""
        readings = []
        for window in batch:
            key = window.kind, window.samples.tobytes()
            if key not in self._known:
                [self._known[key]] = self._recognizer.recognize([window])
            readings.append(self._known[key])
        return readings


def heard(recognizer: Remembering, audio: Samples) -> list[Event]:
    """The events of a stream in blocks of 20 ms."""
    transcriber = Transcriber(recognizer, SAMPLE_RATE, Settings())
    events: list[Event] = []
    for start in range(0, len(audio), SAMPLE_RATE // 50):
        events += transcriber.feed(audio[start : start + SAMPLE_RATE // 50])
    return events + transcriber.finish()


def measure(recognizer: Remembering, recordings: Sequence[Samples]) -> dict[str, float]:
    """What the rules of the moment give."""
    delays = Delays()
    settled = words = 0
    for audio in recordings:
        events = heard(recognizer, audio)
        finals = [event for event in events if isinstance(event, Final)]
        truth = [TimedWord(w.word.upper(), w.start, w.end) for f in finals for w in f.words]
        delays.take(events, truth)
        stable = {e.segment: e.stable for e in events if isinstance(e, Partial)}
        for final in finals:
            if final.end - final.start > LONG_S:
                words += len(final.words)
                settled += len(stable.get(final.segment, "").split())
    shown, settle = percentiles(delays.word), percentiles(delays.settle)
    return {
        "word_p50": shown["p50"] or 0.0,
        "word_p95": shown["p95"] or 0.0,
        "settle_p50": settle["p50"] or 0.0,
        "upwr": delays.upwr,
        "retracted": delays.retracted_share,
        "stable": settled / max(1, words),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the rules as they are, then all of the grid."""
    parser = argparse.ArgumentParser(prog="python -m training.writer_rules", description=__doc__)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--names", default="", help="only recordings whose name this matches")
    parser.add_argument("--every", type=int, default=1, help="only each n-th of them")
    parser.add_argument("--grid", action="store_true", help="try other rules too")
    options = parser.parse_args(arguments)
    loaded = load_recognizer("moonshine-tiny")
    assert isinstance(loaded, WriterRecognizer)
    recognizer = Remembering(loaded)
    chosen = [
        one for one in find_recordings(options.recordings) if re.search(options.names, one.name)
    ][:: options.every]
    audio = []
    for recording in chosen:
        samples, rate = read_audio(recording.clips[0].path)
        resampler = Resampler(rate)
        heard_s = np.concatenate((resampler.push(samples), resampler.flush()))
        audio.append(np.concatenate((heard_s, np.zeros(SAMPLE_RATE, np.float32))))
    print(f"{len(audio)} recordings, {sum(map(len, audio)) / SAMPLE_RATE:.0f} s")
    show(RULES, measure(recognizer, audio))
    if not options.grid:
        return
    for values in product(*GRID.values()):
        rules = replace(RULES, **dict(zip(GRID, values, strict=True)))
        recognizer.rules = rules
        show(rules, measure(recognizer, audio))


def show(rules: WriterRules, figures: dict[str, float]) -> None:
    """One line."""
    chosen = " ".join(f"{name}={getattr(rules, name):g}" for name in GRID)
    print(f"{chosen} | " + " ".join(f"{k}={v:.3f}" for k, v in figures.items()), flush=True)


if __name__ == "__main__":
    main()
