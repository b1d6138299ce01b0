"""Moonshine's decoder as a graph of our own, with the weights of the published file.

The published graph quantizes the activations of a whole run with one scale. What it makes of a
token therefore depends on the tokens that are computed beside it: of 1,400 decisions on recorded
speech, a run with all tokens at once took 91 differently from single steps. Here each row has its
own scale (`MatMulNBits`, eight bits), attention adds up in the order of the tokens, and a token's
logits are the same to the last bit in whichever company it is computed. The weights are the
published eight bits; a step also takes less time, as no shapes are computed in the graph.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
from safetensors import safe_open

from streamer.recognition.onnx_graph import Graph

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from streamer.recognition.ort_format import OrtFile

_LAYERS, _HEADS, _HEAD_SIZE, _HIDDEN, _INNER = 6, 8, 36, 288, 1152
_ROTATED = 32
"""How many values of each head are turned by the token's position, in pairs."""
_BASE = 10_000.0
_BLOCK = 32
"""Values in a row that share a scale."""
_EPSILON = 1e-5
_EIGHT_BIT_ACTIVATIONS = 4
_NOTHING = {
    f"past_{kind}{layer}": np.zeros((_HEADS, 0, size), np.float32)
    for layer in range(_LAYERS)
    for kind, size in (("k", _HEAD_SIZE), ("v", _HEAD_SIZE + 1))
}
"""Before the first token."""


@dataclass(slots=True)
class DecoderState:
    """What the decoder knows of one text: the encoder's part, and that of the tokens so far."""

    cross: dict[str, Any]
    past: dict[str, Any] = field(default_factory=dict)
    length: int = 0

    def cut(self, length: int) -> None:
        """Forget all tokens but the first `length`."""
        self.past = {
            name: np.ascontiguousarray(value[:, :length]) for name, value in self.past.items()
        }
        self.length = length


class Decoder:
    """The loaded decoder: immutable, and shared by threads."""

    def __init__(
        self,
        file: OrtFile,
        options: Callable[[], onnxruntime.SessionOptions],
        adapter: Adapter | None = None,
    ) -> None:
        """Load the decoder.

        Args:
            file: the published one, known to be whole.
            options: make the options of a session.
            adapter: changes its weights.
        """
        weights = _Weights(file, adapter)
        self._embedding = weights.embedding
        graphs = _cross_graph(weights), _step_graph(weights)
        self._cross, self._step = (_session(graph, options()) for graph in graphs)
        # The sessions look into these arrays without owning them.
        self._kept = [*graphs[0].external.values(), *graphs[1].external.values()]
        self._present = [output.name for output in self._step.get_outputs()]
        self.independent = self._is_independent()
        """Whether logits are the same in any company, with the kernels of this processor."""

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self._embedding[0])

    def begin(self, hidden: Any) -> DecoderState:
        """Start a text.

        Args:
            hidden: what the encoder gave, shape (frames, 288).
        """
        outputs = self._cross.run(None, {"hidden": hidden})
        names = [f"cross_{kind}{layer}" for layer in range(_LAYERS) for kind in "kv"]
        return DecoderState(dict(zip(names, outputs, strict=True)), dict(_NOTHING))

    def extend(self, state: DecoderState, tokens: Sequence[int]) -> Any:
        """Append tokens to a text.

        Returns:
            The logits after each, shape (len(tokens), vocabulary).
        """
        quantized, zero_point, scale = self._embedding
        count = len(tokens)
        places = np.arange(state.length, state.length + count)
        cosine, sine = _rotation(places)
        later = np.arange(state.length + count) > places[:, None]
        logits, *present = self._step.run(
            self._present,
            {
                "tokens": (quantized[np.asarray(tokens)].astype(np.float32) - zero_point) * scale,
                "cosine": cosine,
                "sine": sine,
                "mask": np.where(later, np.float32(-np.inf), np.float32(0)),
                **state.cross,
                **state.past,
            },
        )
        state.past = dict(zip(state.past, present, strict=True))
        state.length += count
        return logits

    def _is_independent(self) -> bool:
        """Compare single steps with one run, in bits."""
        random = np.random.default_rng(0)
        state = self.begin(random.standard_normal((40, _HIDDEN)).astype(np.float32))
        tokens = random.integers(3, self.vocabulary, 6).tolist()
        single = [self.extend(state, [token])[0] for token in tokens]
        state.cut(2)
        together = self.extend(state, tokens[2:])
        return bool(np.array_equal(single[2:], together))


