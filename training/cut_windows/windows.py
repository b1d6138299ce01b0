"""Labelled clips, and windows of them as previews have them, with what is to be written of each.

    clip ──► noise, room (some) ──► begins at a pause (some) ──► cut anywhere ──► zeros (most)

The target of a window is the clip's own tokens of the words that ended a moment before the cut.
"""

from __future__ import annotations

import json
import random
import zlib
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from streamer.adaptation.augmentation import Augmentation
from streamer.messages import SAMPLE_RATE
from training.cut_windows.adapters import END
from training.noise import noise, silence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from streamer.messages import Samples
    from streamer.recognition.moonshine_files import Tokenizer

SHORTEST_S = 0.4
"""Of a cut window."""
TAIL = 3 * SAMPLE_RATE // 10
"""Zeros behind a window, as the live path puts them behind each preview."""
MARGIN_S = 0.1
"""From the end of a word to the first cut that is to show it: alignment knows it no better."""
COMPLETE_S = 0.5
"""From the end of the last word to the first cut at which a clip is over."""
_SHORT_S = 3.0
_PAUSE_S = 0.1


@dataclass(frozen=True)
class Word:
    """A word of a label."""

    tokens: int
    """How many."""
    start: float
    end: float
    """In seconds of the clip."""


@dataclass(frozen=True)
class Clip:
    """A sentence, and what the published weights write of it."""

    samples: Samples | NDArray[np.int16]
    """Shape (n,), at 16 kHz; as integers, mapped from the file."""
    tokens: tuple[int, ...]
    words: tuple[Word, ...]
    speaker: str = ""

    @property
    def seconds(self) -> float:
        """Its length."""
        return len(self.samples) / SAMPLE_RATE

    def sound(self) -> Samples:
        """Its samples, −1 … 1."""
        whole = self.samples.dtype == np.int16
        return np.asarray(self.samples, np.float32) / np.float32(32768 if whole else 1)


@dataclass(frozen=True)
class Window:
    """What is heard, and what is to be written of it."""

    samples: Samples
    tokens: tuple[int, ...]
    """With the end."""
    inside: bool = False
    """Whether it begins inside a sentence: the first token's case is then for the model to say."""


