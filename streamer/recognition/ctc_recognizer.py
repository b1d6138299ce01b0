"""From audio to the log-probabilities of letters or word pieces: any CTC model of transformers."""

from __future__ import annotations

import contextlib
import ctypes
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from streamer.core.ctc import GreedyDecoder
from streamer.core.ctc_hypothesis import CtcHypothesis, CtcModel
from streamer.core.window_planner import WindowShape
from streamer.errors import ModelError
from streamer.messages import SAMPLE_RATE, Reading
from streamer.recognition.checkpoint_files import (
    LIVE_RULES,
    frame_grid,
    read_calibration,
    read_live_rules,
    read_normalization,
    read_vocabulary,
    rules_at,
)
from streamer.recognition.onnx_network import load_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from streamer.config import Settings
    from streamer.core.ctc import Decoder
    from streamer.messages import LogProbs, Samples, Window
    from streamer.recognition.checkpoints import Checkpoint
    from streamer.recognition.feature_network import FeatureNetwork

_CERTAIN = 20.0
"""A logit that leaves the other tokens nothing."""
_LONG_WINDOW = 8 * SAMPLE_RATE
"""Longer windows need hundreds of megabytes for a moment."""


class Network(Protocol):
    """What a recognizer asks: `OnnxNetwork`, `TorchNetwork` or `FeatureNetwork`."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The checkpoint's configuration."""

    @property
    def threads(self) -> int:
        """How many CPU threads compute one window."""

    def __call__(self, samples: Samples) -> Samples:
        """Shape (windows, n) → (windows, frames, vocabulary), not yet normalized."""