class Adapter:
    """A low-rank change of linear layers: W' = W + scale · b · a, for W of shape (outputs, inputs).

    The file (safetensors) has `LAYER.a` and `LAYER.b` for each layer it changes, and `scale` among
    its metadata.
    """

    def __init__(self, path: Path) -> None:
        with safe_open(path, "numpy") as file:
            self._scale = np.float32(file.metadata()["scale"])
            self._factors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def change(self, layer: str) -> Any:
        """What is added to a layer's weights, shape (inputs, outputs); `None` if nothing is."""
        if f"{layer}.a" not in self._factors:
            return None
        a, b = (self._factors[f"{layer}.{factor}"].astype(np.float32) for factor in "ab")
        return self._scale * (b @ a).T


def _rotation(places: Any) -> tuple[Any, Any]:
    """Cosines and sines for tokens at these places, shape (n, 36); what is not turned has 1, 0."""
    speeds = _BASE ** (-np.arange(0, _ROTATED, 2) / _ROTATED)
    angles = np.repeat(places[:, None] * speeds, 2, axis=1).astype(np.float32)
    rest = ((0, 0), (0, _HEAD_SIZE - _ROTATED))
    return np.pad(np.cos(angles), rest, constant_values=1), np.pad(np.sin(angles), rest)


@dataclass(frozen=True, slots=True)
class _Matrix:
    """Eight-bit weights, shape (inputs, outputs): (values - zero_points) · scales."""

    values: Any
    zero_points: Any
    scales: Any
    """One for each output."""

    @classmethod
    def of(cls, weights: Any) -> _Matrix:
        """The eight bits that are nearest to weights of shape (inputs, outputs)."""
        low, high = np.minimum(weights.min(axis=0), 0), np.maximum(weights.max(axis=0), 0)
        scales = (high - low) / np.float32(255)
        zero_points = np.rint(-low / scales)
        values = np.clip(np.rint(weights / scales) + zero_points, 0, 255)
        return cls(values.astype(np.uint8), zero_points.astype(np.uint8), scales)

    def real(self) -> Any:
        return (self.values - self.zero_points.astype(np.float32)) * self.scales

    @classmethod
    def beside(cls, *matrices: _Matrix) -> _Matrix:
        return cls(
            np.concatenate([m.values for m in matrices], axis=1),
            np.concatenate([m.zero_points for m in matrices]),
            np.concatenate([m.scales for m in matrices]),
        )

    def turned(self) -> _Matrix:
        """What gives the other of each pair: -b, a for a, b; and 0 where nothing is turned."""
        outputs = np.arange(self.values.shape[1])
        within = outputs % _HEAD_SIZE
        signs = np.where(within >= _ROTATED, 0, np.where(within % 2, 1, -1)).astype(np.float32)
        partner = np.where(within >= _ROTATED, outputs, outputs ^ 1)
        return _Matrix(
            self.values[:, partner], self.zero_points[partner], self.scales[partner] * signs
        )


class _Weights:
    """The weights of the published file by what they are for, changed by an adapter."""

    def __init__(self, file: OrtFile, adapter: Adapter | None) -> None:
        self._file = file
        self._adapter = adapter
        name = "model.decoder.embed_tokens.weight_merged_0"
        self.embedding = (
            self.array(f"{name}_quantized").copy(),
            self.array(f"{name}_zero_point").astype(np.float32),
            self.array(f"{name}_scale").copy(),
        )

    def array(self, name: str) -> Any:
        return self._file.initializers[name]

    def matrix(self, module: str) -> _Matrix:
        """The weights of a linear layer such as `model/decoder/layers.0/mlp/fc1`."""
        inputs = self._file.inputs[f"/{module}/MatMul_quant"]
        (name,) = (i.removesuffix("_quantized") for i in inputs
                   if i.endswith("_quantized") and i in self._file.initializers)  # fmt: skip
        values = self.array(f"{name}_quantized")
        ones = np.ones(values.shape[1], np.float32)
        published = _Matrix(
            values,
            (ones * self.array(f"{name}_zero_point")).astype(np.uint8),
            ones * self.array(f"{name}_scale"),
        )
        change = self._adapter.change(module.replace("/", ".")) if self._adapter else None
        return published if change is None else _Matrix.of(published.real() + change)


