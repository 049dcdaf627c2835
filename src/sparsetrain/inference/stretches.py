"""Units in the order they run: those for the packed kernels together, in as few parts as can be."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from .units import Network, Unit


@dataclass(frozen=True, eq=False)
class Stretch:
    """Units that run one after the other in the packed layout, without a conversion.

    Attributes:
        units: in order.
        inputs: values that are packed.
        outputs: values that are unpacked.
    """

    units: tuple[Unit, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


Part: TypeAlias = Unit | Stretch


def arranged(network: Network, packed: Iterable[str]) -> list[Part]:
    """All units of a network in an order in which they can run.

    Args:
        packed: outputs of the units for the packed kernels.
    """
    chosen, shapes = set(packed), network.graph.shapes
    ready = {name for name in network.graph.inputs if name is not None}
    waiting: list[Unit] = list(network.units)
    parts: list[Part] = []
    while waiting:
        alone = _ready(waiting, ready, lambda unit: unit.output not in chosen)
        parts.extend(alone)
        waiting = [unit for unit in waiting if unit.output not in ready]
        first = next(
            (u for u in waiting if u.output in chosen and ready.issuperset(u.inputs)), None
        )
        if first is None:
            assert alone or not waiting, "the units are in an order in which they can run"
            continue
        alike = {name for name in chosen if shapes[name].rows == shapes[first.output].rows}
        group = _ready(waiting, ready, lambda unit, some=alike: unit.output in some)
        waiting = [unit for unit in waiting if unit.output not in ready]
        parts.append(_stretch(group, waiting, network))
    return parts


def _ready(waiting: list[Unit], ready: set[str], fits: Callable[[Unit], bool]) -> list[Unit]:
    """Units that fit and can run, and those that can after them; `ready` gains their outputs."""
    found = []
    for unit in waiting:  # one pass is enough: they are in an order in which they can run
        if fits(unit) and ready.issuperset(unit.inputs):
            found.append(unit)
            ready.add(unit.output)
    return found


def _stretch(units: list[Unit], later: list[Unit], network: Network) -> Stretch:
    made = {unit.output for unit in units}
    reads = dict.fromkeys(name for unit in units for name in unit.inputs)
    wanted = {name for unit in later for name in unit.inputs} | set(network.results)
    return Stretch(
        tuple(units),
        tuple(name for name in reads if name not in made),
        tuple(unit.output for unit in units if unit.output in wanted),
    )
