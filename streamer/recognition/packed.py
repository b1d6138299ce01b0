"""The forward pass of a SEW, written for short windows on one core of an x86 processor.

    audio ─ first convolution, group norm ─► (window, time, channel) ─ convolutions ─► features
    ─ pooled, positions added ─► encoder layers ─ stretched to the old length ─► logits

`transformers` computes the same out of modules. Three things make a window of 2.6 s cost a fifth
less here: sound lies as (window, time, channel) from the second convolution on, which oneDNN's
kernels like best and nothing needs to turn round; the activation is computed where the product
before it still lies in the cache; weights lie as the kernels want them, those of query, key and
value as one. What is left is nine tenths multiplication at the processor's full speed, so that
ONNX Runtime and OpenVINO save another tenth at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.nn import Conv1d, Linear

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


def packable(model: Any) -> bool:
    """Whether a `PackedSew` can take the model's place on this machine's CPU."""
    config = model.config
    return (
        config.model_type == "sew"
        and config.feat_extract_norm == "group"
        and config.feat_extract_activation == config.hidden_act == "gelu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.cpu.get_cpu_capability().startswith("AVX")
        and all(hasattr(torch.ops.mkldnn, name) for name in _OPERATIONS)
    )


class PackedSew:
    """A `SEWForCTC` without its module tree. Read-only, safe to call from several threads.

    On windows of 1 to 30 s of noise its logits differ from the model's by 1e-6 of their size.
    """

    def __init__(self, model: Any) -> None:
        """Take the weights of a frozen model, which is of no use afterwards: see `packable`."""
        sew = model.sew
        encoder = sew.encoder
        first, *others = sew.feature_extractor.conv_layers
        self._first, self._first_norm = first.conv, first.layer_norm
        self._convolutions = [_convolution(layer.conv) for layer in others]
        self._features_norm = sew.layer_norm
        self._project = _side_by_side(sew.feature_projection) if sew.project_features else None
        self._squeeze = model.config.squeeze_factor
        self._position = encoder.pos_conv_embed.conv
        self._encoder_norm = encoder.layer_norm
        self._layers = []
        while len(encoder.layers):  # a layer's own weights are freed before the next is packed
            self._layers.append(_Layer(encoder.layers[0]))
            del encoder.layers[0]
        self._stretch = _side_by_side(encoder.upsample.projection, gelu=True)
        self._head = _side_by_side(model.lm_head)

    def __call__(self, samples: Tensor) -> Tensor:
        """Shape (windows, n) → (windows, frames, vocabulary), the frames a multiple of the squeeze.

        Every window must be long enough for so many frames.
        """
        x = functional.gelu(self._first_norm(self._first(samples[:, None])))
        x = x.transpose(1, 2).contiguous()
        for convolution in self._convolutions:
            x = convolution(x)
        x = self._features_norm(x)
        if self._project:
            x = self._project(x)
        windows, time, channels = x.shape
        time //= self._squeeze
        # An even kernel gives one position more; an odd length has one for its last frame alone.
        positions = functional.gelu(self._position(x.transpose(1, 2))[..., :time]).transpose(1, 2)
        pooled = x[:, : time * self._squeeze].reshape(windows, time, self._squeeze, channels)
        x = self._encoder_norm(pooled.mean(2) + positions)
        for layer in self._layers:
            x = layer(x)
        x = self._stretch(x).reshape(windows, time * self._squeeze, channels)
        return self._head(x)


class _Layer:
    """One layer of the encoder, (windows, frames, channels) → the same."""

    def __init__(self, layer: Any) -> None:
        attention, forward = layer.attention, layer.feed_forward
        self._heads = attention.num_heads
        self._ask = _side_by_side(attention.q_proj, attention.k_proj, attention.v_proj)
        self._answer = _side_by_side(attention.out_proj)
        self._norm = layer.layer_norm
        self._widen = _side_by_side(forward.intermediate_dense, gelu=True)
        self._narrow = _side_by_side(forward.output_dense)
        self._final_norm = layer.final_layer_norm

    def __call__(self, x: Tensor) -> Tensor:
        windows, frames, channels = x.shape
        heads = self._ask(x).view(windows, frames, 3, self._heads, channels // self._heads)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(query, key, value)
        x = self._norm(x + self._answer(heard.transpose(1, 2).reshape(x.shape)))
        result: Tensor = self._final_norm(x + self._narrow(self._widen(x)))
        return result


def _side_by_side(*linears: Linear, gelu: bool = False) -> _Product:
    """Linear layers of the same input as one."""
    weight = torch.cat([linear.weight for linear in linears])
    return _Product(weight, torch.cat([linear.bias for linear in linears]), gelu=gelu)


def _convolution(layer: Conv1d) -> Callable[[Tensor], Tensor]:
    """A convolution over time and its activation: (windows, n, channels) → the same.

    Where no frame is heard twice it is a product of neighbours that lie side by side already;
    oneDNN's own convolution took ten times as long where those were few.
    """
    kernel = layer.kernel_size[0]
    if kernel != layer.stride[0]:
        return _Convolution(layer)
    product = _Product(layer.weight.transpose(1, 2).flatten(1), layer.bias, gelu=True)

    def convolve(x: Tensor) -> Tensor:
        windows, length, channels = x.shape
        frames = length // kernel
        return product(x[:, : frames * kernel].reshape(windows, frames, kernel * channels))

    return convolve


class _Product:
    """A linear layer and, if so, its activation."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, gelu: bool) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)
        self._bias = bias
        self._activation = _GELU if gelu else _NONE

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._weight, self._bias, *self._activation
        )
        return product


class _Convolution:
    """One whose steps overlap."""

    def __init__(self, layer: Conv1d) -> None:
        # Over one row of a picture whose channels lie innermost.
        self._geometry = ([0, 0], [1, layer.stride[0]], [1, 1], 1)
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(
            layer.weight[:, :, None].contiguous(memory_format=torch.channels_last),
            *self._geometry,
            [1, layer.in_channels, 1, _ROWS * layer.stride[0]],
        )
        self._bias = layer.bias

    def __call__(self, x: Tensor) -> Tensor:
        picture: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x.transpose(1, 2)[:, :, None],
            self._weight,
            self._bias,
            *self._geometry,
            *_GELU,
        )
        return picture[:, :, 0].transpose(1, 2)
