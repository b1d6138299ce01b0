"""A CTC network in ONNX Runtime.

    sew.onnx           the operations; of each weight, its place in the other file
    model.safetensors  the weights, as `transformers` and `streamer adapt` read them too

The graph widens half precision to single and folds the weight norm; ONNX Runtime does both once,
while it loads. A place is right in every file whose safetensors header is the same, so the graph
records the SHA-256 of that header: it fits all weights of this shape, adapted ones too, and no
others. `python -m training.export_onnx CHECKPOINT` makes it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from streamer.errors import ModelError
from streamer.recognition.accelerators import default_threads
from streamer.recognition.checkpoint_files import CONFIG, GRAPH, SAFETENSORS, read_json

if TYPE_CHECKING:
    from streamer.messages import Samples

INPUT, OUTPUT = "samples", "logits"
"""Shapes (windows, n) and (windows, frames, vocabulary)."""
HEADER = "safetensors_header_sha256"
"""Under this name the graph records which weights it fits."""


def read_header(weights: bytes) -> tuple[bytes, int]:
    """Return the JSON header of a safetensors file, and where the tensors begin."""
    begin = 8 + int.from_bytes(weights[:8], "little")
    return weights[8:begin], begin


def load_onnx(folder: Path, threads: int) -> OnnxNetwork | None:
    """The network of a checkpoint, or `None` where it has no graph that fits its weights.

    Args:
        folder: where it lies.
        threads: as of `Recognizer`.

    Raises:
        ModelError: the graph or the configuration is damaged.
    """
    try:
        graph, weights = (folder / GRAPH).read_bytes(), (folder / SAFETENSORS).read_bytes()
    except OSError:
        return None
    header, begin = read_header(weights)
    # Its metadata can be asked for only after a session has taken the weights.
    if hashlib.sha256(header).hexdigest().encode() not in graph:
        return None
    tensors = json.loads(header)
    tensors.pop("__metadata__", None)
    if begin + max(tensor["data_offsets"][1] for tensor in tensors.values()) != len(weights):
        return None
    size = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    config = read_json(folder / CONFIG)
    try:
        return OnnxNetwork(
            graph, weights, config, threads or default_threads(size, os.cpu_count() or 1)
        )
    except Exception as error:  # of the library's own classes, by kind of damage
        raise ModelError(f"{folder / GRAPH}: damaged; delete it to use torch instead") from error


class OnnxNetwork:
    """Samples → logits, on the CPU. Safe to call from several threads.

    Attributes:
        config: the checkpoint's.
        threads: how many compute one window.
    """

    def __init__(
        self, graph: bytes, weights: bytes, config: Mapping[str, Any], threads: int
    ) -> None:
        """Load a graph and the safetensors file that it was made for."""
        self.config, self.threads = config, threads
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # what matters becomes an exception
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # The arena kept 31 MB more after a window of 30 s, and saved no time.
        options.enable_cpu_mem_arena = False
        # ONNX Runtime itself refuses to read weights behind a symbolic link, and installers and
        # the hub's cache make such links. From memory it loads as fast.
        options.add_external_initializers_from_files_in_memory(
            [SAFETENSORS], [weights], [len(weights)]
        )
        self._session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, samples: Samples) -> Samples:
        """Shape (windows, n) → (windows, frames, vocabulary), not yet normalized."""
        [logits] = self._session.run([OUTPUT], {INPUT: samples})
        return np.asarray(logits, np.float32)
