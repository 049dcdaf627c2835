"""Which units the packed kernels run: asked for, measured on this machine, or by a cost model."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..kernels import native
from ..kernels.packed import Layout, pack, unpack
from .cut import Costs, cheapest
from .model import modelled
from .packable import image
from .runner import Runner
from .units import Kind, Network

Choice: TypeAlias = Literal["measure", "sparse", "dense", "model"]

CHOICES: tuple[Choice, ...] = ("measure", "sparse", "dense", "model")
_ENOUGH = 0.15
"""Seconds that each contender is run for, at least three times and at most thirty."""
_MIXED_MUST_WIN = 0.98
"""Two kinds of kernels are taken for one only if they bring this much; less is noise."""


@dataclass(frozen=True)
class Chosen:
    """What was chosen for one class of batches.

    Attributes:
        packed: outputs of the units for the packed kernels.
        seconds: of one run for each contender that was timed: "sparse", "dense", "mixed" and,
            where the cost model has another mixture, "modelled".
    """

    packed: frozenset[str]
    seconds: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Subject:
    """What is chosen for.

    Attributes:
        network: its units.
        kinds: of all values.
        able: outputs of the units that can be packed.
        kept: weights that are not zero, by output of the unit.
        block: images side by side.
        make: outputs of the units to pack -> runner.
        inputs: an example's values by name; a fresh dict for each run.
    """

    network: Network
    kinds: Mapping[str, Kind]
    able: frozenset[str]
    kept: Mapping[str, int]
    block: int
    make: Callable[[frozenset[str]], Runner]
    inputs: Callable[[], dict[str, Any]]


def checked_choice(choice: str) -> Choice:
    """The same, as one of `CHOICES`.

    Raises:
        ValueError: another word.
    """
    for known in CHOICES:
        if choice == known:
            return known
    raise ValueError(f"choice must be one of {', '.join(CHOICES)}, got {choice!r}.")


def choose(subject: Subject, choice: Choice) -> Chosen:
    """Decide by the rule that was asked for.

    Args:
        choice: "measure" runs what `subject` makes, which takes seconds; the others run nothing.
    """
    if choice == "dense" or not subject.able:
        return Chosen(frozenset(), {})
    if choice == "sparse":
        return Chosen(subject.make(subject.able).packed, {})
    if choice == "model":
        return Chosen(_modelled(subject), {})
    return _measured(subject)


def _modelled(subject: Subject) -> frozenset[str]:
    if native.library() is None:  # what the model counts are the C++ kernels
        return frozenset()
    costs = modelled(subject.network, subject.able, subject.kept, subject.kinds, subject.block)
    return cheapest(subject.network, costs)


def _measured(subject: Subject) -> Chosen:
    """All packed, all torch and the mixtures cheapest by their parts, then timed as wholes."""
    sparse, dense = subject.make(subject.able), subject.make(frozenset())
    contenders = {"sparse": sparse, "dense": dense}
    mixtures = {
        "mixed": cheapest(subject.network, _costs(subject, sparse, dense)),
        # Parts are timed one by one, and the sum of a hundred small errors is a large one.
        "modelled": _modelled(subject),
    }
    for name, packed in mixtures.items():
        runner = subject.make(packed)
        if all(runner.packed != other.packed for other in contenders.values()):
            contenders[name] = runner
    seconds = timed(
        {name: lambda r=runner: r(subject.inputs()) for name, runner in contenders.items()}
    )
    weighed = {n: t / (_MIXED_MUST_WIN if n in mixtures else 1) for n, t in seconds.items()}
    best = min(weighed, key=lambda name: weighed[name])
    return Chosen(contenders[best].packed, seconds)


def timed(contenders: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each contender, run in turn after one untimed round."""
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    start, rounds = time.perf_counter(), 0
    while rounds < 3 or (rounds < 30 and time.perf_counter() - start < _ENOUGH * len(spent)):
        for name, run in contenders.items():
            begin = time.perf_counter()
            run()
            spent[name].append(time.perf_counter() - begin)
        rounds += 1
    return {name: statistics.median(times) for name, times in spent.items()}


def _costs(subject: Subject, sparse: Runner, dense: Runner) -> Costs:
    rounds = [(sparse.profile(subject.inputs()), dense.profile(subject.inputs())) for _ in range(4)]
    packed, torch = (
        {name: statistics.median(r[side][name] for r in rounds[1:]) for name in rounds[0][side]}
        for side in (0, 1)
    )
    packed = {name: packed.get(name, 0.0) for name in sparse.packed}
    rows = next(iter(v.shape[0] for v in subject.inputs().values() if v is not None))
    pairs = {name: _conversion(subject, name, rows) for name in _values(subject)}
    return Costs(
        torch,
        packed,
        {name: pair[0] for name, pair in pairs.items()},
        {name: pair[1] for name, pair in pairs.items()},
    )


def _values(subject: Subject) -> list[str]:
    """Values that could be packed or unpacked."""
    units = [unit for unit in subject.network.units if unit.output in subject.able]
    return list(dict.fromkeys(name for unit in units for name in (*unit.inputs, unit.output)))


def _conversion(subject: Subject, name: str, rows: int) -> tuple[float, float]:
    """Seconds of packing and unpacking a value of so many rows, best of three."""
    size = image(subject.network.graph.shapes[name], subject.kinds[name])
    assert size is not None
    layout = Layout(*size, 0, subject.block)
    packed = layout.framed(rows)
    images = unpack(packed, layout, rows)
    both: list[list[float]] = [[], []]
    for _ in range(3):
        start = time.perf_counter()
        pack(images, layout, packed)
        middle = time.perf_counter()
        unpack(packed, layout, rows)
        both[0].append(middle - start)
        both[1].append(time.perf_counter() - middle)
    return min(both[0]), min(both[1])