def read_labels(folder: Path) -> list[Clip]:
    """The clips that `training.cut_windows.label` kept."""
    sound = np.memmap(folder / "audio.pcm", dtype="<i2", mode="r")
    clips = []
    for line in (folder / "labels.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "samples" in row:
            samples = sound[row["start"] : row["start"] + row["samples"]]
            words = tuple(Word(*word) for word in row["words"])
            clips.append(Clip(samples, tuple(row["tokens"]), words, row["speaker"]))
    return clips


def split(clips: Sequence[Clip], share: float = 0.06) -> tuple[list[Clip], list[Clip]]:
    """Clips to learn from and clips to look at; no speaker is in both."""
    parts: tuple[list[Clip], list[Clip]] = [], []
    for clip in clips:
        parts[zlib.crc32(clip.speaker.encode()) % 1000 < share * 1000].append(clip)
    return parts


def punctuation_of(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens without a letter or digit."""
    return frozenset(
        token
        for token in range(len(tokenizer))
        if not any(letter.isalnum() for letter in tokenizer.spell((token,)))
    )


def target(
    clip: Clip, cut_s: float, punctuation: frozenset[int], first: int = 0
) -> tuple[int, ...]:
    """The tokens to write of a clip from its word `first` to a cut, with the end.

    No punctuation ends them unless the clip is over.
    """
    skipped = sum(word.tokens for word in clip.words[:first])
    if cut_s >= min(clip.seconds - 0.02, clip.words[-1].end + COMPLETE_S):
        return *clip.tokens[skipped:], END
    said = 0
    for word in clip.words[first:]:
        if word.end > cut_s - MARGIN_S:
            break
        said += word.tokens
    tokens = clip.tokens[skipped : skipped + said]
    while tokens and tokens[-1] in punctuation:
        tokens = tokens[:-1]
    return *tokens, END


def window(clip: Clip, cut_s: float, punctuation: frozenset[int], tail: int = TAIL) -> Window:
    """The beginning of a clip, and `tail` zeros."""
    heard = clip.sound()[: round(cut_s * SAMPLE_RATE)]
    zeros = np.zeros(tail, np.float32)
    return Window(np.concatenate((heard, zeros)), target(clip, cut_s, punctuation))


class Draws:
    """Windows by chance.

    Args:
        clips: to draw from.
        punctuation: the tokens that are no words.
        seed: the same one draws the same windows.
        whole: share of whole clips; half of these are shorter than 3 s, so that the last word of
            a short utterance is not taken for one that is cut.
        tailed: share of cut windows with zeros behind, as previews are; of whole clips half.
        inside: share of cut windows that begin at a pause between two words.
        far: share of windows with other rooms, noise and levels.
        silent: share of windows with noise and no words.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        punctuation: frozenset[int],
        seed: Sequence[int],
        *,
        whole: float = 0.25,
        tailed: float = 0.75,
        inside: float = 0.2,
        far: float = 0.35,
        silent: float = 0.03,
    ) -> None:
        self._clips, self._punctuation = clips, punctuation
        self._short = [clip for clip in clips if clip.seconds < _SHORT_S] or clips
        self._whole, self._tailed, self._inside = whole, tailed, inside
        self._far, self._silent = far, silent
        self._chance = random.Random(str(seed))
        self._rng = np.random.default_rng(list(seed))
        self._augmentation = Augmentation(self._rng, strength=0.6)

    def __call__(self) -> Window:
        """Draw one."""
        chance = self._chance
        if chance.random() < self._silent:
            return Window(self._noise(), (END,))
        whole = chance.random() < self._whole
        clip = chance.choice(self._short if whole and chance.random() < 0.5 else self._clips)
        if chance.random() < self._far:
            clip = self._elsewhere(clip)
        tail = TAIL if chance.random() < (0.5 if whole else self._tailed) else 0
        front = self._faint(round(chance.uniform(0, 0.5) * SAMPLE_RATE * chance.randrange(2)))
        first, start_s = (0, 0.0) if whole else self._beginning(clip)
        cut_s = clip.seconds
        if not whole:
            cut_s = chance.uniform(min(start_s + SHORTEST_S, cut_s), cut_s)
        heard = clip.sound()[round(start_s * SAMPLE_RATE) : round(cut_s * SAMPLE_RATE)]
        samples = np.concatenate((front, heard, np.zeros(tail, np.float32)))
        return Window(samples, target(clip, cut_s, self._punctuation, first), first > 0)

    def batches(self, windows: int, seconds: float) -> list[list[Window]]:
        """So many windows, in shuffled batches of one length and up to so many seconds.

        The encoder's group norm hears the whole input, so that nothing could be masked: faint noise
        in front brings a batch to its longest window's length.
        """
        drawn = sorted((self() for _ in range(windows)), key=lambda one: len(one.samples))
        batches: list[list[Window]] = [[]]
        for one in reversed(drawn):
            batch = batches[-1]
            if batch and (len(batch) + 1) * len(batch[0].samples) > seconds * SAMPLE_RATE:
                batches.append(batch := [])
            missing = len(batch[0].samples) - len(one.samples) if batch else 0
            samples = np.concatenate((self._faint(missing), one.samples))
            batch.append(replace(one, samples=samples))
        self._chance.shuffle(batches)
        return batches

    def _beginning(self, clip: Clip) -> tuple[int, float]:
        """The window's first word, and where the window begins, in seconds."""
        pauses = [
            (index, (before.end + after.start) / 2)
            for index, (before, after) in enumerate(pairwise(clip.words), 1)
            if after.start - before.end >= _PAUSE_S
        ]
        if not pauses or self._chance.random() >= self._inside:
            return 0, 0.0
        return self._chance.choice(pauses)

    def _elsewhere(self, clip: Clip) -> Clip:
        """The clip in another room, at another level and speed, in noise."""
        sound = clip.sound()
        level = sound.std() * 10 ** self._chance.uniform(-0.8, 0.2)
        heard = self._augmentation(sound)
        words = tuple(
            replace(
                word,
                start=word.start / heard.speed + heard.offset / SAMPLE_RATE,
                end=word.end / heard.speed + heard.offset / SAMPLE_RATE,
            )
            for word in clip.words
        )
        return replace(clip, samples=heard.samples * np.float32(level), words=words)

    def _faint(self, size: int) -> Samples:
        level = np.float32(10 ** self._chance.uniform(-4.3, -3))
        return self._rng.standard_normal(size, np.float32) * level

    def _noise(self) -> Samples:
        """A piece of noise without words, from silence to as loud as speech."""
        piece = self._chance.choice((noise, silence))(self._rng)
        return piece[: round(self._chance.uniform(SHORTEST_S, 4) * SAMPLE_RATE)]