def _cross_graph(weights: _Weights) -> Graph:
    """The encoder's hidden states → keys and values of each layer."""
    graph = Graph()
    hidden = graph.input("hidden", "frames", _HIDDEN)
    for layer in range(_LAYERS):
        for kind in "kv":
            matrix = weights.matrix(f"model/decoder/layers.{layer}/encoder_attn/{kind}_proj")
            product = graph.add(
                "DynamicQuantizeMatMul",
                hidden,
                graph.weight(matrix.values),
                graph.weight(matrix.scales),
                graph.weight(matrix.zero_points),
                contrib=True,
            )
            heads = _heads(graph, product, _HEADS)
            if kind == "k":
                graph.output(heads, f"cross_k{layer}", _HEADS, "frames", _HEAD_SIZE)
            else:
                value = _with_ones(graph, heads)
                graph.output(value, f"cross_v{layer}", _HEADS, "frames", _HEAD_SIZE + 1)
    return graph


def _step_graph(weights: _Weights) -> Graph:
    """Tokens' embeddings and all that came before → logits and what the next step needs."""
    graph = Graph()
    x = graph.input("tokens", "new", _HIDDEN)
    cosine, sine = (graph.input(name, "new", _HEAD_SIZE) for name in ("cosine", "sine"))
    mask = graph.input("mask", "new", "all")
    present = {}
    for layer in range(_LAYERS):
        name = f"model/decoder/layers.{layer}"
        past_k, past_v, cross_k, cross_v = (
            graph.input(f"{which}_{kind}{layer}", _HEADS, length, _HEAD_SIZE + (kind == "v"))
            for which, length in (("past", "past"), ("cross", "frames"))
            for kind in "kv"
        )
        normed = _norm(graph, x, weights, f"{name}/input_layernorm")
        query, key, value = _rotated(graph, normed, weights, name, cosine, sine)
        key = graph.add("Concat", past_k, key, axis=1)
        value = graph.add("Concat", past_v, _with_ones(graph, value), axis=1)
        present[f"present_k{layer}"], present[f"present_v{layer}"] = key, value
        context = _attention(graph, query, key, value, mask)
        x = graph.add("Add", x, _linear(graph, context, weights, f"{name}/self_attn/o_proj"))

        normed = _norm(graph, x, weights, f"{name}/post_attention_layernorm")
        query = _linear(graph, normed, weights, f"{name}/encoder_attn/q_proj")
        context = _attention(graph, _heads(graph, query, _HEADS), cross_k, cross_v)
        x = graph.add("Add", x, _linear(graph, context, weights, f"{name}/encoder_attn/o_proj"))

        normed = _norm(graph, x, weights, f"{name}/final_layernorm")
        inner = _linear(graph, normed, weights, f"{name}/mlp/fc1", bias=True)
        halves = graph.weight(np.array([_INNER, _INNER]))
        inner, gate = graph.split("Split", 2, inner, halves, axis=1)
        inner = graph.add("Mul", inner, graph.add("Mul", gate, graph.add("Sigmoid", gate)))
        x = graph.add("Add", x, _linear(graph, inner, weights, f"{name}/mlp/fc2", bias=True))
    x = _norm(graph, x, weights, "model/decoder/norm")
    graph.output(_linear(graph, x, weights, "proj_out"), "logits", "new", "vocabulary")
    for output, value in present.items():
        graph.output(value, output, _HEADS, "all", _HEAD_SIZE + ("_v" in output))
    return graph


