"""The forward pass of a SEW, written for short windows on one core of an x86 processor.

    audio ─ first convolution, group norm ─► (window, time, channel) ─ convolutions ─► features
    ─ pooled, positions added ─► encoder layers ─ stretched to the old length ─► logits

`transformers` computes the same out of modules. Three things make a window of 2.6 s cost a fifth
less here: sound lies as (window, time, channel) from the second convolution on, which oneDNN's
kernels like best and nothing needs to turn round; the activation is computed where the product
before it still lies in the cache; weights lie as the kernels want them, those of query, key and
value as one. What is left is nine tenths multiplication at the processor's full speed, so that
ONNX Runtime and OpenVINO save another tenth at most.

A *draft* takes two fifths less: its products are of bfloat16, eight bits of every number, summed up
in single precision, where the processor has instructions for that. Sums that run through all layers
keep single precision. Good enough for a preview, whose letters the next one judges anew.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from streamer.recognition.accelerators import multiplies_bfloat16
from streamer.recognition.checkpoint_files import CONFIG, frame_grid

if TYPE_CHECKING:
    from collections.abc import Callable

_CONVOLUTIONS, _POSITIONS = "sew.feature_extractor.conv_layers", "sew.encoder.pos_conv_embed.conv"
SAFETENSORS = "model.safetensors"

_OPERATIONS = (
    "_linear_pointwise",
    "_reorder_linear_weight",
    "_convolution_pointwise",
    "_reorder_convolution_weight",
)
"""What torch's own compiler calls too; absent where torch is built without oneDNN."""
_ROWS = 100
"""Which number of rows the kernels prepare for: two to four seconds of speech."""
_NONE: tuple[str, list[float], str] = ("none", [], "")
_GELU: tuple[str, list[float], str] = ("gelu", [], "none")
"""An activation, its numbers and its algorithm: not tanh."""


def load_packed(folder: Path) -> PackedSew | None:
    """The network of a checkpoint, without importing `transformers`, which takes seconds.

    Nothing where the checkpoint is another network's or damaged, or the machine's CPU has no such
    kernels: `transformers` can load it, or says what is wrong.
    """
    try:
        config = json.loads((folder / CONFIG).read_bytes())
        if not (_has_kernels() and _is_a_sew(config)):
            return None
        shortest = frame_grid(config).fit(0)  # checked first: a stride of 0 would end the process
        weights = _read_weights(folder)
        if any(weights[name].shape != shape for name, shape in _shapes(config).items()):
            return None
        network = PackedSew(config, weights)
        with torch.inference_mode():
            for draft in (False, True):
                network(torch.zeros(1, shortest), draft=draft)
    except Exception:  # whatever a damaged or foreign checkpoint makes it raise
        return None
    return network


