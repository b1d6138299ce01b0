"""CTC models of transformers: loading one, and running it in torch."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch.nn.utils import parametrize

from streamer.errors import ModelError
from streamer.messages import SAMPLE_RATE
from streamer.recognition.accelerators import default_threads
from streamer.recognition.checkpoint_files import VOCABULARY, sampling_rate

if TYPE_CHECKING:
    from streamer.messages import Samples
    from streamer.recognition.checkpoints import Checkpoint


def hears_waveform(checkpoint: Checkpoint) -> bool:
    """Whether `load_model` and the checkpoint's small files tell all of a CTC model.

    That is so for convolutions over samples at 16 kHz and letters in a `vocab.json`.
    """
    if not (checkpoint.folder / VOCABULARY).is_file():
        return False
    with quiet():
        try:
            config = transformers.AutoConfig.from_pretrained(
                str(checkpoint.folder), local_files_only=True, trust_remote_code=False
            )
        except Exception:  # `load_model` tells what is wrong with it
            return True
    if type(config) not in transformers.MODEL_FOR_CTC_MAPPING:
        return True
    own_rate = sampling_rate(checkpoint.folder) == SAMPLE_RATE
    return hasattr(config, "conv_kernel") and own_rate and not getattr(config, "add_adapter", False)


def load_model(checkpoint: Checkpoint, *, new_head: int | None = None) -> Any:
    """A model of transformers, in single precision, on the CPU.

    Args:
        checkpoint: where it lies.
        new_head: where the model has learned no letters yet, it gets a head of random weights for
            so many; otherwise that is an error.

    Raises:
        ModelError: the checkpoint is damaged, no CTC model, or hears something else.
    """
    folder = str(checkpoint.folder)
    with quiet():
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
        if new_head is not None:
            config.vocab_size = new_head
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
    if new_head is not None:
        missing = {key for key in missing if not key.startswith("lm_head")}
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
    return model


def freeze(model: Any) -> None:
    """Make a model ready for inference alone: its weight norm is folded into the weights."""
    model.eval().requires_grad_(False)
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name)


class TorchNetwork:
    """Samples → logits: single precision on the CPU, half elsewhere. Safe to call from threads.

    Attributes:
        config: the checkpoint's, with what its file leaves out.
        threads: how many CPU threads compute one window.
    """

    def __init__(self, checkpoint: Checkpoint, accelerator: str, threads: int) -> None:
        """Load it.

        Args:
            checkpoint: where it lies.
            accelerator: `cpu`, `cuda` or `mps`.
            threads: as of `Recognizer`.

        Raises:
            ModelError: as `load_model`.
        """
        self._model = load_model(checkpoint)
        freeze(self._model)
        self.config: Mapping[str, Any] = self._model.config.to_dict()
        size = sum(parameter.numel() for parameter in self._model.parameters())
        self.threads = threads or default_threads(size, torch.get_num_threads())
        self._accelerator = accelerator
        self._dtype = torch.float32 if accelerator == "cpu" else torch.float16
        self._model.to(accelerator, self._dtype)

    def __call__(self, samples: Samples) -> Samples:
        """Shape (windows, n) → (windows, frames, vocabulary), not yet normalized."""
        with torch.inference_mode(), cpu_threads(self.threads):
            values = torch.from_numpy(samples).to(self._accelerator, self._dtype)
            return np.asarray(self._model(values).logits.float().cpu().numpy(), np.float32)


@contextlib.contextmanager
def cpu_threads(number: int) -> Iterator[None]:
    """Compute with so many threads here; torch has one number for everything in the process."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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