def _rotated(
    graph: Graph, x: str, weights: _Weights, layer: str, cosine: str, sine: str
) -> tuple[str, str, str]:
    """Query and key, turned by their positions, and value: one product gives all."""
    q, k, v = (weights.matrix(f"{layer}/self_attn/{kind}_proj") for kind in "qkv")
    product = _product(graph, x, _Matrix.beside(q, k, q.turned(), k.turned(), v))
    sizes = graph.weight(np.array([2 * _HEADS, 2 * _HEADS, _HEADS]))
    plain, turned, value = graph.split(
        "Split", 3, _heads(graph, product, 5 * _HEADS), sizes, axis=0
    )
    both = graph.add("Add", graph.add("Mul", plain, cosine), graph.add("Mul", turned, sine))
    halves = graph.weight(np.array([_HEADS, _HEADS]))
    query, key = graph.split("Split", 2, both, halves, axis=0)
    return query, key, value


def _with_ones(graph: Graph, value: str) -> str:
    """One more column, of ones."""
    column = graph.weight(np.array([0, 0, 0, 0, 0, 1]))
    return graph.add("Pad", value, column, graph.weight(np.float32(1)))


def _attention(graph: Graph, query: str, key: str, value: str, mask: str | None = None) -> str:
    """What each query gets of the values, shape (n, 288).

    Softmax would add up in another order where there are more keys. So the column of ones adds up
    the weights, key by key, and masked keys add 0. The factor of one half cancels out: without
    one, a single row takes a kernel of its own that rounds differently.
    """
    scores = graph.add("FusedMatMul", query, key, contrib=True, transB=1, alpha=_HEAD_SIZE**-0.5)
    if mask is not None:
        scores = graph.add("Add", scores, mask)
    peak = graph.add("ReduceMax", scores, graph.weight(np.array([2])), keepdims=1)
    shares = graph.add("Exp", graph.add("Sub", scores, peak))
    summed = graph.add("FusedMatMul", shares, value, contrib=True, alpha=0.5)
    sizes = graph.weight(np.array([_HEAD_SIZE, 1]))
    context, total = graph.split("Split", 2, summed, sizes, axis=2)
    context = graph.add("Transpose", graph.add("Div", context, total), perm=[1, 0, 2])
    return graph.add("Reshape", context, graph.weight(np.array([0, _HIDDEN])))


def _norm(graph: Graph, x: str, weights: _Weights, module: str) -> str:
    weight = weights.array(f"{module}.weight_merged_0".replace("/", "."))
    return graph.add("LayerNormalization", x, graph.weight(weight), axis=-1, epsilon=_EPSILON)


def _linear(graph: Graph, x: str, weights: _Weights, module: str, *, bias: bool = False) -> str:
    name = f"{module}.bias_merged_0".replace("/", ".")
    return _product(graph, x, weights.matrix(module), weights.array(name) if bias else None)


def _product(graph: Graph, x: str, matrix: _Matrix, bias: Any = None) -> str:
    inputs, outputs = matrix.values.shape
    blocks = inputs // _BLOCK
    return graph.add(
        "MatMulNBits",
        x,
        graph.weight(matrix.values.T.reshape(outputs, blocks, _BLOCK)),
        graph.weight(np.repeat(matrix.scales, blocks)),
        graph.weight(np.repeat(matrix.zero_points[:, None], blocks, axis=1)),
        *([] if bias is None else ["", graph.weight(bias)]),
        contrib=True,
        K=inputs,
        N=outputs,
        bits=8,
        block_size=_BLOCK,
        accuracy_level=_EIGHT_BIT_ACTIVATIONS,
    )


def _heads(graph: Graph, x: str, heads: int) -> str:
    """(n, heads · 36) → (heads, n, 36)."""
    shape = graph.weight(np.array([0, heads, _HEAD_SIZE]))
    return graph.add("Transpose", graph.add("Reshape", x, shape), perm=[1, 0, 2])


def _session(graph: Graph, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in graph.external.values()]
    options.add_external_initializers(list(graph.external), values)
    return onnxruntime.InferenceSession(graph.serialize(), options, ["CPUExecutionProvider"])
