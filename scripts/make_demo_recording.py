"""Make streamer/demo/recording.flac: clips of LJ Speech with the pauses of somebody who reads on.

    python scripts/make_demo_recording.py FOLDER

FOLDER holds LJ Speech's clips, as they are published (`LJ001-0107.wav`) or in another form that
libsndfile reads. The same clips make the same samples.
"""

import argparse
from pathlib import Path

import numpy as np
import soundfile

from streamer.core.resample import Resampler
from streamer.messages import SAMPLE_RATE
from streamer.sources.files import read_audio

DEMO = Path(__file__).resolve().parent.parent / "streamer" / "demo"
BEFORE_S = 0.7
CLIPS = {"LJ001-0107": 0.8, "LJ001-0108": 0.9, "LJ001-0109": 1.0, "LJ001-0141": 1.0}
"""Seconds of pause after each. The clips begin and end with a tenth of a second of their own."""
ROOM = 0.0006
"""Deviation of the noise in pauses and beneath speech, where the loudest sample is 1: that of the
clips between their words."""
FADE = SAMPLE_RATE // 50
"""Samples over which a clip comes and goes, so that its own noise makes no step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    pieces = [np.zeros(round(BEFORE_S * SAMPLE_RATE), np.float32)]
    for name, pause in CLIPS.items():
        [path] = folder.rglob(f"{name}.*")
        samples, rate = read_audio(path)
        resampler = Resampler(rate)
        clip = np.concatenate((resampler.push(samples), resampler.flush()))
        slope = np.linspace(0, 1, FADE, dtype=np.float32)
        clip[:FADE] *= slope
        clip[-FADE:] *= slope[::-1]
        pieces += [clip, np.zeros(round(pause * SAMPLE_RATE), np.float32)]
    speech = np.concatenate(pieces)
    speech += ROOM * np.random.default_rng(0).standard_normal(len(speech), np.float32)
    soundfile.write(DEMO / "recording.flac", speech, SAMPLE_RATE, subtype="PCM_16")
    print(f"{len(speech) / SAMPLE_RATE:.1f} s")


if __name__ == "__main__":
    main()
