"""A clip as it is heard offline: in one piece, in a quiet room."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from streamer.messages import SAMPLE_RATE

if TYPE_CHECKING:
    from streamer.core.ctc import FrameGrid
    from streamer.messages import Samples

FAINT = 0.003
"""Noise that fills silence, where speech has a deviation of one. Zeros would shift group norm."""
AROUND = SAMPLE_RATE // 5
"""Of a quiet room before and after a clip, in samples: speech that begins with the window's first
sample is heard badly."""


def faint_noise(samples: Samples, size: int) -> Samples:
    """So much noise, far below `samples`, as a quiet room has."""
    noise = np.random.default_rng(0).standard_normal(size, np.float32)
    noise *= np.float32(FAINT) * samples.std()
    return noise


def in_quiet_room(samples: Samples, grid: FrameGrid) -> Samples:
    """A clip, shape (n,), with `AROUND` before and after it, and no partial frame."""
    room = faint_noise(samples, grid.fit(len(samples) + 2 * AROUND))
    room[AROUND : AROUND + len(samples)] += samples
    return room
