"""A CTC model that goes on learning: gradients, steps, and a checkpoint folder at the end."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from streamer.errors import ModelError
from streamer.recognition.accelerators import choose_accelerator, multiplies_bfloat16
from streamer.recognition.checkpoint_files import (
    BEAM_RULES,
    GRAPH,
    LANGUAGE_MODEL,
    LANGUAGE_MODEL_LICENSE,
    LIVE_RULES,
    SEW_TINY_LETTERS,
    SEW_TINY_TOKENS,
    SMALL_FILES,
    VOCABULARY,
    frame_grid,
    read_normalization,
    read_vocabulary,
    write_small_files,
)
from streamer.recognition.models import load_model, quiet

if TYPE_CHECKING:
    from streamer.messages import LogProbs, Samples
    from streamer.recognition.checkpoints import Checkpoint

_NEW_HEAD_FASTER = 10.0
"""A head of random weights learns at so many times the rate of what is pre-trained."""


class FineTuning:
    """A model in training. One thread drives it.

    The convolutions that hear the waveform stay as they are unless asked for: a small amount of
    speech cannot teach them anything that the rest cannot learn, and without them a step takes
    half the time.

    Attributes:
        vocabulary: the meaning of the output's columns.
        grid: how samples become frames.
        accelerator: `cpu`, `cuda` or `mps`.
        new_head: whether the model had no letters and begins with random ones.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        accelerator: str = "auto",
        threads: int = 0,
        train_features: bool = False,
    ) -> None:
        """Load a model, one without a CTC head too: that one gets SEW-tiny's letters.

        Raises:
            ModelError: as `Recognizer`.
            SettingsError: the accelerator is not there.
        """
        self._checkpoint = checkpoint
        self.accelerator = choose_accelerator(accelerator)
        if threads:
            torch.set_num_threads(threads)
        self._normalize = read_normalization(checkpoint.folder)
        self.new_head = not (checkpoint.folder / VOCABULARY).is_file()
        letters = len(SEW_TINY_TOKENS) if self.new_head else None
        self._model = load_model(checkpoint, new_head=letters).to(self.accelerator)
        self.grid = frame_grid(self._model.config.to_dict())
        self.vocabulary = (
            SEW_TINY_LETTERS
            if self.new_head
            else read_vocabulary(checkpoint.folder, self._model.lm_head.out_features)
        )
        if not train_features:
            self._model.freeze_feature_encoder()
        head = list(self._model.lm_head.parameters())
        in_head = {id(parameter) for parameter in head}
        body = [
            parameter
            for parameter in self._model.parameters()
            if parameter.requires_grad and id(parameter) not in in_head
        ]
        faster = _NEW_HEAD_FASTER if self.new_head else 1.0
        self._optimizer = torch.optim.AdamW(
            [{"params": body, "faster": 1.0}, {"params": head, "faster": faster}],
            lr=0.0,
            betas=(0.9, 0.98),
            weight_decay=0.01,
        )
        self._autocast = _half_precision(self.accelerator)

    def step(
        self, rows: Samples, frames: Sequence[int], targets: Sequence[Sequence[int]], rate: float
    ) -> float:
        """Learn one batch and return its loss, per letter.

        Args:
            rows: shape (clips, n), each clip of mean 0 and deviation 1.
            frames: emission frames of each clip, the filling behind it left out.
            targets: the token ids of each clip.
            rate: of learning.
        """
        self._model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["faster"]
        samples = torch.from_numpy(rows).to(self.accelerator)
        with torch.autocast(
            self.accelerator, self._autocast or torch.float32, enabled=self._autocast is not None
        ):
            logits = self._model(samples).logits
        log_probs = logits.float().log_softmax(-1).transpose(0, 1)
        loss: Tensor = functional.ctc_loss(
            log_probs,
            torch.tensor(
                [number for target in targets for number in target], device=self.accelerator
            ),
            torch.tensor(frames).clamp(max=log_probs.shape[0]),
            torch.tensor([len(target) for target in targets]),
            blank=self.vocabulary.blank,
            zero_infinity=True,
        )
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        return loss.item()

    def log_probs(self, samples: Samples) -> LogProbs:
        """As `Recognizer.log_probs`, with the weights of this moment."""
        self._model.eval()
        samples = np.asarray(samples, np.float32)
        if self._normalize:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + np.float32(1e-7))
        with torch.inference_mode():
            logits = self._model(torch.from_numpy(samples)[None].to(self.accelerator)).logits
        result: LogProbs = (
            logits[0, : self.grid.frames(len(samples))].float().log_softmax(-1).cpu().numpy()
        )
        return result

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights of this moment."""
        return {name: value.detach().clone() for name, value in self._model.state_dict().items()}

    def set_weights(self, weights: dict[str, Tensor]) -> None:
        """Go back to weights that `weights` gave."""
        self._model.load_state_dict(weights)

    def mix(self, first: dict[str, Tensor], second: dict[str, Tensor], share: float) -> None:
        """Take the mean of two sets of weights: `share` of the second, the rest of the first."""
        self.set_weights(
            {
                name: torch.lerp(value, second[name], share) if value.is_floating_point() else value
                for name, value in first.items()
            }
        )

    def save(self, folder: Path) -> None:
        """Write a checkpoint that `Recognizer` and `transformers` load, in half precision.

        So the graph of the embedded model fits its adapted weights too.

        Raises:
            ModelError: the weights are no numbers any more.
            OSError: the folder cannot be written.
        """
        state = {name: value.half() for name, value in self.weights().items()}
        if not all(bool(value.isfinite().all()) for value in state.values()):
            raise ModelError("the weights grew out of bounds; learn more slowly")
        folder.mkdir(parents=True, exist_ok=True)
        if self.new_head:
            write_small_files(folder)
        kept = GRAPH, LIVE_RULES, BEAM_RULES, LANGUAGE_MODEL, LANGUAGE_MODEL_LICENSE
        for name in (*SMALL_FILES, *kept):
            if (self._checkpoint.folder / name).is_file():
                shutil.copyfile(self._checkpoint.folder / name, folder / name)
        with quiet():
            self._model.save_pretrained(folder, state_dict=state)


def _half_precision(accelerator: str) -> torch.dtype | None:
    """What the matrices are multiplied in, where that is faster than single precision."""
    if accelerator == "cuda":
        return torch.bfloat16
    return torch.bfloat16 if accelerator == "cpu" and multiplies_bfloat16() else None
