"""Another program's live text, measured as ours: ``python -m training.rivals RECORDINGS``.

`moonshine-voice`'s own library on the same weights: audio goes in as fast as it comes in, blocks of
0.1 s, and what it says is taken as it stands. Its words count as `streamer eval` counts ours; the
cost is CPU seconds for a second of audio. Run `streamer eval RECORDINGS --policies streamer` beside
it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from moonshine_voice import ModelArch, Transcriber

from streamer.core.resample import Resampler
from streamer.corpora.recordings import find_recordings
from streamer.evaluation.metrics import error_rates, scored
from streamer.messages import SAMPLE_RATE
from streamer.recognition import resolve
from streamer.sources.files import read_audio
from training.command import run

BLOCK = SAMPLE_RATE // 10


def main(arguments: Sequence[str] | None = None) -> None:
    """Print words wrong and cost: whole recordings at once, and live."""
    parser = argparse.ArgumentParser(prog="python -m training.rivals", description=__doc__)
    parser.add_argument("recordings", type=Path)
    options = parser.parse_args(arguments)
    transcriber = Transcriber(str(resolve("moonshine-tiny").folder), ModelArch.TINY)
    for name, hear in (("whole", _whole), ("live", _live)):
        said, heard, seconds = [], [], 0.0
        began = time.process_time()
        for recording in find_recordings(options.recordings):
            for clip in recording.clips:
                samples, rate = read_audio(clip.path)
                resampler = Resampler(rate)
                audio = np.concatenate((resampler.push(samples), resampler.flush()))
                audio = np.concatenate((audio, np.zeros(SAMPLE_RATE, np.float32)))
                said.append(scored(clip.text))
                heard.append(scored(hear(transcriber, audio)))
                seconds += len(samples) / rate
        cost = (time.process_time() - began) / seconds
        rates = error_rates(said, heard)
        print(
            f"moonshine-voice, {name}: WER {rates.wer:.4f} of {rates.words} words, {cost:.3f} CPU-s"
        )


def _whole(transcriber: Transcriber, audio: np.ndarray) -> str:
    found = transcriber.transcribe_without_streaming(audio.tolist(), SAMPLE_RATE)
    return " ".join(line.text for line in found.lines)


def _live(transcriber: Transcriber, audio: np.ndarray) -> str:
    stream = transcriber.create_stream()
    stream.start()
    for start in range(0, len(audio), BLOCK):
        stream.add_audio(audio[start : start + BLOCK].tolist(), SAMPLE_RATE)
    found = stream.stop()
    stream.close()
    return " ".join(line.text for line in found.lines)


if __name__ == "__main__":
    run(main)
