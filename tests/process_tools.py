"""Gloo processes on one machine for tests, and networks sharded over them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import spawn

Job = Callable[..., Any]
"""(rank, *arguments) -> what `torch.save` can write; runs in each process."""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def on_ranks(folder: Path, job: Job, *arguments: Any, ranks: int = 2) -> list[Any]:
    """What `job(rank, *arguments)` returned on each rank of a gloo group.

    Args:
        folder: empty, for the results.
        job: a function of a module, as other processes import it.
        arguments: the same for all.
        ranks: processes.
    """
    place = str(folder)
    spawn(_run, args=(ranks, free_port(), place, job, arguments), nprocs=ranks, join=True)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def _run(rank: int, ranks: int, port: int, folder: str, job: Job, arguments: Any) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=ranks)
    try:
        torch.save(job(rank, *arguments), Path(folder) / f"{rank}.pt")
        dist.barrier()  # a rank that leaves while another still sends aborts it
    finally:
        dist.destroy_process_group()


def shard(model: nn.Module, *, layers: bool = True) -> nn.Module:
    """The model sharded in place over all ranks, each child that has parameters by itself."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for child in model.children() if layers else ():
        if list(child.parameters()):
            fully_shard(child, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model