def product(weight: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Multiplication by a matrix of shape (outputs, inputs) as in `PackedSew`, where it can."""
    return _Product(weight, None, gelu=False) if _has_kernels() else None


def _has_kernels() -> bool:
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATIONS)
    )


def _precisions() -> tuple[torch.dtype, ...]:
    """Those that products are computed in at full speed, the finest first."""
    return (torch.float32, torch.bfloat16) if multiplies_bfloat16() else (torch.float32,)


def _is_a_sew(config: Any) -> bool:
    return bool(
        config["architectures"] == ["SEWForCTC"]
        and config["feat_extract_norm"] == "group"
        and config["feat_extract_activation"] == config["hidden_act"] == "gelu"
        and not config.get("add_adapter")
    )


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """In single precision, and the positions' weight norm folded into its weight."""
    if (folder / SAFETENSORS).is_file():
        stored: dict[str, Tensor] = load_file(folder / SAFETENSORS)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of files that are none
            stored = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    weights = {name: weight.float() for name, weight in stored.items()}
    for norms in (("parametrizations.weight.original0", "parametrizations.weight.original1"),
                  ("weight_g", "weight_v")):  # fmt: skip
        length, direction = (f"{_POSITIONS}.{norm}" for norm in norms)
        if length in weights:
            folded = torch._weight_norm(weights.pop(direction), weights.pop(length), 2)
            weights[f"{_POSITIONS}.weight"] = folded
    return weights


def _shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """What the weights must be like. A checkpoint may hold others, used in training alone."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    channels = [1, *config["conv_dim"]]
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    def norm(name: str, size: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (size,)

    for number, kernel in enumerate(config["conv_kernel"]):
        before, after = channels[number : number + 2]
        shapes[f"{_CONVOLUTIONS}.{number}.conv.weight"] = (after, before, kernel)
        if config["conv_bias"]:
            shapes[f"{_CONVOLUTIONS}.{number}.conv.bias"] = (after,)
    norm(f"{_CONVOLUTIONS}.0.layer_norm", channels[1])
    norm("sew.layer_norm", channels[-1])
    if channels[-1] != hidden:
        linear("sew.feature_projection", hidden, channels[-1])
    groups, kernel = config["num_conv_pos_embedding_groups"], config["num_conv_pos_embeddings"]
    shapes[f"{_POSITIONS}.weight"] = (hidden, hidden // groups, kernel)
    shapes[f"{_POSITIONS}.bias"] = (hidden,)
    norm("sew.encoder.layer_norm", hidden)
    for number in range(config["num_hidden_layers"]):
        layer = f"sew.encoder.layers.{number}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{layer}.attention.{part}", hidden, hidden)
        norm(f"{layer}.layer_norm", hidden)
        linear(f"{layer}.feed_forward.intermediate_dense", inner, hidden)
        linear(f"{layer}.feed_forward.output_dense", hidden, inner)
        norm(f"{layer}.final_layer_norm", hidden)
    linear("sew.encoder.upsample.projection", hidden * config["squeeze_factor"], hidden)
    linear("lm_head", config["vocab_size"], hidden)
    return shapes


class PackedSew:
    """A `SEWForCTC` without its module tree. Read-only, safe to call from several threads.

    On windows of 1 to 30 s of noise its logits differ from the model's by 1e-6 of their size.

    Attributes:
        config: the checkpoint's.
        size: weights in all.
    """

    def __init__(self, config: Any, weights: dict[str, Tensor]) -> None:
        """Pack the weights of a checkpoint, named as there; what is packed is taken from them."""
        self.config = config
        self.size = sum(weight.numel() for weight in weights.values())
        self._precisions = _precisions()
        self._stride = config["conv_stride"][0]
        self._first = weights.pop(f"{_CONVOLUTIONS}.0.conv.weight")
        self._first_bias = weights.pop(f"{_CONVOLUTIONS}.0.conv.bias", None)
        self._first_norm = _vectors(weights, f"{_CONVOLUTIONS}.0.layer_norm")
        self._convolutions = [
            _convolution(
                weights.pop(f"{_CONVOLUTIONS}.{number}.conv.weight"),
                weights.pop(f"{_CONVOLUTIONS}.{number}.conv.bias", None),
                stride,
            )
            for number, stride in enumerate(config["conv_stride"])
            if number
        ]
        epsilon = config["layer_norm_eps"]
        self._features_norm = _Norm(weights, "sew.layer_norm", epsilon)
        projected = "sew.feature_projection.weight" in weights
        self._project = _side_by_side(weights, "sew.feature_projection") if projected else None
        self._squeeze = config["squeeze_factor"]
        self._position = _vectors(weights, _POSITIONS)
        self._groups = config["num_conv_pos_embedding_groups"]
        self._encoder_norm = _Norm(weights, "sew.encoder.layer_norm", epsilon)
        self._layers = [
            _Layer(weights, f"sew.encoder.layers.{number}", config["num_attention_heads"], epsilon)
            for number in range(config["num_hidden_layers"])
        ]
        self._stretch = _side_by_side(weights, "sew.encoder.upsample.projection", gelu=True)
        self._head = _side_by_side(weights, "lm_head")

    def __call__(self, samples: Tensor, *, draft: bool = False) -> Tensor:
        """Shape (windows, n) → (windows, frames, vocabulary), the frames a multiple of the squeeze.

        Every window must be long enough for so many frames. Of a `draft` the logits differ by a
        hundredth of their size.
        """
        products = self._precisions[-1 if draft else 0]
        x = functional.conv1d(samples[:, None], self._first, self._first_bias, self._stride)
        x = functional.gelu(functional.group_norm(x, x.shape[1], *self._first_norm))
        x = x.transpose(1, 2).contiguous().to(products)
        for convolution in self._convolutions:
            x = convolution(x)
        x = self._features_norm(x.float())
        if self._project:
            x = self._project(x.to(products)).float()
        windows, time, channels = x.shape
        time //= self._squeeze
        # An even kernel gives one position more; an odd length has one for its last frame alone.
        positions = functional.gelu(self._placed(x.transpose(1, 2))[..., :time]).transpose(1, 2)
        pooled = x[:, : time * self._squeeze].reshape(windows, time, self._squeeze, channels)
        x = self._encoder_norm(pooled.mean(2) + positions)
        for layer in self._layers:
            x = layer(x, products)
        x = self._stretch(x.to(products)).reshape(windows, time * self._squeeze, channels)
        return self._head(x).float()

    def _placed(self, x: Tensor) -> Tensor:
        padding = self._position[0].shape[-1] // 2
        return functional.conv1d(
            x, *self._position, stride=self._squeeze, padding=padding, groups=self._groups
        )


class _Layer:
    """One layer of the encoder, (windows, frames, channels) → the same."""

    def __init__(self, weights: dict[str, Tensor], name: str, heads: int, epsilon: float) -> None:
        self._heads = heads
        asked = (f"{name}.attention.{part}_proj" for part in "qkv")
        self._ask = _side_by_side(weights, *asked)
        self._answer = _side_by_side(weights, f"{name}.attention.out_proj")
        self._norm = _Norm(weights, f"{name}.layer_norm", epsilon)
        self._widen = _side_by_side(weights, f"{name}.feed_forward.intermediate_dense", gelu=True)
        self._narrow = _side_by_side(weights, f"{name}.feed_forward.output_dense")
        self._final_norm = _Norm(weights, f"{name}.final_layer_norm", epsilon)

    def __call__(self, x: Tensor, products: torch.dtype) -> Tensor:
        windows, frames, channels = x.shape
        asked = self._ask(x.to(products))
        heads = asked.view(windows, frames, 3, self._heads, channels // self._heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(query, key, value)
        x = self._norm(x + self._answer(heard.transpose(1, 2).reshape(x.shape)))
        return self._final_norm(x + self._narrow(self._widen(x.to(products))))


class _Norm:
    """A layer norm over the channels."""

    def __init__(self, weights: dict[str, Tensor], name: str, epsilon: float) -> None:
        self._vectors, self._epsilon = _vectors(weights, name), epsilon

    def __call__(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], *self._vectors, self._epsilon)


def _vectors(weights: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return weights.pop(f"{name}.weight"), weights.pop(f"{name}.bias")


def _side_by_side(weights: dict[str, Tensor], *names: str, gelu: bool = False) -> _Product:
    """Linear layers of the same input as one."""
    rows, biases = zip(*(_vectors(weights, name) for name in names), strict=True)
    return _Product(torch.cat(rows), torch.cat(biases), gelu=gelu)


def _convolution(weight: Tensor, bias: Tensor | None, stride: int) -> Callable[[Tensor], Tensor]:
    """A convolution over time and its activation: (windows, n, channels) → the same.

    Where no frame is heard twice it is a product of neighbours that lie side by side already;
    oneDNN's own convolution took ten times as long where those were few.
    """
    kernel = weight.shape[2]
    if kernel != stride:
        return _Convolution(weight, bias, stride)
    product = _Product(weight.transpose(1, 2).flatten(1), bias, gelu=True)

    def convolve(x: Tensor) -> Tensor:
        windows, length, channels = x.shape
        frames = length // kernel
        return product(x[:, : frames * kernel].reshape(windows, frames, kernel * channels))

    return convolve


class _Product:
    """A linear layer and, if so, its activation, in the precision of what it is given."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> None:
        self._weights = {
            precision: torch.ops.mkldnn._reorder_linear_weight(
                weight.contiguous().to(precision), _ROWS
            )
            for precision in _precisions()
        }
        self._bias = bias
        self._activation = _GELU if gelu else _NONE

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weights[x.dtype], self._bias, *self._activation
        )
        return product


class _Convolution:
    """One whose steps overlap, in the precision of what it is given."""

    def __init__(self, weight: Tensor, bias: Tensor | None, stride: int) -> None:
        # Over one row of a picture whose channels lie innermost.
        self._geometry = ([0, 0], [1, stride], [1, 1], 1)
        self._weights = {
            precision: torch.ops.mkldnn._reorder_convolution_weight(
                weight[:, :, None].contiguous(memory_format=torch.channels_last).to(precision),
                *self._geometry,
                [1, weight.shape[1], 1, _ROWS * stride],
            )
            for precision in _precisions()
        }
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        picture: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x.transpose(1, 2)[:, :, None],
            self._weights[x.dtype],
            self._bias,
            *self._geometry,
            *_GELU,
        )
        return picture[:, :, 0].transpose(1, 2)
