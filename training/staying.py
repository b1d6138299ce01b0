"""Fit which words of a preview stay: ``python -m training.staying CHECKPOINT``.

Every second clip of the held-out sets is played through voice detection and previews; each
tentative word of each preview is one example, right if the final text has it at its place. Greedily
and, where the folder holds a language model, once more with it: the rules are the same for both but
for the weight of doubt. Prints them as the fields that ``live.json`` beside the weights has for
them, and what they foretell of the other clips; ``--write`` puts them there.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from scipy.optimize import minimize

from streamer.config import NO_LM, Settings
from streamer.core.ctc import FrameWord, doubt
from streamer.core.ctc_hypothesis import CtcHypothesis, CtcModel
from streamer.core.window_planner import WindowPlanner
from streamer.evaluation.padding import faint_noise
from streamer.messages import SAMPLE_RATE
from streamer.recognition import resolve
from streamer.recognition.checkpoint_files import LANGUAGE_MODEL, LIVE_RULES, read_live_rules
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.recognition.vad import VoiceDetector
from training.command import load_ctc, run
from training.corpus import Clip
from training.scoring import HELD_OUT, held_out_sets

Examples = NDArray[np.float64]
"""Shape (words, 4): frames heard after the word; root of its doubt, read greedily and else; 1 if it
stayed, else 0."""
Constants = tuple[float, float, float, float]
"""Bias, gain by frame, loss by root of doubt where it is read greedily, and where it is not."""
FIELDS = ("stay_bias", "stay_by_frame", "stay_by_doubt", "stay_by_doubt_with_lm")
"""Of `CtcRules`, in the order of the constants."""
DECIMALS = (2, 4, 2, 2)
LEFT_OUT = "chapters"
"""The set that policies are measured on whole."""


def examples(recognizer: CtcRecognizer, clips: Sequence[Clip]) -> Examples:
    """The tentative words of all previews of the clips."""
    rows = [row for clip in clips for row in _of_one(recognizer, clip)]
    return np.array(rows, np.float64).reshape(-1, 4)


def _of_one(recognizer: CtcRecognizer, clip: Clip) -> Iterator[tuple[int, float, float, bool]]:
    # What is taken for noise has words too.
    settings = Settings(raw=True, min_certainty=0.0)
    rules = replace(recognizer.rules, sparse_letters_a_second=0.0)
    model = CtcModel(recognizer.vocabulary, recognizer.shape, recognizer.decoder, rules)
    hypothesis = CtcHypothesis(model, settings)
    samples = np.asarray(clip.samples, np.float32) / np.float32(32768)
    pause = faint_noise(samples, SAMPLE_RATE)
    detector = VoiceDetector(settings.vad_mode, settings.vad_frame_ms)
    planner = WindowPlanner(settings, recognizer.shape, detector)
    previews: list[tuple[list[FrameWord], int, int]] = []  # words, how many are stable, frames
    for window in planner.push(np.concatenate((pause, samples, pause))) + planner.flush():
        (reading,) = recognizer.recognize([window])
        if window.kind != "final":
            hypothesis.update(window, reading)
            stitcher = hypothesis.stitcher
            words = [*stitcher.stable, *stitcher.tentative]
            previews.append((words, len(stitcher.stable), len(stitcher.emission)))
            continue
        final = hypothesis.close(window, reading).raw.split()
        hypothesis = hypothesis.following()
        for words, stable, frames in previews:
            stay = _in_place([word.text for word in words], final)
            for place, word in enumerate(words[stable:], stable):
                root = doubt(word) ** 0.5
                roots = (0.0, root) if recognizer.decoder.has_language_model else (root, 0.0)
                yield frames - word.end, *roots, place in stay
        previews = []


def _in_place(shown: Sequence[str], final: Sequence[str]) -> set[int]:
    """Which of the words shown the final text has at their place, by number."""
    blocks = Levenshtein.opcodes(shown, final)
    return {
        place
        for block in blocks
        if block.tag == "equal"
        for place in range(block.src_start, block.src_end)
    }


def fit(sets: Sequence[Examples], most_frames: int) -> Constants:
    """The constants under which what happened is most probable.

    Each set counts the same, however long its clips are. More than `most_frames` after a word
    count no more (`CtcRules.stay_frames`).
    """

    def surprise(constants: Constants) -> float:
        means = [
            np.logaddexp(
                0, np.where(known[:, 3] > 0, -1, 1) * logits(known, constants, most_frames)
            ).mean()
            for known in sets
        ]
        return float(np.mean(means))

    bias, by_frame, greedy, with_lm = minimize(surprise, (0.0, 0.02, 1.0, 1.0)).x
    return float(bias), float(by_frame), float(greedy), float(with_lm)


def logits(known: Examples, constants: Constants, most_frames: int) -> NDArray[np.float64]:
    """What `CtcRules.chance_to_stay` computes, before the logistic function."""
    bias, by_frame, greedy, with_lm = constants
    result: NDArray[np.float64] = (
        bias
        + by_frame * np.minimum(known[:, 0], most_frames)
        - greedy * known[:, 1]
        - with_lm * known[:, 2]
    )
    return result


def main(argv: list[str] | None = None) -> None:
    """Print the fitted rules and a table."""
    parser = argparse.ArgumentParser(prog="python -m training.staying", description=__doc__)
    add = parser.add_argument
    add("checkpoint", help="folder, or a name that `streamer --model` takes")
    add("--corpus", type=Path, default=Path("training/data/corpus"))
    add("--limit", type=int, help="only so many clips of each set")
    add("--write", action="store_true", help=f"put the rules into the checkpoint's {LIVE_RULES}")
    options = parser.parse_args(argv)
    sets = held_out_sets(options.corpus, options.limit)
    sets.pop(LEFT_OUT, None)
    if not sets:
        raise SystemExit(f"training: no held-out sets in {options.corpus}")
    checkpoint = resolve(options.checkpoint)
    own = (checkpoint.folder / LANGUAGE_MODEL).is_file()
    readers = {
        name: load_ctc(Settings(lm=lm), checkpoint)
        for name, lm in (("greedily", NO_LM), ("with its language model", None))[: 1 + own]
    }
    rules = read_live_rules(checkpoint.folder)
    constants = fit(
        [examples(reader, clips[::2]) for reader in readers.values() for clips in sets.values()],
        rules.stay_frames,
    )
    fitted = {
        field: round(value, decimals)
        for field, value, decimals in zip(FIELDS, constants, DECIMALS, strict=True)
    }
    print(json.dumps(fitted), end="\n\n")
    if options.write:
        written = json.dumps({**asdict(rules), **fitted}, indent=1) + "\n"
        (checkpoint.folder / LIVE_RULES).write_text(written)
    print("| read, set, other half | words | stay | of those likely to | of the others |")
    print("|" + " --- |" * 5)
    for read, recognizer in readers.items():
        for name, clips in sets.items():
            known = examples(recognizer, clips[1::2])
            shown = np.log(rules.show_chance / (1 - rules.show_chance))
            likely = logits(known, constants, rules.stay_frames) >= shown
            parts = (known, known[likely], known[~likely])
            shares = [f"{part[:, 3].mean():.3f}" if len(part) else "–" for part in parts]
            print(f"| {read}, {HELD_OUT[name]} | {len(known)} | {' | '.join(shares)} |")


if __name__ == "__main__":
    run(main)
