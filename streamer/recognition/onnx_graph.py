"""ONNX models written by hand: nodes and weights in, the bytes of a ModelProto out.

A graph of two hundred nodes does not need the `onnx` package, which is larger than the model.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

_CONTRIB = "com.microsoft"
_OPSETS = {"": 18, _CONTRIB: 1}
_IR_VERSION = 9
_ELEMENT_TYPES = {"float32": 1, "uint8": 2, "int64": 7}
_EXTERNAL = 1
_SMALL = 1024
"""Bytes up to which an array is part of the model: shapes have to be known when it is loaded."""


class Graph:
    """A graph that grows node by node; every value is a name."""

    def __init__(self) -> None:
        self._weights: dict[str, Any] = {}
        self._nodes: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._values = 0

    def input(self, name: str, *shape: int | str) -> str:
        """Declare an input of float32."""
        self._inputs.append(_value(name, shape))
        return name

    def output(self, value: str, name: str, *shape: int | str) -> None:
        """Declare an output of float32."""
        self._nodes.append(_node("Identity", [value], [name], "", {}))
        self._outputs.append(_value(name, shape))

    def weight(self, array: Any) -> str:
        """Add an array that stays the same in every run."""
        name = f"w{len(self._weights)}"
        self._weights[name] = np.require(array, requirements="C")
        return name

    @property
    def external(self) -> dict[str, Any]:
        """The large arrays, by name: the session is given them beside the model's bytes."""
        return {name: array for name, array in self._weights.items() if array.nbytes > _SMALL}

    def add(self, operator: str, *inputs: str, contrib: bool = False, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.split(operator, 1, *inputs, contrib=contrib, **attributes)[0]

    def split(
        self, operator: str, outputs: int, *inputs: str, contrib: bool = False, **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs."""
        names = [f"v{self._values + number}" for number in range(outputs)]
        self._values += outputs
        domain = _CONTRIB if contrib else ""
        self._nodes.append(_node(operator, inputs, names, domain, attributes))
        return names

    def serialize(self) -> bytes:
        """The bytes of a model whose large arrays lie elsewhere."""
        graph = b"".join(
            [
                *(_bytes(1, node) for node in self._nodes),
                _bytes(2, b"graph"),
                *(_bytes(5, _tensor(name, array)) for name, array in self._weights.items()),
                *(_bytes(11, value) for value in self._inputs),
                *(_bytes(12, value) for value in self._outputs),
            ]
        )
        opsets = (
            _bytes(8, _bytes(1, domain.encode()) + _integer(2, version))
            for domain, version in _OPSETS.items()
        )
        return _integer(1, _IR_VERSION) + _bytes(7, graph) + b"".join(opsets)


# The numbers below are those of the fields in onnx.proto.


def _node(
    operator: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    domain: str,
    attributes: dict[str, Any],
) -> bytes:
    return b"".join(
        [
            *(_bytes(1, name.encode()) for name in inputs),
            *(_bytes(2, name.encode()) for name in outputs),
            _bytes(4, operator.encode()),
            *(_bytes(5, _attribute(name, value)) for name, value in attributes.items()),
            _bytes(7, domain.encode()),
        ]
    )


def _attribute(name: str, value: Any) -> bytes:
    if isinstance(value, float):
        content = struct.pack("<Bf", 2 << 3 | 5, value) + _integer(20, 1)
    elif isinstance(value, int):
        content = _integer(3, value) + _integer(20, 2)
    else:
        content = b"".join(_integer(8, item) for item in value) + _integer(20, 7)
    return _bytes(1, name.encode()) + content


def _tensor(name: str, array: Any) -> bytes:
    if array.nbytes > _SMALL:
        content = _bytes(13, _bytes(1, b"location") + _bytes(2, b"-")) + _integer(14, _EXTERNAL)
    else:
        content = _bytes(9, array.tobytes())
    return b"".join(
        [
            *(_integer(1, size) for size in array.shape),
            _integer(2, _ELEMENT_TYPES[array.dtype.name]),
            _bytes(8, name.encode()),
            content,
        ]
    )


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    sizes = (
        _bytes(1, _integer(1, size) if isinstance(size, int) else _bytes(2, size.encode()))
        for size in shape
    )
    tensor = _integer(1, _ELEMENT_TYPES["float32"]) + _bytes(2, b"".join(sizes))
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor))


def _integer(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # negative numbers take all ten bytes
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
