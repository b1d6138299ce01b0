"""Fit which words of a preview stay: ``python -m training.staying CHECKPOINT``.

Every second clip of the held-out sets is played through voice detection and previews; each
tentative word of each preview is one example, right if the final text has it at its place. Greedily
and, where the folder holds a language model, once more with it: the constants of
`streamer.core.stitcher.chance_to_stay` are the same for both but for the weight of doubt. Prints
them, and what they foretell of the other clips.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein
from scipy.optimize import minimize
from streamer.core.segmenter import Segmenter

from streamer.config import NO_LM, Settings
from streamer.core.ctc import FrameWord, doubt
from streamer.core.session import SHOWN_CHANCE
from streamer.core.stitcher import LONG_HEARD, Stitcher
from streamer.evaluation.padding import faint_noise
from streamer.messages import SAMPLE_RATE
from streamer.recognition import load_recognizer, resolve
from streamer.recognition.checkpoint_files import LANGUAGE_MODEL
from streamer.recognition.ctc_recognizer import CtcRecognizer
from streamer.recognition.vad import VoiceDetector
from training.command import run
from training.corpus import Clip
from training.scoring import HELD_OUT, held_out_sets

Examples = NDArray[np.float64]
"""Shape (words, 4): frames heard after the word; root of its doubt, read greedily and else; 1 if it
stayed, else 0."""
Constants = tuple[float, float, float, float]
"""Bias, gain by frame, loss by root of doubt where it is read greedily, and where it is not."""
LEFT_OUT = "chapters"
"""The set that policies are measured on whole."""


def examples(recognizer: CtcRecognizer, clips: Sequence[Clip]) -> Examples:
    """The tentative words of all previews of the clips."""
    rows = [row for clip in clips for row in _of_one(recognizer, clip)]
    return np.array(rows, np.float64).reshape(-1, 4)


def _of_one(recognizer: CtcRecognizer, clip: Clip) -> Iterator[tuple[int, float, float, bool]]:
    settings, grid = Settings(), recognizer.grid
    samples = np.asarray(clip.samples, np.float32) / np.float32(32768)
    pause = faint_noise(samples, SAMPLE_RATE)
    detector = VoiceDetector(settings.vad_mode, settings.vad_frame_ms)
    segmenter = Segmenter(settings, grid, detector)
    right_context = settings.right_context_ms * SAMPLE_RATE // 1000 // grid.hop
    stitcher = Stitcher(recognizer.vocabulary, recognizer.decoder, right_context)
    looks: list[tuple[list[FrameWord], int, int]] = []  # words, how many are stable, frames
    for window in segmenter.push(np.concatenate((pause, samples, pause))) + segmenter.flush():
        log_probs = recognizer.log_probs(window.samples)
        if not window.last:
            first = (window.start - window.onset) // grid.hop + window.left
            frames = len(stitcher.preview(first, log_probs[window.left :]))
            words = [*stitcher.stable, *stitcher.tentative]
            looks.append((words, len(stitcher.stable), frames))
            continue
        inside = log_probs[window.left : len(log_probs) - window.right]
        final, stitcher = stitcher.finish(inside, split=window.right > 0)
        for words, stable, frames in looks:
            stay = _in_place([word.text for word in words], [word.text for word in final])
            for place, word in enumerate(words[stable:], stable):
                root = doubt(word) ** 0.5
                roots = (0.0, root) if recognizer.decoder.has_language_model else (root, 0.0)
                yield frames - word.end, *roots, place in stay
        looks = []


def _in_place(shown: Sequence[str], final: Sequence[str]) -> set[int]:
    """Which of the words shown the final text has at their place, by number."""
    blocks = Levenshtein.opcodes(shown, final)
    return {
        place
        for block in blocks
        if block.tag == "equal"
        for place in range(block.src_start, block.src_end)
    }


def fit(sets: Sequence[Examples]) -> Constants:
    """The constants under which what happened is most probable.

    Each set counts the same, however long its clips are.
    """

    def surprise(constants: Constants) -> float:
        means = [
            np.logaddexp(0, np.where(known[:, 3] > 0, -1, 1) * logits(known, constants)).mean()
            for known in sets
        ]
        return float(np.mean(means))

    bias, by_frame, greedy, with_lm = minimize(surprise, (0.0, 0.02, 1.0, 1.0)).x
    return float(bias), float(by_frame), float(greedy), float(with_lm)


def logits(known: Examples, constants: Constants) -> NDArray[np.float64]:
    """What `chance_to_stay` computes, before the logistic function."""
    bias, by_frame, greedy, with_lm = constants
    result: NDArray[np.float64] = (
        bias
        + by_frame * np.minimum(known[:, 0], LONG_HEARD)
        - greedy * known[:, 1]
        - with_lm * known[:, 2]
    )
    return result


def main(argv: list[str] | None = None) -> None:
    """Print the constants and a table."""
    parser = argparse.ArgumentParser(prog="python -m training.staying", description=__doc__)
    add = parser.add_argument
    add("checkpoint", help="folder, or a name that `streamer --model` takes")
    add("--corpus", type=Path, default=Path("training/data/corpus"))
    add("--limit", type=int, help="only so many clips of each set")
    options = parser.parse_args(argv)
    sets = held_out_sets(options.corpus, options.limit)
    sets.pop(LEFT_OUT, None)
    if not sets:
        raise SystemExit(f"training: no held-out sets in {options.corpus}")
    checkpoint = resolve(options.checkpoint)
    own = (checkpoint.folder / LANGUAGE_MODEL).is_file()
    readers = {
        name: load_recognizer(Settings(lm=lm), checkpoint=checkpoint)
        for name, lm in (("greedily", NO_LM), ("with its language model", ""))[: 1 + own]
    }
    constants = fit(
        [examples(reader, clips[::2]) for reader in readers.values() for clips in sets.values()]
    )
    print("bias {:.2f}, by frame {:.4f}, by doubt {:.2f}, with_lm {:.2f}\n".format(*constants))
    print("| read, set, other half | words | stay | of those likely to | of the others |")
    print("|" + " --- |" * 5)
    for read, recognizer in readers.items():
        for name, clips in sets.items():
            known = examples(recognizer, clips[1::2])
            likely = logits(known, constants) >= np.log(SHOWN_CHANCE / (1 - SHOWN_CHANCE))
            parts = (known, known[likely], known[~likely])
            shares = [f"{part[:, 3].mean():.3f}" if len(part) else "–" for part in parts]
            print(f"| {read}, {HELD_OUT[name]} | {len(known)} | {' | '.join(shares)} |")


if __name__ == "__main__":
    run(main)