class CtcRecognizer:
    """A loaded model: shared, read-only, safe to call from several threads.

    The same window gives the same result. No window is ever padded: group norm looks at the whole
    window, so padding would change every frame.

    Attributes:
        name: what the model is called.
        accelerator: `cpu`, `cuda` or `mps`.
        threads: how many CPU threads compute one window, whatever other recognizers take.
        hears_waveform: whether samples go into the network as they are.
        vocabulary: the meaning of the output's columns.
        grid: how samples become frames.
        calibration: what the model's confidence in a word is worth, where that is known.
        rules: how live text is made of its emissions.
        decoder: what decodes the emissions; greedy until `load_recognizer` knows of another.
        hotwords, lm: the settings that the decoder was made of.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, accelerator: str = "auto", threads: int = 0
    ) -> None:
        """Load a model and warm it up.

        Args:
            checkpoint: where it lies.
            accelerator: `auto`, `cpu`, `cuda` or `mps`. `auto` takes the CPU for a model that
                ONNX Runtime can run, which needs neither torch nor transformers; for others the
                first of CUDA, MPS and CPU that is there.
            threads: CPU threads; 0 takes one for each 50 million weights, and no more than there
                are.

        Raises:
            ModelError: the checkpoint is damaged, no CTC model, or hears something else.
            SettingsError: the accelerator is not there.
        """
        self.name = checkpoint.name
        self.accelerator, self._network, features = _load(checkpoint, accelerator, threads)
        self.threads = self._network.threads
        self.hears_waveform = features is None
        self._normalize = self.hears_waveform and read_normalization(checkpoint.folder)
        self.grid = features.grid if features else frame_grid(self._network.config)
        rows = self._warm_up()
        self.vocabulary = (
            features.vocabulary if features else read_vocabulary(checkpoint.folder, rows)
        )
        self.calibration = read_calibration(checkpoint.folder, with_lm=False)
        self.rules = read_live_rules(checkpoint.folder)
        if not (checkpoint.folder / LIVE_RULES).is_file():
            self.rules = rules_at(self.rules, self.grid.hop)
        self.decoder: Decoder = GreedyDecoder(self.vocabulary)
        self.hotwords: Path | None = None
        self.lm: Path | None = None
        _give_memory_back()

    def _warm_up(self) -> int:
        """Recognize a second of silence; return the number of outputs."""
        logits = self._network(np.zeros((1, self.grid.fit(SAMPLE_RATE)), np.float32))
        if not np.isfinite(logits).all():
            raise ModelError(
                f"{self.name}: its weights hold numbers that are none; get the model again"
            )
        return len(logits[0, 0])

    @property
    def uses_language_model(self) -> bool:
        """Whether a language model helps to decode, be it the model's own."""
        return self.decoder.has_language_model

    @property
    def shape(self) -> WindowShape:
        """Which windows it wants."""
        stride = self.grid.stride
        context, edge = (
            -(-(milliseconds * SAMPLE_RATE // 1000) // stride) * stride
            for milliseconds in (self.rules.context_ms, self.rules.edge_ms)
        )
        return WindowShape(self.grid, context=context, slides=True, edge=edge)

    def hypothesis(self, settings: Settings) -> CtcHypothesis:
        """The text of a stream's first utterance."""
        model = CtcModel(self.vocabulary, self.shape, self.decoder, self.rules, self.calibration)
        return CtcHypothesis(model, settings)

    def recognize(self, batch: Sequence[Window]) -> list[Reading]:
        """The emissions of several windows."""
        return [Reading(emission=e) for e in self.log_probs_batch([w.samples for w in batch])]

    def log_probs(self, samples: Samples) -> LogProbs:
        """Recognize one window.

        Args:
            samples: shape (n,), at `SAMPLE_RATE`.

        Returns:
            Shape (grid.frames(n), vocabulary).
        """
        return self.log_probs_batch([samples])[0]

    def log_probs_batch(self, windows: Sequence[Samples]) -> list[LogProbs]:
        """Recognize several windows; those of equal length go through the model together.

        Args:
            windows: each of shape (n,), at `SAMPLE_RATE`.

        Returns:
            As many arrays, in the same order, each as `log_probs` would give it up to rounding.
        """
        by_length: defaultdict[int, list[int]] = defaultdict(list)
        for index, window in enumerate(windows):
            by_length[len(window)].append(index)
        results: dict[int, LogProbs] = {}
        for length, indices in by_length.items():
            prepared = np.stack([self._prepare(windows[i]) for i in indices])
            batch = self._forward(prepared, length)
            results.update(zip(indices, batch, strict=True))
        return [results[index] for index in range(len(windows))]

    def _prepare(self, samples: Samples) -> Samples:
        # In the precision and order of Wav2Vec2FeatureExtractor, before any half precision.
        samples = np.asarray(samples, np.float32)
        if not self._normalize or not len(samples):
            return samples
        normal: Samples = (samples - samples.mean()) / np.sqrt(samples.var() + np.float32(1e-7))
        return normal

    def _forward(self, batch: Samples, length: int) -> LogProbs:
        """Shape (windows, length) → (windows, frames, vocabulary)."""
        frames = self.grid.frames(length)
        if not frames:
            return np.zeros((len(batch), 0, len(self.vocabulary.tokens)), np.float32)
        # A squeezed model fills an odd number of frames up with a frame of zeros: drop it.
        logits = self._network(batch)[:, :frames]
        broken = np.asarray(~np.isfinite(logits).all(axis=-1))
        if broken.any():  # half precision has overflowed: nothing is said there
            logits = np.where(broken[..., None], np.float32(0), logits)
            logits[broken, self.vocabulary.blank] = _CERTAIN
        if length > _LONG_WINDOW:
            _give_memory_back()
        return _log_softmax(logits)


def _load(
    checkpoint: Checkpoint, accelerator: str, threads: int
) -> tuple[str, Network, FeatureNetwork | None]:
    """Where it runs, the network, and again if it has a feature extractor of its own."""
    if accelerator in ("auto", "cpu") and (network := load_onnx(checkpoint.folder, threads)):
        return "cpu", network, None
    # Seconds of importing, spared where ONNX Runtime does.
    from streamer.recognition.accelerators import choose_accelerator
    from streamer.recognition.models import TorchNetwork, hears_waveform

    accelerator = choose_accelerator(accelerator)
    if hears_waveform(checkpoint):
        return accelerator, TorchNetwork(checkpoint, accelerator, threads), None
    from streamer.recognition.feature_network import FeatureNetwork

    featured = FeatureNetwork(checkpoint, accelerator, threads)
    return accelerator, featured, featured


def _log_softmax(logits: Samples) -> LogProbs:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_probs: LogProbs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return log_probs


def _give_memory_back() -> None:
    """Where the C library is glibc: it keeps freed memory in pieces that no other length fits."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
