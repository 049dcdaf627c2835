"""Ranks must hold the same masks; this checks it by hashes.

Whole masks must be equal on all ranks. Of a sharded mask each rank holds other rows, so there each
rank compares its rows with what the last update left, and all ranks the state of their generators;
counts, border and tie cut of an update are compared while it selects (`sharded.ranking`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
import torch.distributed as dist

from . import masks as mask_algebra
from . import sharded
from .types import Masks


def check_ranks_agree(
    masks: Masks,
    step: int,
    *,
    noted: Mapping[str, int] | None = None,
    generator: torch.Generator | None = None,
) -> None:
    """Compare every layer's mask with rank 0's; free without a process group, else one message.

    Args:
        masks: name -> bool mask of this rank, whole or sharded.
        step: optimizer steps taken, for the message and as part of what is compared.
        noted: `digests` of sharded masks as they must be still; None checks none of them.
        generator: compared last where given, since unequal draws make unequal masks.
    Raises:
        RuntimeError: a mask or the step differs; names the rank, the layer and the next move.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return
    noted = noted or {}
    values, expected = [step], [-1]  # -1: what rank 0 has
    for name, mask in masks.items():
        mine, own_rows = mask_algebra.digest(mask), sharded.is_sharded(mask)
        values.append(int(noted.get(name, mine) != mine) if own_rows else mine)
        expected.append(0 if own_rows else -1)
    values.append(0 if generator is None else _digest(generator))
    expected.append(-1)
    table = _gathered(torch.tensor(values), masks)
    right = torch.tensor(expected)
    right = torch.where(right < 0, table[0], right)
    for rank, theirs in enumerate(table):
        for place in (theirs != right).nonzero().flatten().tolist()[:1]:
            raise RuntimeError(
                f"masks differ between ranks at step {step}: rank {rank} "
                f"{_difference(list(masks), place, changed=expected[place] == 0)}; give "
                "every rank the same model, method and seed, and do not change masks by hand on "
                "one rank"
            )


def digests(masks: Masks) -> dict[str, int]:
    """A hash of this rank's rows of each sharded mask; nothing for whole masks."""
    return {
        name: mask_algebra.digest(mask) for name, mask in masks.items() if sharded.is_sharded(mask)
    }


def _digest(generator: torch.Generator) -> int:
    state = hashlib.blake2b(generator.get_state().numpy().tobytes(), digest_size=8)
    return int.from_bytes(state.digest(), "big") >> 1


def _difference(names: list[str], place: int, *, changed: bool) -> str:
    if place == 0:
        return "disagrees with rank 0 on the step count"
    if place > len(names):
        return f"disagrees with rank 0 on random draws, so on layer {names[0]!r} and the others"
    if changed:
        return f"has changed its rows of layer {names[place - 1]!r} since the last update"
    return f"disagrees with rank 0 on layer {names[place - 1]!r}"


def _gathered(row: torch.Tensor, masks: Masks) -> torch.Tensor:
    """The rows of all ranks below each other, on the CPU."""
    on_gpu = "nccl" in dist.get_backend()
    row = row.to(sharded.local(next(iter(masks.values()))).device if on_gpu else "cpu")
    table = [torch.empty_like(row) for _ in range(dist.get_world_size())]
    dist.all_gather(table, row)
    return torch.stack(table).cpu()
