"""From audio to letters' log-probabilities: any CTC model of transformers that hears raw audio."""

from __future__ import annotations

import contextlib
import ctypes
import math
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch.nn.utils import parametrize

from streamer.core.ctc import FrameGrid
from streamer.errors import ModelError, SettingsError
from streamer.messages import SAMPLE_RATE
from streamer.recognition.checkpoints import Checkpoint, read_normalization, read_vocabulary

if TYPE_CHECKING:
    from streamer.messages import LogProbs, Samples

_WEIGHTS_A_THREAD = 50_000_000
"""A second thread saved a 40-million model 40 % of the time alone on two cores, and cost it time
where another program was using one of them; CPU time always grew."""
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
        self.device = _choose_device(accelerator)
        self._normalize = read_normalization(checkpoint.folder)
        model = _load(checkpoint)
        self.grid = _grid(model.config)
        self.vocabulary = read_vocabulary(checkpoint.folder, model.lm_head.out_features)
        weights = sum(parameter.numel() for parameter in model.parameters())
        self._dtype = torch.float32 if self.device == "cpu" else torch.float16
        if self.device == "cpu":
            torch.set_num_threads(
                threads or min(torch.get_num_threads(), math.ceil(weights / _WEIGHTS_A_THREAD))
            )
            if model.config.model_type == "sew" and _packing_available():
                _pack_linears(model)
        self._model = model.to(self.device, self._dtype)
        self.log_probs(np.zeros(self.grid.fit(SAMPLE_RATE), np.float32))

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
            batch = self._forward(np.stack([self._prepare(windows[i]) for i in indices]), length)
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
        with torch.inference_mode():
            values = torch.from_numpy(batch).to(self.device, self._dtype)
            # A squeezed model fills an odd number of frames up with a frame of zeros: drop it.
            logits = self._model(values).logits[:, :frames]
            result: LogProbs = torch.log_softmax(logits.float(), dim=-1).cpu().numpy()
        if length > _LONG_WINDOW:
            _give_memory_back()
        return result


def _give_memory_back() -> None:
    """Where the C library is glibc: it keeps freed memory in pieces that no other length fits."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _choose_device(accelerator: str) -> str:
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        return next(device for device, there in available.items() if there)
    if not available[accelerator]:
        there = ", ".join(device for device, there in available.items() if there)
        raise SettingsError(f"accelerator = {accelerator!r}: not on this machine; it has {there}")
    return accelerator


def _load(checkpoint: Checkpoint) -> Any:
    """The model in single precision, for inference, with its weight norm folded."""
    folder = str(checkpoint.folder)
    with _quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a damaged or foreign configuration makes it raise
            raise ModelError(
                f"{checkpoint.name}: its config.json describes no model that transformers knows"
            ) from error
        kind = (getattr(config, "architectures", None) or [config.model_type])[0]
        if type(config) not in transformers.MODEL_FOR_CTC_MAPPING or not hasattr(
            config, "conv_kernel"
        ):
            raise ModelError(
                f"{checkpoint.name}: a {kind} is no CTC model that hears raw audio; take one of "
                "SEW, SEW-D, wav2vec2, HuBERT, WavLM or Data2Vec-audio"
            )
        try:
            model, info = transformers.AutoModelForCTC.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                weights_only=True,
                output_loading_info=True,
            )
        except Exception as error:  # safetensors, pickle, torch and OSError, by kind of damage
            raise ModelError(
                f"{checkpoint.name}: its weights are damaged, do not fit its config.json, or hold "
                "more than weights; get the model again"
            ) from error
    # Used in training only, and left out by some checkpoints.
    missing = {key for key in info["missing_keys"] if not key.endswith("masked_spec_embed")}
    if any(key.startswith("lm_head") for key in missing):
        raise ModelError(
            f"{checkpoint.name}: a {kind} without a CTC head has learned no letters; "
            "take a fine-tuned model"
        )
    if missing:
        raise ModelError(
            f"{checkpoint.name}: {len(missing)} of its weights are missing, {min(missing)} for one"
        )
    if getattr(config, "add_adapter", False):
        raise ModelError(f"{checkpoint.name}: models with an adapter on top are not supported")
    model.eval().requires_grad_(False)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name)
    return model


def _grid(config: Any) -> FrameGrid:
    hop, receptive = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        receptive += (kernel - 1) * hop
        hop *= stride
    return FrameGrid(hop, receptive, hop * getattr(config, "squeeze_factor", 1))


class _PackedLinear(torch.nn.Module):
    """A linear layer whose weights lie as oneDNN's kernels want them.

    Exact to 1e-6. On windows of 1 to 5 s a SEW-tiny took 20 % less time than with plain layers.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), 100)
        self.bias = linear.bias.detach()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.weight, self.bias, "none", [], ""
        )
        return packed


def _packing_available() -> bool:
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _pack_linears(module: torch.nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, torch.nn.Linear):
            setattr(module, name, _PackedLinear(child))
        else:
            _pack_linears(child)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and warnings off the screen: what matters becomes a ModelError."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(log.CRITICAL)
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
