"""Muon: momentum whose direction is made orthogonal, for the matrices of the encoder."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from training.processes import Team

_MOMENTUM, _DECAY = 0.95, 0.01


class Muon(torch.optim.Optimizer):
    """Steps of equal size in all directions of a matrix (K. Jordan and others, 2024).

    Scaled to the size of AdamW's steps (J. Liu and others, arXiv 2502.16982), so that both take
    one learning rate. Each process orthogonalizes its share of the matrices.
    """

    def __init__(self, matrices: Iterable[Parameter], rate: float, team: Team) -> None:
        """`matrices` have two dimensions, or more that are flattened after the first."""
        super().__init__(matrices, {"lr": rate})
        self._team = team

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step along the gradients."""
        for group in self.param_groups:
            changes = []
            for number, weight in enumerate(group["params"]):
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                momentum = state["momentum"].lerp_(weight.grad, 1 - _MOMENTUM)
                if number % self._team.count == self._team.rank:
                    direction = weight.grad.lerp(momentum, _MOMENTUM)
                    changes.append(orthogonal(direction.flatten(1)).view_as(weight))
                else:
                    changes.append(torch.zeros_like(weight))
            self._team.add_up(changes)
            for weight, change in zip(group["params"], changes, strict=True):
                size = 0.2 * max(change.flatten(1).shape) ** 0.5
                weight.mul_(1 - group["lr"] * _DECAY).add_(change, alpha=-group["lr"] * size)


def orthogonal(matrix: Tensor) -> Tensor:
    """The nearest matrix whose singular values are about one (0.7 to 1.2).

    Five steps of the quintic Newton-Schulz iteration in bfloat16.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    orthogonal: Tensor = (x.T if tall else x).to(matrix.dtype)
    return orthogonal
