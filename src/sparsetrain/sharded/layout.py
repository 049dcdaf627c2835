"""What a sharded tensor is: a DTensor of which each rank holds some rows, `Shard(0)`.

A tensor of n rows over R ranks is cut as `torch.chunk` does: ceil(n / R) rows each, fewer or none
on the last ranks. Ranks that hold copies of one another (hybrid sharding) do the same work.
"Collective" means that all ranks must call the function together.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..types import Tensors

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor


class Layout(NamedTuple):
    """Where the rows of a sharded tensor lie.

    Attributes:
        group: the ranks that hold different rows.
        rank: this one's place in the group; a lower rank has the earlier rows.
        ranks: how many there are.
        device: where tensors must be for the group's messages.
    """

    group: dist.ProcessGroup
    rank: int
    ranks: int
    device: torch.device

    def gather(self, row: Tensor) -> Tensor:
        """The rows of all ranks below each other: 1-d on each, ranks x length on the CPU."""
        row = row.to(self.device)
        out = [torch.empty_like(row) for _ in range(self.ranks)]
        dist.all_gather(out, row, group=self.group)
        return torch.stack(out).cpu()

    def add(self, values: Tensor) -> Tensor:
        """The sum over ranks, on the device of `values`."""
        total = values.to(self.device, copy=True)
        dist.all_reduce(total, group=self.group)
        return total.to(values.device)


def is_sharded(tensor: Tensor) -> TypeGuard[DTensor]:
    """Whether this is a DTensor."""
    # Importing it takes a second, and a DTensor cannot exist before it is.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def any_sharded(tensors: Iterable[Tensor]) -> bool:
    """Whether the first of the tensors is sharded; all are alike (`check_layout`)."""
    if "torch.distributed.tensor" not in sys.modules:
        return False  # without making a tensor, where the iterable makes them as it goes
    return any(is_sharded(tensor) for tensor, _ in zip(tensors, range(1), strict=False))


def check_layout(tensors: Tensors) -> None:
    """Refuse what is sharded otherwise than in rows, or only in part.

    Raises:
        ValueError: names the first such layer and the next move.
    """
    if not any(map(is_sharded, tensors.values())):
        return
    meshes = set()
    for name, tensor in tensors.items():
        if not is_sharded(tensor):
            raise ValueError(
                f"{name!r} is not sharded and others are: call fully_shard on the whole model, or "
                "leave the layer dense with exclude=[…]"
            )
        meshes.add(tensor.device_mesh)
        if _shard_axis(tensor) is None:
            raise ValueError(
                f"{name!r} is sharded as {tensor.placements}; masks need whole rows, Shard(0) over "
                "one mesh dimension, as fully_shard makes them without tensor parallelism"
            )
    if len(meshes) > 1:
        raise ValueError(
            "the selected layers are sharded over different meshes; use one, or leave layers dense "
            "with exclude=[…]"
        )


def layout_of(tensor: Tensor) -> Layout:
    """Where the rows of a sharded tensor lie."""
    sharded = _sharded(tensor)
    mesh, axis = sharded.device_mesh, _shard_axis(sharded)
    assert axis is not None, "check_layout has seen every parameter"
    device = torch.device(mesh.device_type)
    return Layout(mesh.get_group(axis), mesh.get_local_rank(axis), mesh.size(axis), device)


def local(tensor: Tensor) -> Tensor:
    """This rank's rows, in the same memory and without autograd; a plain tensor as it is."""
    if not is_sharded(tensor):
        return tensor.detach()
    with torch.no_grad():
        return tensor.to_local()


def wrap(rows: Tensor, like: Tensor) -> Tensor:
    """A sharded tensor of this rank's rows.

    Args:
        rows: as many as this rank holds of `like`; other dimensions and dtype as they are.
        like: gives the mesh, the placement and the number of rows; plain gives `rows` back.
    """
    if not is_sharded(like):
        return rows
    shape = torch.Size((like.shape[0], *rows.shape[1:]))
    stride = torch.empty(shape, device="meta").stride()
    return type(like).from_local(
        rows, like.device_mesh, like.placements, run_check=False, shape=shape, stride=stride
    )


@torch.no_grad()
def full(tensor: Tensor) -> Tensor:
    """All rows on every rank, collective; a plain tensor as it is."""
    return _sharded(tensor.detach()).full_tensor() if is_sharded(tensor) else tensor


