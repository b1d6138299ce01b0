"""A full-size SEW-tiny with random weights, in the hub's layout: it costs what the real one does.

Where the hub cannot be reached, speed, memory and loading are measured and tested with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import SEWConfig, SEWForCTC

from streamer.recognition.checkpoint_files import SEW_TINY_TOKENS, write_small_files


def random_sew_tiny() -> Any:
    """A `SEWForCTC` of the 40.73 million weights of `asapp/sew-tiny-100k-ft-ls100h`."""
    config = SEWConfig(
        vocab_size=len(SEW_TINY_TOKENS),
        hidden_size=512,
        num_hidden_layers=12,
        num_attention_heads=8,
        intermediate_size=2048,
        squeeze_factor=2,
        num_conv_pos_embeddings=31,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SEWForCTC(config)


def write_random_sew_tiny(folder: Path) -> None:
    """Write such a checkpoint into `folder`, which is there."""
    model = random_sew_tiny()
    model.config.architectures = ["SEWForCTC"]
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    write_small_files(folder)
