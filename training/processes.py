"""Processes that take each training step together, one to a core, each with clips of its own.

Two processes of one thread hear more than one process of two threads: no barrier at every
operation, and a busy core holds a step up once, not hundreds of times.
"""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, multiprocessing

_PATIENCE = timedelta(hours=2)
"""How long the others wait while the first one evaluates."""


@dataclass(frozen=True)
class Team:
    """This process among those that share each step."""

    rank: int = 0
    count: int = 1

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor (float32, on the CPU) becomes its sum over all processes."""
        if self.count == 1:
            return
        together = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(together)
        parts = torch.split(together, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))


def run_together(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call ``work(team, *arguments)`` in ``count`` processes, this one the first of them.

    The others end when this one does, however it ends.
    """
    if count == 1:
        work(Team(), *arguments)
        return
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_work, args=(port, Team(rank, count), work, arguments), daemon=True)
        for rank in range(1, count)
    ]
    for process in others:
        process.start()
    try:
        _work(port, Team(0, count), work, arguments)
    finally:
        for process in others:
            process.join(timeout=5)
            process.kill()


def _work(port: int, team: Team, work: Callable[..., None], arguments: Sequence[Any]) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group(
        "gloo", init_method=address, rank=team.rank, world_size=team.count, timeout=_PATIENCE
    )
    try:
        work(team, *arguments)
    finally:
        distributed.destroy_process_group()
