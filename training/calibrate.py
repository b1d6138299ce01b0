"""Fit what confidence means for a model's weights: ``python -m training.calibrate CHECKPOINT``.

Every second clip of each held-out set teaches `streamer.core.ctc.Calibration`; the others say what
that is worth. Once for words that are read greedily and, where the folder holds a language model,
once for words that are read with it. Writes ``calibration.json`` into the checkpoint's folder, with
the SHA-256 of the weights that it is of: run it again whenever they change.
"""

import argparse
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from streamer.config import NO_LM, Settings
from streamer.core.ctc import Calibration, FrameWord, doubt
from streamer.evaluation.calibration import are_right, calibration_error
from streamer.recognition import resolve
from streamer.recognition.checkpoint_files import CALIBRATION, LANGUAGE_MODEL
from streamer.recognition.ctc_recognizer import CtcRecognizer
from training.command import load_ctc, run
from training.corpus import Clip
from training.scoring import HELD_OUT, held_out_sets, padded


@dataclass
class Heard:
    """Words of several clips, and which of them are right."""

    words: list[FrameWord] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def __add__(self, other: "Heard") -> "Heard":
        return Heard(self.words + other.words, self.right + other.right)

    def row(self, calibration: Calibration) -> str:
        """How many, the share that is right, and confidence before and after."""
        raw = [word.confidence for word in self.words]
        fitted = [calibration(word) for word in self.words]
        figures = [float(np.mean(self.right))]
        for claimed in (raw, fitted):
            figures += [float(np.mean(claimed)), calibration_error(claimed, self.right)]
        return " | ".join([str(len(self.words)), *(f"{figure:.3f}" for figure in figures)])


def hear(recognizer: CtcRecognizer, clips: Sequence[Clip]) -> Heard:
    """Recognize clips as `training.scoring` does."""
    heard = Heard()
    for clip in clips:
        words = recognizer.decoder(recognizer.log_probs(padded(clip)))
        heard.words += words
        heard.right += are_right(clip.text.split(), [word.text for word in words])
    return heard


def fit(heard: Heard) -> Calibration:
    """The calibration under which what was right, and what was not, is most probable."""
    x = np.sqrt([doubt(word) for word in heard.words])
    sign = np.where(heard.right, 1.0, -1.0)

    def surprise(bias_and_slope: Sequence[float]) -> float:
        bias, slope = bias_and_slope
        return float(np.logaddexp(0, -sign * (bias - slope * x)).mean())

    bias, slope = minimize(surprise, (1.0, 1.0)).x
    return Calibration(round(float(bias), 4), round(float(slope), 4))


def calibrate(
    recognizer: CtcRecognizer, sets: Mapping[str, Sequence[Clip]]
) -> tuple[Calibration, dict[str, Heard]]:
    """The calibration of every second clip, and what was heard in the others of each set."""
    taught = sum((hear(recognizer, clips[::2]) for clips in sets.values()), Heard())
    if len(set(taught.right)) < 2:
        raise SystemExit("training: no clips, or no word of them is right, or none wrong")
    tested = {name: hear(recognizer, clips[1::2]) for name, clips in sets.items()}
    return fit(taught), {name: heard for name, heard in tested.items() if heard.words}


def main(argv: list[str] | None = None) -> None:
    """Fit, write, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m training.calibrate", description=__doc__)
    parser.add_argument("checkpoint", help="folder, or a name that `streamer --model` takes")
    parser.add_argument("--corpus", type=Path, default=Path("training/data/corpus"))
    options = parser.parse_args(argv)
    checkpoint = resolve(options.checkpoint)
    weights = next(checkpoint.folder.glob("*.safetensors"), checkpoint.folder / "pytorch_model.bin")
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    own = (checkpoint.folder / LANGUAGE_MODEL).is_file()
    written: dict[str, object] = {"weights_sha256": sha256}
    sets = held_out_sets(options.corpus)
    for reader, lm in (("greedy", NO_LM), ("lm", None))[: 1 + own]:
        recognizer = load_ctc(Settings(lm=lm), checkpoint)
        calibration, tested = calibrate(recognizer, sets)
        written[reader] = {"bias": calibration.bias, "slope": calibration.slope}
        print(f"\n{reader}: bias {calibration.bias}, slope {calibration.slope}\n")
        print("| set, other half | words | right | mean, ECE before | | mean, ECE after | |")
        print("|" + " --- |" * 7)
        for name, heard in tested.items():
            print(f"| {HELD_OUT[name]} | {heard.row(calibration)} |")
        print(f"| all | {sum(tested.values(), Heard()).row(calibration)} |")
    (checkpoint.folder / CALIBRATION).write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
