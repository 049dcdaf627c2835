"""Which units the packed kernels can run, and how their values lie as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import torch

from ..kernels.conv_plan import INT32, Geometry
from .graph import Graph, Shape
from .units import Add, Affine, Conv, Flatten, Kind, Network, Other, Pool, Unit


class Image(NamedTuple):
    """A value as images: entries of one first dimension each."""

    channels: int
    height: int
    width: int


def image(shape: Shape, kind: Kind) -> Image | None:
    """How a value lies as images; None where it cannot.

    Args:
        kind: "first" takes [C], [C, W] and [C, H, W]; "last" any [..., C], positions in one row.
    """
    rest: Sequence[int] = shape.rest
    if len(rest) == 0 or 0 in rest:
        return None
    if kind == "last":
        return Image(rest[-1], 1, prod(rest[:-1]))
    if len(rest) > 3:
        return None
    return Image(rest[0], 1 if len(rest) < 3 else rest[1], 1 if len(rest) < 2 else rest[-1])


def kinds(network: Network) -> dict[str, Kind]:
    """Each value's kind, where the units around it settle one."""
    graph = network.graph
    found: dict[str, Kind] = {}
    for unit in network.units:
        op = unit.op
        for name in unit.inputs if not isinstance(op, Other) else ():
            found.setdefault(name, _wanted(op, graph.shapes.get(name)))
        shape = graph.shapes.get(unit.output)
        if isinstance(op, (Add, Affine)):
            found[unit.output] = found[unit.inputs[0]]
        elif not isinstance(op, Other):
            found[unit.output] = _wanted(op, shape)
    return found


def packable(unit: Unit, graph: Graph, kinds: Mapping[str, Kind]) -> bool:
    """Whether the packed kernels can run a unit."""
    op, names = unit.op, (*unit.inputs, unit.output)
    shapes = [shape for name in names if (shape := graph.shapes.get(name)) is not None]
    if isinstance(op, Other) or len(shapes) < len(names):
        return False
    plain = all(shape.dtype is torch.float32 for shape in shapes)
    if not plain or len({shape.rows for shape in shapes}) != 1:
        return False
    if any(image(shape, kinds[name]) is None for name, shape in zip(names, shapes, strict=True)):
        return False
    found = {kinds[name] for name in names}
    if isinstance(op, Flatten):
        return kinds[unit.inputs[0]] == "first"
    if len(found) != 1:
        return False
    if isinstance(op, (Conv, Pool)) or (isinstance(op, Affine) and op.norm is not None):
        return found == {_wanted(op, shapes[0])} and _fits(op, shapes[0], graph)
    return True


def geometry(conv: Conv, source: Image, weight: tuple[int, ...]) -> Geometry:
    """The convolution as the kernels take it; a linear layer is one of 1x1 weights.

    Args:
        weight: shape of the weight.
    """
    kernel = (1, 1) if conv.linear else (weight[2], weight[3])
    return Geometry(
        source.channels,
        weight[0],
        kernel,
        conv.stride[0],
        conv.padding,
        source.height,
        source.width,
    )


def weight_shape(conv: Conv, graph: Graph) -> tuple[int, ...]:
    """Shape of a convolution's weight."""
    shape = graph.shapes[conv.weight]
    return (int(shape.rows), *shape.rest)


def _fits(op: object, shape: Shape, graph: Graph) -> bool:
    if isinstance(op, Conv):
        same = op.stride[0] == op.stride[1] and op.dilation == (1, 1) and op.groups == 1
        weight = weight_shape(op, graph)
        if not same or graph.shapes[op.weight].dtype is not torch.float32 or min(weight) == 0:
            return False
        source = image(shape, _wanted(op, shape))
        # Blocks of 64 images at most; the planned offsets have 32 bits.
        return source is not None and 64 * op.stride[0] ** 2 * prod(source) < INT32 // 4
    if isinstance(op, Pool):
        return all(2 * p <= k for p, k in zip(op.padding, op.kernel, strict=True))
    return True


def _wanted(op: object, shape: Shape | None) -> Kind:
    """The kind of a unit's values: of a linear layer "last", of other layers "first"."""
    if isinstance(op, Conv):
        return "last" if op.linear and shape is not None and len(shape.rest) > 1 else "first"
    if isinstance(op, (Add, Affine)) and shape is not None and len(shape.rest) == 2:
        return "last"  # tokens rather than signals
    return "first"
