"""A trained network → a checkpoint folder in the hub's layout, as `streamer --model` loads it."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from streamer.recognition.checkpoint_files import write_small_files


def export(model: Any, folder: Path) -> str:
    """Write a SEW CTC model into ``folder`` in half precision; return the SHA-256 of its weights.

    The folder is complete for `transformers` (``SEWForCTC``, ``Wav2Vec2Processor``).
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.to(torch.float16) for name, tensor in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=state)
    write_small_files(folder)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
