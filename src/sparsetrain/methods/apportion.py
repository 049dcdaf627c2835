"""Whole numbers for the layers out of one exact total: by shares, never above a layer's room."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .. import distributions, sharded
from .. import masks as mask_algebra
from ..types import Masks, View

Redistribution: TypeAlias = Literal["none", "magnitude", "momentum", "nonzeros"]


def apportion(shares: Mapping[str, float], room: Mapping[str, int], total: int) -> dict[str, int]:
    """Split a total among layers in proportion to their shares.

    Args:
        shares: name -> weight of the layer, 0 or more; layers of share 0 get something only when
            all others are full, and then in proportion to their room.
        room: name -> most that the layer can take, for the same names.
        total: what is split, 0 <= total <= sum of the rooms.
    Returns:
        name -> count, `total` in all, by largest remainder; ties go to the earlier layer.
    """
    left, given = Fraction(total), dict.fromkeys(room, Fraction(0))
    for weights in (shares, room):
        free = {n: Fraction(w) for n, w in weights.items() if w > 0 and given[n] < room[n]}
        while free and left > 0:
            scale = left / sum(free.values())
            full = [name for name, weight in free.items() if scale * weight >= room[name]]
            for name in full or free:
                given[name] = Fraction(room[name]) if full else scale * free[name]
                left -= given[name]
            free = {n: weight for n, weight in free.items() if full and n not in full}
    densities = {n: given[n] / room[n] if room[n] else Fraction(0) for n in room}
    return distributions.from_densities({n: (size,) for n, size in room.items()}, densities, total)


def regrow_counts(
    rule: Redistribution,
    view: View,
    before: Masks,
    dropped: Mapping[str, int],
    momentum: Mapping[str, Tensor],
) -> dict[str, int]:
    """How many weights each layer grows: what it dropped, or its share of all that was dropped.

    Args:
        rule: "none" gives each layer its own back; the shares of the others are the mean |w| or
            mean |momentum| of the active weights, or the number of them.
        view: weights, read where `before` is True.
        before: masks before anything was dropped.
        dropped: name -> weights just dropped.
        momentum: name -> averaged dense gradient; read by "momentum" alone.
    Returns:
        name -> count; the total is what was dropped, no layer gets more than it has free, and one
        that has lost all its weights gets one at least.
    Source: Dettmers & Zettlemoyer 2019, arXiv 1907.04840. Deviates: the total is exact, so no
    feedback term corrects its drift; a layer may fill up entirely, not to 99 % of its free places.
    """
    if rule == "none":
        return dict(dropped)
    active = mask_algebra.count_active(before)
    room = {n: mask.numel() - active[n] + dropped[n] for n, mask in before.items()}
    if rule == "nonzeros":
        shares: Mapping[str, float] = active
    else:
        shares = _mean_active(view.weights if rule == "magnitude" else momentum, before, active)
    # A layer without any weight would have no share ever after, and the network be cut there.
    least = {n: int(0 < active[n] == dropped[n]) for n in room}
    room = {n: room[n] - least[n] for n in room}
    rest = apportion(shares, room, sum(dropped.values()) - sum(least.values()))
    return {n: rest[n] + least[n] for n in room}


def _mean_active(
    values: Mapping[str, Tensor], masks: Masks, active: Mapping[str, int]
) -> dict[str, float]:
    # float32 sums also in half precision, and one read from the device for all layers.
    sums = [
        (sharded.local(values[n]).abs() * sharded.local(m)).sum(dtype=torch.float32)
        for n, m in masks.items()
    ]
    sums = sharded.add_up(sums, next(iter(masks.values())))
    return {
        name: total / max(active[name], 1)
        for name, total in zip(
            masks, torch.stack([s.to(sums[0].device) for s in sums]).tolist(), strict=True
        )
    }