@torch.no_grad()
def place(tensor: Tensor, like: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor laid out like another, on its device; collective if `tensor` is sharded otherwise.

    Args:
        tensor: plain and equal on all ranks, or sharded.
        like: of the same shape; plain or sharded.
        dtype: None keeps the tensor's.
    Returns:
        A copy, or the tensor itself where nothing is to be done.
    """
    if not is_sharded(like):
        return full(tensor).to(like.device, dtype)
    if is_sharded(tensor):
        if tensor.device_mesh == like.device_mesh and tensor.placements == like.placements:
            return tensor.to(dtype) if dtype else tensor
        tensor = full(tensor)
    layout, rows = layout_of(like), local(like)
    size = -(-like.shape[0] // layout.ranks)
    own = tensor.detach()[layout.rank * size : layout.rank * size + len(rows)]
    return wrap(own.to(rows.device, dtype, copy=True), like)


def full_state(value: Any) -> Any:
    """A copy of nested mappings with each sharded tensor whole; collective."""
    if isinstance(value, Tensor):
        return full(value) if is_sharded(value) else value.clone()
    if isinstance(value, Mapping):
        return {key: full_state(item) for key, item in value.items()}
    if isinstance(value, list):
        return [full_state(item) for item in value]
    return value


def place_state(value: Any, parameters: Tensors) -> Any:
    """`full_state` undone: a tensor under a parameter's name and of its shape lies as that does."""
    if not isinstance(value, Mapping):
        return value
    out = {}
    for key, item in value.items():
        like = parameters.get(key) if isinstance(key, str) else None
        if isinstance(item, Tensor) and like is not None and item.shape == like.shape:
            item = place(item, like)
        out[key] = place_state(item, parameters)
    return out


def count_true(masks: Iterable[Tensor]) -> list[int]:
    """True entries of each sharded mask, on all ranks together; collective, one message."""
    masks = list(masks)
    own = torch.stack([torch.count_nonzero(local(mask)) for mask in masks])
    return layout_of(masks[0]).add(own).tolist()


def add_up(parts: Sequence[Tensor], like: Tensor) -> list[Tensor]:
    """Each 0-d tensor summed over the ranks that hold the rows of `like`; collective.

    Plain `like`: the parts as they are.
    """
    if not is_sharded(like):
        return list(parts)
    return list(layout_of(like).add(torch.stack(list(parts))))


def gather(row: Tensor, like: Tensor) -> Tensor:
    """A 1-d tensor of each rank that holds rows of `like`, below each other; collective."""
    return layout_of(like).gather(row)


def row_wise(function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """`function` of a tensor that maps each row by itself, whole on every rank; collective.

    Args:
        function: tensor of n rows -> tensor of n rows.
        tensor: plain or sharded.
    """
    if not is_sharded(tensor):
        return function(tensor)
    return full(wrap(function(local(tensor)), tensor))


def whole(function: Callable[[Tensor], Tensor], tensor: Tensor) -> Tensor:
    """`function` of a tensor that needs all rows, laid out like the tensor; collective.

    It is in the memory of every rank meanwhile.
    """
    return place(function(full(tensor)), tensor) if is_sharded(tensor) else function(tensor)


def reshard_(model: nn.Module) -> None:
    """Make an FSDP2 model forget the whole parameters that an evaluation left behind.

    The root keeps them after a forward without backward. A weight changed in place meanwhile would
    not be seen by the next forward, and `parameters()` shows tensors the optimizer does not hold.
    """
    module = sys.modules.get("torch.distributed.fsdp")
    if module is not None:
        for part in model.modules():
            if isinstance(part, module.FSDPModule):
                cast("FSDPModule", part).reshard()


def _sharded(tensor: Tensor) -> DTensor:
    return cast("DTensor", tensor)


def _shard_axis(tensor: DTensor) -> int | None:
    """The mesh dimension over which the rows are cut, if all others hold copies."""
    axes = [axis for axis, p in enumerate(tensor.placements) if not p.is_replicate()]
    if len(axes) != 1 or type(tensor.placements[axes[0]]).__name__ != "Shard":
        return None
    return axes[0] if tensor.placements[axes[0]].is_shard(0) else None
