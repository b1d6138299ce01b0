"""Where a model runs."""

from __future__ import annotations

import torch

from streamer.errors import SettingsError


def choose_device(accelerator: str) -> str:
    """`auto`, `cpu`, `cuda` or `mps` → one of the last three.

    Raises:
        SettingsError: it is not there.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        return next(device for device, there in available.items() if there)
    if not available[accelerator]:
        there = ", ".join(device for device, there in available.items() if there)
        raise SettingsError(f"accelerator = {accelerator!r}: not on this machine; it has {there}")
    return accelerator


def multiplies_bfloat16() -> bool:
    """Whether the CPU has products of bfloat16, which take half the time of single precision's."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # absent from older versions
    return bool(supported and supported())
