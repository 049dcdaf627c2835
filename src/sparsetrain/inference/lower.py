"""A stretch of units as a program of the packed kernels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..kernels.conv_plan import plan
from ..kernels.packed import Layout
from ..kernels.program import Add as AddStep
from ..kernels.program import Affine as AffineStep
from ..kernels.program import Conv as ConvStep
from ..kernels.program import Flatten as FlattenStep
from ..kernels.program import Pool as PoolStep
from ..kernels.program import Program, Step
from .channels import Folded, needed
from .packable import Image, geometry, image, weight_shape
from .stretches import Stretch
from .units import Add, Affine, Conv, Flatten, Kind, Network, Pool, Unit
from .weights import folded, scale_shift


def lowered(
    stretch: Stretch,
    network: Network,
    kinds: Mapping[str, Kind],
    values: Mapping[str, Any],
    block: int,
) -> tuple[Program, tuple[Unit, ...]]:
    """The program of a stretch, and the unit that each of its steps is.

    Args:
        kinds: of all values.
        values: the constants.
        block: images side by side.
    """
    images = _images(stretch, network, kinds)
    weights = {u.output: folded(u.op, values) for u in stretch.units if isinstance(u.op, Conv)}
    live = needed(stretch, images, weights)
    places, layouts = _buffers(stretch, network, _narrowed(images, live), block)
    steps: list[Step] = []
    units: list[Unit] = []
    for unit in stretch.units:
        if places[unit.output] == places[unit.inputs[0]]:
            continue  # a flattened 1x1 image is what it was
        if isinstance(unit.op, Conv):
            steps.append(_conv(unit, unit.op, places, layouts, _chosen(unit, weights, live)))
        else:
            steps.append(_step(unit, places, values, live))
        units.append(unit)
    inputs = tuple(places[name] for name in stretch.inputs)
    outputs = tuple(places[name] for name in stretch.outputs)
    return Program(tuple(layouts), tuple(steps), inputs, outputs), tuple(units)


def _images(stretch: Stretch, network: Network, kinds: Mapping[str, Kind]) -> dict[str, Image]:
    names = [*stretch.inputs, *(unit.output for unit in stretch.units)]
    found = {name: image(network.graph.shapes[name], kinds[name]) for name in names}
    return {name: size for name, size in found.items() if size is not None}


def _narrowed(images: Mapping[str, Image], live: Mapping[str, Tensor]) -> dict[str, Image]:
    return {name: size._replace(channels=int(live[name].sum())) for name, size in images.items()}


def _chosen(
    unit: Unit, weights: Folded, live: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor | None]:
    """Weight, as of a convolution, and bias between the channels that are needed."""
    weight, bias = weights[unit.output]
    rows, columns = live[unit.output], live[unit.inputs[0]]
    chosen = weight.detach()[rows][:, columns]
    chosen = chosen if chosen.dim() == 4 else chosen[:, :, None, None]
    return chosen, None if bias is None else bias.detach()[rows]


def _buffers(
    stretch: Stretch, network: Network, images: Mapping[str, Image], block: int
) -> tuple[dict[str, int], list[Layout]]:
    """Value -> place, and the layout of each place.

    A residual has its sum's layout, so both have the widest halo that either needs.
    """
    halos = dict.fromkeys(images, 0)
    for unit in stretch.units:
        name = unit.inputs[0]
        halos[name] = max(halos[name], _halo(unit, images[name], network))
    groups = _alike(stretch, images)
    places: dict[str, int] = {}
    layouts: list[Layout] = []
    for name, size in images.items():
        same = _source_of_same(stretch, name, images)
        if same is not None:
            places[name] = places[same]
            continue
        halo = max(halos[other] for other in groups[name])
        places[name] = len(layouts)
        layouts.append(Layout(*size, halo, block))
    return places, layouts


def _halo(unit: Unit, size: Image, network: Network) -> int:
    """Zeros that a unit reads around its first input."""
    if not isinstance(unit.op, Conv):
        return 0
    return geometry(unit.op, size, weight_shape(unit.op, network.graph)).halo


def _alike(stretch: Stretch, images: Mapping[str, Image]) -> dict[str, set[str]]:
    """Value -> all values that must have its layout."""
    groups = {name: {name} for name in images}
    for unit in stretch.units:
        op = unit.op
        joined: tuple[str, ...] = ()
        if isinstance(op, Conv) and op.residual:
            joined = (unit.inputs[1], unit.output)
        elif _source_of_same(stretch, unit.output, images) is not None:
            joined = (unit.inputs[0], unit.output)
        whole = set().union(*(groups[name] for name in joined))
        for name in whole:
            groups[name] = whole
    return groups


def _source_of_same(stretch: Stretch, name: str, images: Mapping[str, Image]) -> str | None:
    """The value whose entries lie just as a flattened one's: that of 1x1 images."""
    for unit in stretch.units:
        if unit.output == name and isinstance(unit.op, Flatten):
            source = unit.inputs[0]
            return source if images[source] == images[name] else None
    return None


def _step(
    unit: Unit, places: Mapping[str, int], values: Mapping[str, Any], live: Mapping[str, Tensor]
) -> Step:
    op, source, target = unit.op, places[unit.inputs[0]], places[unit.output]
    if isinstance(op, Pool):
        return PoolStep(
            source,
            target,
            op.kind,
            op.kernel,
            op.stride,
            op.padding,
            count_padding=op.count_include_pad,
        )
    if isinstance(op, Add):
        return AddStep(source, target, places[unit.inputs[1]], relu=op.relu)
    if isinstance(op, Flatten):
        return FlattenStep(source, target)
    assert isinstance(op, Affine)
    if op.norm is None:
        return AffineStep(source, target, relu=op.relu)
    both = scale_shift(op.norm, values)
    scale, shift = (tensor[live[unit.output]].float() for tensor in both)
    return AffineStep(source, target, scale=scale, shift=shift, relu=op.relu)


def _conv(
    unit: Unit,
    op: Conv,
    places: Mapping[str, int],
    layouts: list[Layout],
    chosen: tuple[Tensor, Tensor | None],
) -> ConvStep:
    source, target = places[unit.inputs[0]], places[unit.output]
    weight, bias = chosen
    inner, outer = layouts[source], layouts[target]
    size = Image(inner.channels, inner.height, inner.width)
    planned = plan(
        weight != 0,
        geometry(op, size, tuple(weight.shape)),
        block=inner.block,
        source_halo=inner.halo,
        target_halo=outer.halo,
    )
    return ConvStep(
        source,
        target,
        planned,
        _gathered(weight, planned.entries.where),
        bias=None if bias is None else bias.clone(),
        residual=places[unit.inputs[1]] if op.residual else None,
        relu=op.relu,
    )


def _gathered(weight: Tensor, where: Tensor) -> Tensor:
    return weight.contiguous().view(-1)[where]
