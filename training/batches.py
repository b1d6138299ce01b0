"""Clips of about one length → the arrays of one training step."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from streamer.adaptation.augmentation import Augmentation, Heard
from streamer.recognition.checkpoint_files import SEW_TINY_TOKENS
from training.corpus import Clip
from training.network import HOP, RECEPTIVE, SQUEEZE
from training.synthesis import PHONES, SAMPLE_RATE

_STEP = 19 * SQUEEZE * HOP
_WHOLE = RECEPTIVE - HOP
"""A window of so many samples more than a multiple of two hops has no partial frame."""
_SLACK = 1.14, 7_200
"""How much longer augmentation makes a clip, at most: by a factor, and samples around it."""
UNKNOWN = -100
"""A frame whose phone no synthesizer marked."""

_LETTER = {" " if token == "|" else token: number for number, token in enumerate(SEW_TINY_TOKENS)}
_PHONE = {phone: number for number, phone in enumerate(PHONES)}


@dataclass(frozen=True)
class Batch:
    """One step's clips; the lists of targets run on from clip to clip."""

    samples: Tensor
    """Shape (clips, samples)."""
    frames: Tensor
    """Frames of each clip that are not filling."""
    letters: Tensor
    letter_counts: Tensor
    phones: Tensor
    """From 1: 0 is the blank."""
    phone_counts: Tensor
    phone_frames: Tensor
    """Shape (clips, frames / 2): the phone at each, or ``UNKNOWN``."""
    kind: str


class Batches(IterableDataset[Batch]):
    """Endless batches: a set by weight, then clips of one bucket of lengths.

    The same few lengths come again and again, for which the kernels are built once.
    """

    def __init__(
        self,
        sets: Mapping[str, Sequence[Clip]],
        weights: Mapping[str, float],
        *,
        seconds: float,
        seed: int,
        augmentation: float,
    ) -> None:
        """``seconds`` of sound to a batch; ``seed`` chooses the order and all that is drawn."""
        self._seconds, self._seed, self._augmentation = seconds, seed, augmentation
        self._kinds = [kind for kind in weights if sets.get(kind)]
        shares = np.array([weights[kind] for kind in self._kinds])
        self._shares = shares / shares.sum()
        self._buckets: dict[str, dict[int, list[Clip]]] = {}
        for kind in self._kinds:
            buckets: dict[int, list[Clip]] = defaultdict(list)
            for clip in sets[kind]:
                buckets[bucket(len(clip.samples))].append(clip)
            self._buckets[kind] = dict(buckets)

    def __iter__(self) -> Iterator[Batch]:
        """Batches without end; each worker process its own."""
        worker = get_worker_info()
        rng = np.random.default_rng([self._seed, worker.id if worker else 0])
        augment = Augmentation(rng, self._augmentation)
        while True:
            kind = self._kinds[rng.choice(len(self._kinds), p=self._shares)]
            buckets = self._buckets[kind]
            lengths = list(buckets)
            hours = np.array([len(buckets[length]) * length for length in lengths], float)
            length = lengths[rng.choice(len(lengths), p=hours / hours.sum())]
            clips = buckets[length]
            size = max(1, round(self._seconds * SAMPLE_RATE / length))
            chosen = [clips[i] for i in rng.integers(len(clips), size=size)]
            yield collate(chosen, length, augment, kind)


def bucket(samples: int) -> int:
    """The length, in samples, of the batches in which a clip of ``samples`` goes."""
    factor, more = _SLACK
    return -(-int(samples * factor + more - _WHOLE) // _STEP) * _STEP + _WHOLE


def collate(clips: Sequence[Clip], length: int, augment: Augmentation, kind: str) -> Batch:
    """Augment clips and lay them into rows of faint noise."""
    rows = augment.faint((len(clips), length))
    marks = np.full((len(clips), (length - RECEPTIVE) // (SQUEEZE * HOP) + 1), UNKNOWN)
    frames, letters, phones = [], [], []
    for row, marked, clip in zip(rows, marks, clips, strict=True):
        heard = augment(np.asarray(clip.samples, np.float32))
        sound = heard.samples[:length]
        row[: len(sound)] = sound
        frames.append(max(1, (len(sound) - RECEPTIVE) // HOP + 1))
        if clip.ends is not None:
            marked[:] = _phones_at(clip, heard, marked.size)
        letters.append([_LETTER[letter] for letter in clip.text])
        phones.append([1 + _PHONE[phone] for phone in clip.phones if phone != "pau"])
    return Batch(
        torch.from_numpy(rows),
        torch.tensor(frames),
        torch.tensor([letter for row in letters for letter in row]),
        torch.tensor([len(row) for row in letters]),
        torch.tensor([phone for row in phones for phone in row]),
        torch.tensor([len(row) for row in phones]),
        torch.from_numpy(marks),
        kind,
    )


def _phones_at(clip: Clip, heard: Heard, frames: int) -> NDArray[np.int64]:
    """The phone at the middle of each inner frame; a pause outside the clip."""
    middle = (np.arange(frames) * SQUEEZE + (SQUEEZE - 1) / 2) * HOP + RECEPTIVE / 2
    position = (middle - heard.offset) * heard.speed
    numbers = np.array([*(_PHONE[phone] for phone in clip.phones), _PHONE["pau"]])
    found = numbers[np.searchsorted(np.asarray(clip.ends), position)]
    return np.where(position < 0, _PHONE["pau"], found)
