"""Ranks must hold the same masks; this checks it by hashes."""

from __future__ import annotations

import torch
import torch.distributed as dist

from . import masks as mask_algebra
from .types import Masks


def check_ranks_agree(masks: Masks, step: int) -> None:
    """Compare every layer's mask with rank 0's; free without a process group.

    Args:
        masks: name -> bool mask of this rank.
        step: optimizer steps taken, for the message and as part of what is compared.
    Raises:
        RuntimeError: a mask or the step differs; names the rank, the layer and the next move.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    device = _group_device(masks)
    mine = torch.tensor([step, *map(mask_algebra.digest, masks.values())], device=device)
    gathered = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    for rank, theirs in enumerate(gathered):
        differs = (theirs != gathered[0]).nonzero().flatten().tolist()
        if differs:
            what = "the step count" if differs[0] == 0 else f"layer {list(masks)[differs[0] - 1]!r}"
            raise RuntimeError(
                f"masks differ between ranks at step {step}: rank {rank} disagrees with rank 0 on "
                f"{what}; give every rank the same model, method and seed, and do not change masks "
                "by hand on one rank"
            )


def _group_device(masks: Masks) -> torch.device:
    if "nccl" in dist.get_backend():
        return next(iter(masks.values())).device
    return torch.device("cpu")
