"""The published writer in torch, and low-rank changes of its linear layers that can be learned.

    y = W x + scale · b (a x)          a: (rank, inputs), b: (outputs, rank)

What is kept of a change is described at `streamer.recognition.moonshine_decoder.Adapter`.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import MoonshineConfig, MoonshineForConditionalGeneration

from streamer.errors import ModelError
from streamer.recognition.moonshine_files import DECODER, ENCODER, verify
from streamer.recognition.ort_format import OrtFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

BEGIN, END = 1, 2
RANK, SCALE = 8, 2.0


def base_model(folder: Path) -> MoonshineForConditionalGeneration:
    """The published eight bits as single precision, frozen; takes 2 s.

    Embedding and output projection were quantized apart, so they stay apart.

    Args:
        folder: holds the published files.

    Raises:
        ModelError: a file is missing, damaged or another model's.
    """
    verify(folder)
    config = MoonshineConfig(tie_word_embeddings=False, pad_token_id=END)
    model = MoonshineForConditionalGeneration._from_config(config, attn_implementation="sdpa")
    state = {
        **_encoder_state(OrtFile.read((folder / ENCODER).read_bytes())),
        **_decoder_state(OrtFile.read((folder / DECODER).read_bytes())),
    }
    model.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    return model.eval().requires_grad_(False)


def _encoder_state(file: OrtFile) -> dict[str, Any]:
    state = _linear_state(file, "model.encoder.")
    plain = re.compile(r"(conv\d\.(weight|bias)|layers\.\d\..*\.(weight|bias)|layer_norm\.weight)")
    for name, value in file.initializers.items():
        name = name.removesuffix("_add_tensor")
        if plain.fullmatch(name):
            state[f"model.encoder.{name}"] = value
        # The group norm's weight and bias became a product and a sum.
        elif value.shape == (288, 1):
            kind = "weight" if "Mul" in name else "bias"
            state[f"model.encoder.groupnorm.{kind}"] = value[:, 0]
    return state


def _decoder_state(file: OrtFile) -> dict[str, Any]:
    state = _linear_state(file, "")
    for name, value in file.initializers.items():
        if re.fullmatch(r"model\.decoder\..*(norm\.weight|\.bias)_merged_0", name):
            state[name.removesuffix("_merged_0")] = value
    embedding = "model.decoder.embed_tokens.weight"
    state[embedding] = _real(file, f"{embedding}_merged_0")
    return state


def _linear_state(file: OrtFile, prefix: str) -> dict[str, Any]:
    """The weights of all linear layers, shape (outputs, inputs), by their names in transformers."""
    state = {}
    for node, inputs in file.inputs.items():
        if not node.endswith("/MatMul_quant"):
            continue
        layer = node.removesuffix("/MatMul_quant").strip("/").replace("/", ".")
        (quantized,) = (name for name in inputs
                        if name.endswith("_quantized") and name in file.initializers)  # fmt: skip
        state[f"{prefix}{layer}.weight"] = _real(file, quantized.removesuffix("_quantized")).T
    return state


def _real(file: OrtFile, name: str) -> Any:
    values, zero_point, scale = (
        file.initializers[f"{name}_{part}"].astype("float32")
        for part in ("quantized", "zero_point", "scale")
    )
    return (values - zero_point) * scale


class LowRank(nn.Module):
    """A linear layer and a change of it, nothing at first."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        self.linear = linear
        self.on = True
        self.a = nn.Parameter(torch.randn(rank, linear.in_features) / linear.in_features**0.5)
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (…, inputs) → (…, outputs)."""
        y: Tensor = self.linear(x)
        return y + (x @ self.a.T) @ self.b.T * SCALE if self.on else y


def adapt(
    model: MoonshineForConditionalGeneration, rank: int = RANK, encoder_layers: int = 0
) -> dict[str, LowRank]:
    """Put a change into each linear layer of the decoder, and of the encoder's last layers.

    Returns:
        The changes by the names of their layers. The live path applies the decoder's alone.
    """
    blocks = {"model.decoder.layers": model.model.decoder.layers}
    last = len(model.model.encoder.layers) - encoder_layers
    for index in range(last, last + encoder_layers):
        blocks[f"model.encoder.layers.{index}"] = model.model.encoder.layers[index]
    changes = {}
    for prefix, block in blocks.items():
        for name, module in list(block.named_modules()):
            if isinstance(module, nn.Linear):
                parent, _, leaf = name.rpartition(".")
                changes[f"{prefix}.{name}"] = LowRank(module, rank)
                setattr(block.get_submodule(parent), leaf, changes[f"{prefix}.{name}"])
    return changes


@contextmanager
def published(changes: Mapping[str, LowRank]) -> Iterator[None]:
    """The model as it was, without gradients."""
    for change in changes.values():
        change.on = False
    try:
        with torch.no_grad():
            yield
    finally:
        for change in changes.values():
            change.on = True


def save(changes: Mapping[str, LowRank], path: Path, **notes: object) -> None:
    """Write the changes in half precision, with notes among the metadata."""
    state = {
        f"{name}.{factor}": getattr(change, factor).detach().half().cpu().contiguous()
        for name, change in changes.items()
        for factor in "ab"
    }
    metadata = {"scale": str(SCALE), **{name: str(note) for name, note in notes.items()}}
    unfinished = path.with_suffix(".part")
    save_file(state, unfinished, metadata)
    unfinished.replace(path)


def rank_of(path: Path) -> int:
    """The rank of the changes in a file.

    Raises:
        ModelError: it holds none.
    """
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118
            if name.endswith(".a"):
                return int(file.get_slice(name).get_shape()[0])
    raise ModelError(f"{path}: no adapter")


def load(changes: Mapping[str, LowRank], path: Path) -> None:
    """Start from the changes in a file, as far as it has them.

    Raises:
        ModelError: it changes a layer that is not to be changed.
    """
    with safe_open(path, "pt") as file, torch.no_grad():
        share = float(file.metadata()["scale"]) / SCALE
        for name in file.keys():  # noqa: SIM118
            layer, _, factor = name.rpartition(".")
            if layer not in changes:
                raise ModelError(f"{path}: changes {layer}, which is not learned here")
            value = file.get_tensor(name).float()
            getattr(changes[layer], factor).copy_(value * share if factor == "b" else value)
