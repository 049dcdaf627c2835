"""Which results of a network share memory, so that they are copied before they are given out."""

from __future__ import annotations

import operator
from collections.abc import Iterable

import torch

from .graph import Call
from .units import Flatten, Network, Other

aten = torch.ops.aten
# Operators that may give back what they read without saying so in their schema.
_MAY_GIVE_BACK = frozenset(
    {
        aten.atleast_1d.default,
        aten.atleast_2d.default,
        aten.atleast_3d.default,
        aten.broadcast_tensors.default,
        aten.dropout.default,
        aten.einsum.default,
        aten.meshgrid.default,
        aten.meshgrid.indexing,
        aten.sum_to_size.default,
        aten.type_as.default,
    }
)


def shared(network: Network, results: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Names of the results that lie in an input, a constant or a result before them.

    An input that the model gives back as it is counts as none of them: the model does the same.

    Args:
        results: name of each, and of the value that has its entries.
    """
    roots = _roots(network)
    graph = network.graph
    inputs = {name for name in graph.inputs if name is not None}
    taken = {*inputs, *graph.constants, *graph.lifted, *(call.output for call in graph.derived)}
    found: list[str] = []
    for name, value in dict(results).items():
        if name in inputs:
            continue
        lies = roots.get(value, {value})
        if lies & taken:
            found.append(name)
        taken |= lies
    return tuple(found)


def _roots(network: Network) -> dict[str, set[str]]:
    """Each value that a unit makes -> the values in whose memory it may lie."""
    roots: dict[str, set[str]] = {}
    for unit in network.units:
        op = unit.op
        views = isinstance(op, Flatten) or (isinstance(op, Other) and _may_view(op.call))
        reads = op.call.reads if isinstance(op, Other) else unit.inputs
        whole = set().union(*(roots.get(name, {name}) for name in reads))
        roots[unit.output] = whole if views else {unit.output}
    return roots


def _may_view(call: Call) -> bool:
    schema = getattr(call.target, "_schema", None)
    if schema is None:
        return call.target is operator.getitem
    aliases = any(result.alias_info is not None for result in schema.returns)
    return aliases or call.target in _MAY_GIVE_BACK
