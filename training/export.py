"""A trained network → a checkpoint folder in the hub's layout, as `streamer --model` loads it."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from streamer.recognition import Checkpoint
from streamer.recognition.checkpoint_files import SAFETENSORS, write_small_files
from training.export_onnx import write_graph


def export(model: Any, folder: Path) -> str:
    """Write a SEW CTC model into ``folder`` in half precision; return the SHA-256 of its weights.

    The folder is complete for `transformers` (``SEWForCTC``, ``Wav2Vec2Processor``), and
    holds the graph for ONNX Runtime.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(torch.float16) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    write_small_files(folder)
    write_graph(Checkpoint(folder, folder.name))
    return hashlib.sha256((folder / SAFETENSORS).read_bytes()).hexdigest()
