"""The fixed cost model: the choice without a clock, equal in every run and on every machine."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod
from typing import NamedTuple

from .cut import Costs
from .packable import image, weight_shape
from .units import Conv, Kind, Network, Unit

# Nanoseconds, rounded; their ratios decide.
# They were fitted to ResNet-32 (width 2) and VGG-19 at 70 to 99 % zeros, on one core of a Zen 4.
DENSE_MAC = 0.022
"""Of a dense multiply-add of one image."""
_SPARSE_MAC = {True: 0.026, False: 0.045}
"""Of a kept weight at one position of one image: many images side by side, or one."""
_MOVED = 0.15
"""Of one float read and written, also in a conversion."""
_CALL = 3000.0
"""Of one torch operator."""


class Estimate(NamedTuple):
    """Seconds that an image takes on one core, by the cost model.

    Attributes:
        compiled: as the network was compiled.
        dense: by torch's float32 operators alone.
    """

    compiled: float
    dense: float


def modelled(
    network: Network,
    able: Collection[str],
    kept: Mapping[str, int],
    kinds: Mapping[str, Kind],
    block: int,
) -> Costs:
    """Costs of all units for one image, or for one block's share of it.

    Args:
        able: outputs of the units that can be packed.
        kept: weights that are not zero, by output of the unit.
        kinds: of all values.
        block: images side by side.
    """
    images = max(1, block)
    torch = {unit.output: _dense(unit, network, images) for unit in network.units}
    packed = {
        unit.output: images
        * (_SPARSE_MAC[block > 1] * _macs(unit, network, kept) + _moved(unit, network))
        for unit in network.units
        if unit.output in able
    }
    names = {name for unit in network.units for name in (*unit.inputs, unit.output)}
    moved = {}
    for name in names:
        shape = network.graph.shapes.get(name)
        size = None if shape is None else image(shape, kinds.get(name, "first"))
        moved[name] = 0.0 if size is None else images * _MOVED * prod(size)
    return Costs(*(_seconds(costs) for costs in (torch, packed, moved, moved)))


def total(network: Network, costs: Costs, packed: Collection[str]) -> float:
    """Seconds of the whole network, conversions included: what `cut.cheapest` makes least.

    Args:
        packed: outputs of the units that are packed.
    """
    made = {unit.output for unit in network.units}
    spent = 0.0
    for unit in network.units:
        spent += (costs.packed if unit.output in packed else costs.torch).get(unit.output, 0.0)
    read_packed = {n for u in network.units if u.output in packed for n in u.inputs}
    read_plain = {n for u in network.units if u.output not in packed for n in u.inputs}
    read_plain |= set(network.results)
    spent += sum(costs.pack.get(name, 0.0) for name in read_packed - set(packed))
    spent += sum(costs.unpack.get(n, 0.0) for n in read_plain & made & set(packed))
    return spent


def _dense(unit: Unit, network: Network, images: int) -> float:
    macs = _macs(unit, network, None)
    return _CALL + images * (DENSE_MAC * macs + _moved(unit, network))


def _macs(unit: Unit, network: Network, kept: Mapping[str, int] | None) -> float:
    """Multiply-adds of one image; of the kept weights alone if their number is given."""
    op, shape = unit.op, network.graph.shapes.get(unit.output)
    if not isinstance(op, Conv) or shape is None:
        return 0.0
    weights = prod(weight_shape(op, network.graph)) if kept is None else kept[unit.output]
    positions = prod(shape.rest[:-1]) if op.linear else prod(shape.rest[1:])
    return weights * positions


def _moved(unit: Unit, network: Network) -> float:
    names = (*unit.inputs, unit.output)
    shapes = [network.graph.shapes.get(name) for name in names]
    return _MOVED * sum(prod(shape.rest) for shape in shapes if shape is not None) / 2


def _seconds(nanoseconds: Mapping[str, float]) -> dict[str, float]:
    return {name: 1e-9 * time for name, time in nanoseconds.items()}
