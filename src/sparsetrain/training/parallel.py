"""The processes that train one network together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from .config import OptimConfig, RunConfig
from .errors import BadInput
from .meeting import met

T = TypeVar("T")
_START = "torchrun --nproc-per-node N -m sparsetrain train --parallel"


@dataclass(frozen=True)
class World:
    """This process among those of the run; alone, every call is free.

    Calls named collective must be made by all of them together. Small messages go over gloo, so
    that they never wait for a GPU.

    Attributes:
        rank: from 0; rank 0 alone writes files and speaks.
        size: processes.
        mode: how the network is spread.
        control: the group for small messages; None is all processes' own.
    """

    rank: int = 0
    size: int = 1
    mode: str = "none"
    control: Any = None

    @property
    def writes(self) -> bool:
        """Whether this process writes the run folder."""
        return self.rank == 0

    def most(self, *numbers: int) -> list[int]:
        """The largest of all processes, number by number; collective, one message."""
        if self.size == 1:
            return list(numbers)
        held = torch.tensor(numbers)
        dist.all_reduce(held, dist.ReduceOp.MAX, group=self.control)
        return held.tolist()

    def all_good(self, good: bool) -> bool:
        """Whether it holds on all processes; collective."""
        return self.most(int(not good)) == [0]

    def total(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, on the CPU; collective."""
        if self.size > 1:
            numbers = numbers.cpu().clone()
            dist.all_reduce(numbers, group=self.control)
        return numbers

    def gather(self, value: T) -> list[T]:
        """The value of each process; collective."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.control)
        return found

    def first(self, function: Callable[[], T]) -> T:
        """What `function` gives on rank 0, where alone it is called; collective.

        Raises:
            BadInput: it did, and so does every process.
        """
        if self.size == 1:
            return function()
        box: list[Any] = [None, None]
        if self.writes:
            try:
                box[0] = function()
            except BadInput as error:
                box[1] = str(error)
        dist.broadcast_object_list(box, src=0, group=self.control)
        if box[1] is not None:
            raise BadInput(box[1])
        return box[0]

    @torch.no_grad()
    def share_buffers_(self, model: nn.Module) -> None:
        """Give every process rank 0's batch-norm statistics; collective, one message."""
        buffers = [b for b in model.buffers() if b.is_floating_point()]
        if self.size == 1 or not buffers:
            return
        flat = torch.cat([buffer.reshape(-1).float() for buffer in buffers])
        dist.broadcast(flat, src=0)
        parts = flat.split([buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view(buffer.shape))


ALONE = World()


@contextmanager
def joined(run: RunConfig) -> Iterator[World]:
    """The processes that torchrun has started, connected for the time of the body.

    Raises:
        BadInput: `parallel` and the way the command was started do not fit.
        RunFailed: another process has not come.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if run.parallel == "none":
        if size > 1:
            raise BadInput(
                f"torchrun started {size} processes, but parallel is none, so that each would "
                "train the whole run; give --parallel ddp or --parallel fsdp."
            )
        yield ALONE
        return
    if "RANK" not in os.environ:
        raise BadInput(
            f"parallel={run.parallel} needs the processes that torchrun starts: {_START} "
            f"{run.parallel} …"
        )
    cuda = run.device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local_rank())
    store, rank, size = next(rendezvous("env://"))
    store = met(store, rank, size)
    dist.init_process_group("nccl" if cuda else "gloo", store=store, rank=rank, world_size=size)
    try:
        control = dist.new_group(backend="gloo") if cuda else None
        yield World(dist.get_rank(), dist.get_world_size(), run.parallel, control)
    finally:
        dist.destroy_process_group()


def local_rank() -> int:
    """This process's number on its machine, which is its GPU's."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def is_writer() -> bool:
    """Whether this process is rank 0, or alone; before the processes have joined, too."""
    return os.environ.get("RANK", "0") == "0"


def share_of_batch(optim: OptimConfig, world: World) -> int:
    """Images of a step on this process.

    Raises:
        BadInput: `batch_size` cannot be dealt out evenly.
    """
    if optim.batch_size % world.size:
        low = optim.batch_size // world.size * world.size
        near = f"{low} or {low + world.size}" if low else f"{world.size}"
        raise BadInput(
            f"batch_size is that of all processes together and must be divisible by their number, "
            f"{world.size}, got {optim.batch_size}; take {near}."
        )
    return optim.batch_size // world.size


def shard_(model: nn.Module, device: torch.device) -> None:
    """Spread a model's parameters over all processes in rows, in place, part by part (FSDP2)."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for part in _parts(model):
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)


def replicated(model: nn.Module, world: World) -> nn.Module:
    """What the forward pass of training is called on: it makes the gradients those of all."""
    return DistributedDataParallel(model) if world.mode == "ddp" and world.size > 1 else model


def _parts(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of a network: its children, and those of its sequences."""
    for child in model.children():
        if isinstance(child, nn.Sequential) and len(child) > 1:
            yield from _parts(child)
        elif next(child.parameters(), None) is not None:
            yield child
