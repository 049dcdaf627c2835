"""A graph's operators as units: batch norm, bias, residual and ReLU folded into convolutions."""

from __future__ import annotations

import operator
from collections import Counter
from dataclasses import replace

import torch

from .graph import Call, Graph
from .recognise import recognise
from .units import Add, Affine, Conv, Network, Op, Other, Same, Unit

# Operators with several results of which a network in evaluation mode reads the first alone.
_FIRST = (torch.ops.aten._native_batch_norm_legit_no_training.default,)


def fused(graph: Graph) -> Network:
    """The units of a graph, folded as far as the values between are read once."""
    units: list[Unit] = []
    alias: dict[str, str] = {}
    for call in _first_results(graph.calls):
        op = recognise(call, graph)
        if isinstance(op, Other):
            op = Other(call.renamed(alias))
        reads = tuple(alias.get(name, name) for name in _values(call, op, graph))
        if isinstance(op, Same):
            alias[call.output] = reads[0]
            continue
        units.append(Unit(call.layer or call.name, op, reads, call.output))
    network = Network(graph, tuple(units), alias)
    return replace(network, units=tuple(_fold(list(units), Counter(network.results), graph)))


def _values(call: Call, op: Op, graph: Graph) -> tuple[str, ...]:
    """What the unit reads that is no constant; an `Other` keeps all its reads."""
    if isinstance(op, Other):
        known = {*graph.constants, *graph.lifted, *(made.output for made in graph.derived)}
        return tuple(dict.fromkeys(name for name in op.call.reads if name not in known))
    return call.reads[: 2 if isinstance(op, Add) else 1]


def _first_results(calls: tuple[Call, ...]) -> list[Call]:
    """The calls, those of `_FIRST` under the name of their first result."""
    several = {call.output for call in calls if call.target in _FIRST}
    found: dict[str, dict[int, str]] = {name: {} for name in several}
    for call in calls:
        if call.target is operator.getitem and call.reads[0] in several:
            found[call.reads[0]][call.args[1]] = call.output
    single = {name: items[0] for name, items in found.items() if set(items) == {0}}
    dropped = set(single.values())
    return [
        replace(call, output=single.get(call.output, call.output))
        for call in calls
        if call.output not in dropped
    ]


def _fold(units: list[Unit], results: Counter[str], graph: Graph) -> list[Unit]:
    """Walk in order; each unit joins the one before it where it can."""
    uses = results + Counter(name for unit in units for name in unit.inputs)
    made: dict[str, Unit] = {}  # in order of insertion: the units so far, by output
    for unit in units:
        sources = [made.get(name) for name in unit.inputs]
        joined = None
        for place, source in enumerate(sources):
            alone = source is not None and uses[source.output] == 1
            if joined is None and source is not None and alone:
                joined = _joined(source, unit, place, graph)
                if joined is not None:
                    del made[source.output]
        made[unit.output] = joined or unit
    return list(made.values())


def _joined(source: Unit, unit: Unit, place: int, graph: Graph) -> Unit | None:
    """One unit in the place of a unit and the only one that reads it; None where it cannot be."""
    before, after = source.op, unit.op
    op: Op | None = None
    inputs = source.inputs
    if isinstance(after, Affine) and after.norm is None and not isinstance(before, Other):
        op = _with_relu(before)
    elif isinstance(before, Conv) and not before.relu and not before.residual:
        if isinstance(after, Affine) and after.norm is not None and _norm_fits(source, graph):
            op = replace(before, norms=(*before.norms, after.norm), relu=after.relu)
        elif isinstance(after, Add):
            other = unit.inputs[1 - place]
            op = replace(before, residual=True, relu=after.relu)
            inputs = (*source.inputs, other)
    return None if op is None else Unit(source.name, op, inputs, unit.output)


def _with_relu(op: Op) -> Op | None:
    return replace(op, relu=True) if isinstance(op, (Conv, Add, Affine)) else None


def _norm_fits(source: Unit, graph: Graph) -> bool:
    """Whether its channels are the weight's outputs: not so after a linear layer on tokens."""
    assert isinstance(source.op, Conv)
    shape = graph.shapes.get(source.output)
    return shape is not None and (not source.op.linear or len(shape.rest) == 1)
