"""Where a model runs, and on how many threads."""

from __future__ import annotations

import math

from streamer.errors import SettingsError

_WEIGHTS_A_THREAD = 50_000_000
"""A second thread saved a 40-million model 40 % of the time alone on two cores, and cost it time
where another program was using one of them; CPU time always grew."""


def choose_accelerator(accelerator: str) -> str:
    """`auto`, `cpu`, `cuda` or `mps` → one of the last three, as torch finds them.

    Raises:
        SettingsError: it is not there.
    """
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if accelerator == "auto":
        return next(name for name, there in available.items() if there)
    if not available[accelerator]:
        there = ", ".join(name for name, there in available.items() if there)
        raise SettingsError(f"accelerator = {accelerator!r}: not on this machine; it has {there}")
    return accelerator


def default_threads(weights: int, most: int) -> int:
    """CPU threads for a network of so many weights: one for each 50 million, `most` at most."""
    return max(1, min(most, math.ceil(weights / _WEIGHTS_A_THREAD)))


def multiplies_bfloat16() -> bool:
    """Whether the CPU has products of bfloat16, which take half the time of single precision's."""
    import torch

    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # absent from older versions
    return bool(supported and supported())
