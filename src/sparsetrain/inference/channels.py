"""Which channels of a stretch's values anybody needs: the others are not computed.

At extreme sparsity whole rows and columns of a layer's weight are empty. A channel that no kept
weight reads, and one that is always zero, are left out of the program, with all that only they
needed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .packable import Image
from .stretches import Stretch
from .units import Add, Affine, Conv, Flatten, Pool, Unit

Folded = Mapping[str, tuple[Tensor, Tensor | None]]
"""Output of each convolution or linear layer -> its weight and bias, norms folded in."""


def needed(stretch: Stretch, images: Mapping[str, Image], weights: Folded) -> dict[str, Tensor]:
    """Bool [channels] of each value of a stretch.

    Args:
        images: of all its values.

    Returns:
        All channels of the stretch's inputs and outputs, at least one of each value, and equal ones
        for values that lie in one layout: a sum and its parts, a pooling and its input.
    """
    sizes = {name: size.channels for name, size in images.items()}
    ends = {*stretch.inputs, *stretch.outputs}
    live = {name: torch.full((n,), name in ends) for name, n in sizes.items()}
    zero = _zeros(stretch, sizes, weights)
    _settle(stretch, live, zero, weights, images)
    for wanted in live.values():
        if not wanted.any():
            wanted[0] = True
    _settle(stretch, live, zero, weights, images)
    return live


def _settle(
    stretch: Stretch,
    live: dict[str, Tensor],
    zero: Mapping[str, Tensor],
    weights: Folded,
    images: Mapping[str, Image],
) -> None:
    """Mark, in place, what is read for what is marked, until nothing is added."""
    before = -1
    while before != (count := sum(int(wanted.sum()) for wanted in live.values())):
        before = count
        for unit in reversed(stretch.units):
            _mark(unit, live, zero, weights, images)


def _mark(
    unit: Unit,
    live: dict[str, Tensor],
    zero: Mapping[str, Tensor],
    weights: Folded,
    images: Mapping[str, Image],
) -> None:
    """Mark what a unit reads, in place, and tie values of one layout to each other."""
    source, out = unit.inputs[0], unit.output
    if isinstance(unit.op, Conv):
        read = _links(weights[out][0])[live[out]].any(0) & ~zero[source]
        live[source] |= read
        if unit.op.residual:
            _tie(live, (unit.inputs[1], out))
    elif isinstance(unit.op, Flatten):
        area = images[source].height * images[source].width
        live[source] |= live[out].view(-1, area).any(1)
        live[out] |= live[source].repeat_interleave(area)
    else:
        _tie(live, (*unit.inputs, out))


def _tie(live: dict[str, Tensor], names: tuple[str, ...]) -> None:
    whole = torch.stack([live[name] for name in names]).any(0)
    for name in names:
        live[name] |= whole


def _zeros(stretch: Stretch, sizes: Mapping[str, int], weights: Folded) -> dict[str, Tensor]:
    """Channels that are zero whatever the input is."""
    zero = {name: torch.zeros(n, dtype=torch.bool) for name, n in sizes.items()}
    for unit in stretch.units:
        op, before = unit.op, zero[unit.inputs[0]]
        if isinstance(op, Conv):
            weight, bias = weights[unit.output]
            still = ~(_links(weight) & ~before).any(1)
            if bias is not None:
                still &= bias.detach() <= 0 if op.relu else bias.detach() == 0
            zero[unit.output] = still & zero[unit.inputs[1]] if op.residual else still
        elif isinstance(op, Flatten):
            zero[unit.output] = before.repeat_interleave(sizes[unit.output] // before.numel())
        elif isinstance(op, Add):
            zero[unit.output] = before & zero[unit.inputs[1]]
        elif isinstance(op, Pool) or (isinstance(op, Affine) and op.norm is None):
            zero[unit.output] = before.clone()
    return zero


def _links(weight: Tensor) -> Tensor:
    """Bool [outputs, inputs]: whether any weight is kept between two channels."""
    return (weight.detach() != 0).flatten(2).any(2) if weight.dim() > 2 else weight.detach() != 0
