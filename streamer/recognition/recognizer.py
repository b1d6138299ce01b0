"""From audio to letters' log-probabilities: any CTC model of transformers that hears raw audio."""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from streamer.core.ctc import GreedyDecoder
from streamer.errors import ModelError
from streamer.messages import SAMPLE_RATE
from streamer.recognition.accelerators import choose_device
from streamer.recognition.checkpoint_files import (
    frame_grid,
    read_calibration,
    read_normalization,
    read_vocabulary,
)
from streamer.recognition.sew_cpu import load_packed

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.core.ctc import Decoder
    from streamer.messages import LogProbs, Samples
    from streamer.recognition.checkpoints import Checkpoint

_Network: TypeAlias = Callable[..., torch.Tensor]
"""Samples, and `draft`, whether a draft will do → logits."""

_WEIGHTS_A_THREAD = 50_000_000
"""A second thread saved a 40-million model 40 % of the time alone on two cores, and cost it time
where another program was using one of them; CPU time always grew."""
_CERTAIN = 20.0
"""A logit that leaves the other tokens nothing."""
_LONG_WINDOW = 8 * SAMPLE_RATE
"""Longer windows need hundreds of megabytes for a moment."""


class Recognizer:
    """A loaded model: shared, read-only, safe to call from several threads.

    The same window gives the same result. No window is ever padded: group norm looks at the whole
    window, so padding would change every frame.

    Attributes:
        name: what the model is called.
        notice: one line for the user where another model was wanted, else `None`.
        device: `cpu`, `cuda` or `mps`.
        vocabulary: the meaning of the output's columns.
        grid: how samples become frames.
        calibration: what the model's confidence in a word is worth, where that is known.
        decoder: what decodes the emissions; greedy until `load_recognizer` knows of another.
        hotwords, lm: the settings that the decoder was made of.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, accelerator: str = "auto", threads: int = 0
    ) -> None:
        """Load a model and warm it up.

        Args:
            checkpoint: where it lies.
            accelerator: `auto` (CUDA, then MPS, then CPU), `cpu`, `cuda` or `mps`.
            threads: CPU threads, for all of torch in this process; 0 takes one for each 50 million
                weights, and no more than torch would.

        Raises:
            ModelError: the checkpoint is damaged, no CTC model, or hears something else.
            SettingsError: the accelerator is not there.
        """
        self.name = checkpoint.name
        self.notice = checkpoint.notice
        self.device = choose_device(accelerator)
        self._normalize = read_normalization(checkpoint.folder)
        self._dtype = torch.float32 if self.device == "cpu" else torch.float16
        self._logits, config, weights = self._load(checkpoint)
        self.grid = frame_grid(config)
        self.vocabulary = read_vocabulary(checkpoint.folder, config["vocab_size"])
        self.calibration = read_calibration(checkpoint.folder, with_lm=False)
        self.decoder: Decoder = GreedyDecoder(self.vocabulary)
        self.hotwords: Path | None = None
        self.lm: Path | None = None
        if self.device == "cpu":
            torch.set_num_threads(
                threads or min(torch.get_num_threads(), math.ceil(weights / _WEIGHTS_A_THREAD))
            )
        self._warm_up()

    def _warm_up(self) -> None:
        logits = self._logits_of(np.zeros((1, self.grid.fit(SAMPLE_RATE)), np.float32), draft=False)
        if not bool(logits.isfinite().all()):
            raise ModelError(
                f"{self.name}: its weights hold numbers that are none; get the model again"
            )

    def _load(self, checkpoint: Checkpoint) -> tuple[_Network, dict[str, Any], int]:
        """A network of samples → logits, its configuration, and how many weights it has."""
        packed = load_packed(checkpoint.folder) if self.device == "cpu" else None
        if packed:
            return packed, packed.config, packed.size
        from streamer.recognition.models import freeze, load_model  # seconds, most of them spared

        model = load_model(checkpoint)
        freeze(model)
        weights = sum(parameter.numel() for parameter in model.parameters())
        model.to(self.device, self._dtype)
        return lambda values, draft: model(values).logits, model.config.to_dict(), weights

    def log_probs(self, samples: Samples, *, draft: bool = False) -> LogProbs:
        """Recognize one window.

        Args:
            samples: shape (n,), at `SAMPLE_RATE`.
            draft: whether speed matters more than the last digits: a SEW is then computed in
                bfloat16 where the processor can, which takes two fifths less time.

        Returns:
            Shape (grid.frames(n), vocabulary).
        """
        return self.log_probs_batch([samples], draft=draft)[0]

    def log_probs_batch(self, windows: Sequence[Samples], *, draft: bool = False) -> list[LogProbs]:
        """Recognize several windows; those of equal length go through the model together.

        Args:
            windows: each of shape (n,), at `SAMPLE_RATE`.
            draft: as for `log_probs`.

        Returns:
            As many arrays, in the same order, each as `log_probs` would give it up to rounding.
        """
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            by_length[len(window)].append(index)
        results: dict[int, LogProbs] = {}
        for length, indices in by_length.items():
            prepared = np.stack([self._prepare(windows[i]) for i in indices])
            batch = self._forward(prepared, length, draft=draft)
            results.update(zip(indices, batch, strict=True))
        return [results[index] for index in range(len(windows))]

    def _prepare(self, samples: Samples) -> Samples:
        # In the precision and order of Wav2Vec2FeatureExtractor, before any half precision.
        samples = np.asarray(samples, np.float32)
        if not self._normalize or not len(samples):
            return samples
        normal: Samples = (samples - samples.mean()) / np.sqrt(samples.var() + np.float32(1e-7))
        return normal

    def _forward(self, batch: Samples, length: int, *, draft: bool) -> LogProbs:
        """Shape (windows, length) → (windows, frames, vocabulary)."""
        frames = self.grid.frames(length)
        if not frames:
            return np.zeros((len(batch), 0, len(self.vocabulary.tokens)), np.float32)
        with torch.inference_mode():
            # A squeezed model fills an odd number of frames up with a frame of zeros: drop it.
            logits = self._logits_of(batch, draft=draft)[:, :frames]
            broken = ~logits.isfinite().all(dim=-1)
            if broken.any():  # half precision has overflowed: nothing is said there
                logits = logits.clone()
                logits[broken] = 0.0
                logits[..., self.vocabulary.blank][broken] = _CERTAIN
            result: LogProbs = torch.log_softmax(logits, dim=-1).numpy()
        if length > _LONG_WINDOW:
            _give_memory_back()
        return result

    def _logits_of(self, batch: Samples, *, draft: bool) -> torch.Tensor:
        with torch.inference_mode():
            values = torch.from_numpy(batch).to(self.device, self._dtype)
            return self._logits(values, draft=draft).float().cpu()


def _give_memory_back() -> None:
    """Where the C library is glibc: it keeps freed memory in pieces that no other length fits."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
