"""A network ready to run: torch steps and packed programs in order, with the values between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from torch import Tensor

from ..kernels.program import Executor
from .dense import Step, dense_step
from .graph import Shape
from .lower import lowered
from .stretches import Stretch, arranged
from .units import Conv, Kind, Network, Unit

_Way: TypeAlias = tuple[Shape, Kind]


@dataclass(frozen=True, eq=False)
class Section:
    """One part of a runner.

    Attributes:
        units: that it runs.
        reads: names of the values it is called with.
        makes: names of the values it gives.
        run: values -> values.
        drops: values that nobody reads after it.
        profile: values -> seconds of each unit's output; None for a single torch step.
    """

    units: tuple[Unit, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    run: Callable[..., tuple[Any, ...]]
    drops: tuple[str, ...]
    profile: Callable[..., dict[str, float]] | None


@dataclass(frozen=True, eq=False)
class Runner:
    """Sections in order. Nothing in it changes, so several threads may run it.

    Attributes:
        sections: in order.
        packed: outputs of the units that packed programs run.
        block: images side by side in them.
        torch_free: whether packed programs run everything, so that autograd sees nothing.
    """

    sections: tuple[Section, ...]
    packed: frozenset[str]
    block: int
    torch_free: bool

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        """Run all sections.

        Args:
            values: the inputs by name; gains the results, loses what is no longer read.
        """
        for section in self.sections:
            made = section.run(*[values[name] for name in section.reads])
            values.update(zip(section.makes, made, strict=True))
            for name in section.drops:
                del values[name]
        return values

    def profile(self, values: dict[str, Any]) -> dict[str, float]:
        """Seconds of each unit, by output, in one run; a packed program's conversions are extra.

        Args:
            values: the inputs by name.
        """
        seconds: dict[str, float] = {}
        for section in self.sections:
            given = [values[name] for name in section.reads]
            start = time.perf_counter()
            made = section.run(*given)
            spent = time.perf_counter() - start
            if section.profile is None:
                seconds[section.units[0].output] = spent
            else:
                seconds |= _shared_out(section.profile(*given), spent)
            values.update(zip(section.makes, made, strict=True))
        return seconds


class StepMaker:
    """Torch steps of a network, each made once however many runners use it."""

    def __init__(self, network: Network, values: Mapping[str, Any]) -> None:
        self._network, self._values = network, values
        self._made: dict[str, Step] = {}

    def step(self, unit: Unit) -> Step:
        """The torch step of a unit."""
        if unit.output not in self._made:
            shape = self._network.graph.shapes.get(unit.output)
            rest = None if shape is None else shape.rest
            self._made[unit.output] = dense_step(unit, self._values, rest)
        return self._made[unit.output]


def make_runner(
    network: Network,
    kinds: Mapping[str, Kind],
    values: Mapping[str, Any],
    *,
    packed: Iterable[str],
    block: int,
    steps: StepMaker,
) -> Runner:
    """Lower a network.

    Args:
        kinds: of all values.
        values: the constants.
        packed: outputs of the units for the packed kernels; a stretch of them without any
            convolution or linear layer is left to torch all the same.
        block: images side by side, 1 or a multiple of 16.
        steps: makes the torch steps.
    """
    chosen = _worth_packing(network, frozenset(packed))
    parts = arranged(network, chosen)
    last = _last_reader(parts, network)
    sections = [
        _packed_section(part, network, kinds, values, block, last)
        if isinstance(part, Stretch)
        else _torch_section(part, steps.step(part), last)
        for part in parts
    ]
    alone = all(isinstance(part, Stretch) for part in parts)
    return Runner(tuple(sections), chosen, block, alone)


def _worth_packing(network: Network, packed: frozenset[str]) -> frozenset[str]:
    kept: set[str] = set()
    for part in arranged(network, packed):
        if isinstance(part, Stretch) and any(isinstance(u.op, Conv) for u in part.units):
            kept |= {unit.output for unit in part.units}
    return frozenset(kept)


def _last_reader(parts: list[Unit | Stretch], network: Network) -> dict[str, Unit | Stretch]:
    """Value -> the part after which nobody reads it; results are always read."""
    last = {name: part for part in parts for name in part.inputs}
    return {name: part for name, part in last.items() if name not in network.results}


def _torch_section(unit: Unit, step: Step, last: Mapping[str, Any]) -> Section:
    drops = tuple(name for name, part in last.items() if part is unit)
    return Section(
        (unit,), unit.inputs, (unit.output,), lambda *given: (step(*given),), drops, None
    )


def _packed_section(
    stretch: Stretch,
    network: Network,
    kinds: Mapping[str, Kind],
    values: Mapping[str, Any],
    block: int,
    last: Mapping[str, Any],
) -> Section:
    program, units = lowered(stretch, network, kinds, values, block)
    executor = Executor(program)
    shapes = network.graph.shapes
    ways_in: list[_Way] = [(shapes[name], kinds[name]) for name in stretch.inputs]
    ways_out: list[_Way] = [(shapes[name], kinds[name]) for name in stretch.outputs]

    def given(tensors: tuple[Tensor, ...]) -> list[Tensor]:
        return [_images(t, *way) for t, way in zip(tensors, ways_in, strict=True)]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        made = executor(*given(tensors))
        return tuple(_tensor(t, *way) for t, way in zip(made, ways_out, strict=True))

    def profile(*tensors: Tensor) -> dict[str, float]:
        found = executor.profile(*given(tensors))
        return {unit.output: time for unit, time in zip(units, found.steps, strict=True)}

    drops = tuple(name for name, part in last.items() if part is stretch)
    return Section(stretch.units, stretch.inputs, stretch.outputs, run, drops, profile)


def _shared_out(seconds: dict[str, float], whole: float) -> dict[str, float]:
    """Times taken on one thread, scaled where the run was shorter; equal parts of it if all are 0.

    They are 0 without the C++ kernels, whose twin has no clock.
    """
    total = sum(seconds.values())
    if total == 0:
        return dict.fromkeys(seconds, whole / max(1, len(seconds)))
    return {name: time * min(1.0, whole / total) for name, time in seconds.items()}


def _images(tensor: Tensor, shape: Shape, kind: Kind) -> Tensor:
    """A tensor as the executor takes it: [rows, channels] or [rows, channels, height, width]."""
    if len(shape.rest) in (1, 3) and kind == "first":
        return tensor
    if kind == "first":
        return tensor.unsqueeze(2)
    rows = tensor.reshape(tensor.shape[0], prod(shape.rest[:-1]), shape.rest[-1])
    return rows.transpose(1, 2).unsqueeze(2)


def _tensor(images: Tensor, shape: Shape, kind: Kind) -> Tensor:
    """The reverse of `_images`."""
    rows = images.shape[0]
    if kind == "first":
        return images.view(rows, *shape.rest)
    vectors = images.view(rows, shape.rest[-1], prod(shape.rest[:-1])).transpose(1, 2)
    return vectors.view(rows, *shape.rest)
