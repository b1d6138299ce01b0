"""Windows as a live preview hears them: what they are recognized as should not depend on them.

The network's output in a part of the audio, heard alone, is drawn to its own output there when it
hears everything. So a word that a preview has shown stays what it was, whatever comes after it.
"""

import random
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from training.network import HOP, RECEPTIVE, SQUEEZE

LENGTHS_S = 1.28, 2.56, 3.84
"""Few, for which the kernels are built once."""
LEFT_EDGE, RIGHT_EDGE = 40, 8
"""Frames at the edges of a window that live recognition does not use or does not trust."""


@dataclass(frozen=True)
class LiveWindow:
    """Frames ``first`` to ``first + frames`` of a clip."""

    first: int
    frames: int

    @classmethod
    def draw(cls, chance: random.Random, samples: int) -> "LiveWindow":
        """A window in a clip of so many samples; one in three begins where the clip does."""
        whole = (samples - RECEPTIVE) // HOP + 1
        frames = min(whole, round(chance.choice(LENGTHS_S) * 16_000) // HOP)
        latest = (whole - frames) // SQUEEZE
        first = 0 if chance.random() < 1 / 3 else SQUEEZE * chance.randint(0, latest)
        return cls(first, frames // SQUEEZE * SQUEEZE)

    def cut(self, samples: Tensor) -> Tensor:
        """Shape (clips, samples) → those of the window."""
        start = self.first * HOP
        return samples[:, start : start + (self.frames - 1) * HOP + RECEPTIVE]

    def difference(self, whole: Tensor, heard: Tensor) -> Tensor:
        """Kullback-Leibler divergence a frame, of the window from the whole clip.

        Args:
            whole: log-probabilities of the clips, shape (clips, frames, letters).
            heard: logits of their windows.
        """
        left = LEFT_EDGE if self.first else 0
        kept = slice(left, max(left + 1, self.frames - RIGHT_EDGE))
        truth = whole.detach()[:, self.first : self.first + self.frames][:, kept]
        guess = heard.float().log_softmax(-1)[:, kept]
        divergence = functional.kl_div(guess, truth, reduction="none", log_target=True)
        return divergence.sum(-1).mean()
