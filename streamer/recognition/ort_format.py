"""The weights inside a model file of ONNX Runtime (`.ort`), without loading the model.

Such a file is a FlatBuffer. Its schema is `ort.fbs` of ONNX Runtime, whose own reader for Python
imports torch where that is installed, 1.8 s of CPU time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Fields of each table, by their place in its list of offsets.
_SESSION_MODEL, _MODEL_GRAPH = 1, 7
_GRAPH_INITIALIZERS, _GRAPH_NODES = 0, 2
_TENSOR_NAME, _TENSOR_DIMENSIONS, _TENSOR_TYPE, _TENSOR_DATA = 0, 2, 3, 4
_NODE_NAME, _NODE_INPUTS, _NODE_ATTRIBUTES = 0, 8, 10
_ATTRIBUTE_GRAPH = 7
_TYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 2: np.dtype("u1"), 3: np.dtype("i1")}


@dataclass(frozen=True, slots=True)
class OrtFile:
    """What a file holds: the main graph's `initializers`, and each node's `inputs`, by name.

    Nodes of subgraphs count; of several with one name the first does.
    """

    initializers: dict[str, Any]
    inputs: dict[str, list[str]]

    @classmethod
    def read(cls, data: bytes) -> OrtFile:
        """Read a file that is known to be whole; the arrays are views of its bytes."""
        session = _Table(data, struct.unpack_from("<I", data)[0])
        graph = session.table(_SESSION_MODEL).table(_MODEL_GRAPH)
        initializers = {}
        for tensor in graph.tables(_GRAPH_INITIALIZERS):
            dtype = _TYPES.get(tensor.integer(_TENSOR_TYPE))
            if dtype is not None:
                shape = tensor.array(_TENSOR_DIMENSIONS, np.dtype("<i8"))
                initializers[tensor.text(_TENSOR_NAME)] = tensor.array(_TENSOR_DATA, dtype).reshape(
                    shape
                )
        inputs: dict[str, list[str]] = {}
        for node in _nodes(graph):
            inputs.setdefault(node.text(_NODE_NAME), node.texts(_NODE_INPUTS))
        return cls(initializers, inputs)


class _Table:
    """A table of a FlatBuffer, at byte `at`."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def _integer(self, at: int, form: str = "<I") -> int:
        return int(struct.unpack_from(form, self._data, at)[0])

    def _field(self, field: int) -> int | None:
        """Where the value of a field lies, or `None` if it has none."""
        offsets = self._at - self._integer(self._at, "<i")
        place = 4 + 2 * field
        if place >= self._integer(offsets, "<H"):
            return None
        offset = self._integer(offsets + place, "<H")
        return self._at + offset if offset else None

    def _vector(self, field: int) -> tuple[int, int]:
        """Where a vector's (or text's) elements begin, and how many they are."""
        at = self._field(field)
        if at is None:
            return 0, 0
        at += self._integer(at)
        return at + 4, self._integer(at)

    def integer(self, field: int) -> int:
        at = self._field(field)
        return 0 if at is None else self._integer(at)

    def text(self, field: int) -> str:
        at, length = self._vector(field)
        return self._data[at : at + length].decode()

    def texts(self, field: int) -> list[str]:
        first, count = self._vector(field)
        found = []
        for place in range(first, first + 4 * count, 4):
            at = place + self._integer(place)
            found.append(self._data[at + 4 : at + 4 + self._integer(at)].decode())
        return found

    def array(self, field: int, dtype: np.dtype[Any]) -> Any:
        at, length = self._vector(field)
        # A tensor's data are a vector of bytes, its dimensions one of integers.
        count = length // dtype.itemsize if field == _TENSOR_DATA else length
        return np.frombuffer(self._data, dtype, count, at)

    def has(self, field: int) -> bool:
        return self._field(field) is not None

    def table(self, field: int) -> _Table:
        at = self._field(field)
        assert at is not None, f"no field {field}"
        return _Table(self._data, at + self._integer(at))

    def tables(self, field: int) -> Iterator[_Table]:
        first, count = self._vector(field)
        for place in range(first, first + 4 * count, 4):
            yield _Table(self._data, place + self._integer(place))


def _nodes(graph: _Table) -> Iterator[_Table]:
    for node in graph.tables(_GRAPH_NODES):
        yield node
        for attribute in node.tables(_NODE_ATTRIBUTES):
            if attribute.has(_ATTRIBUTE_GRAPH):
                yield from _nodes(attribute.table(_ATTRIBUTE_GRAPH))
