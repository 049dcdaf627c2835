"""A captured graph against the model itself, before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .graph import Graph, filled, refs, run
from .weights import read


def agrees(graph: Graph, model: nn.Module, flat: list[Any]) -> bool:
    """Whether a graph gives the model's own results; also where the model gives none.

    Args:
        model: in evaluation mode.
        flat: inputs.
    """
    args, kwargs = pytree.tree_unflatten(flat, graph.in_spec)
    with torch.random.fork_rng(devices=[]):
        try:
            torch.manual_seed(0)
            wanted = pytree.tree_leaves(model(*args, **kwargs))
        except Exception:  # the model's own affair
            return True
        try:
            torch.manual_seed(0)
            found = _results(graph, read(graph, model, None), flat)
        except Exception:
            return False
    if found is None or len(found) != len(wanted):
        return False
    return all(_close(one, other) for one, other in zip(found, wanted, strict=True))


def _results(graph: Graph, constants: Mapping[str, Any], flat: list[Any]) -> list[Any] | None:
    """The graph's results, call by call; None where a value has not the shape that was traced."""
    given = {n: v for n, v in zip(graph.inputs, flat, strict=True) if n is not None}
    values = dict(constants) | given
    last = {name: call.output for call in graph.calls for name in call.reads}
    last |= dict.fromkeys(refs(graph.outputs), "")
    for call in graph.calls:
        values[call.output] = made = run(call, values)
        shape = graph.shapes.get(call.output)
        if shape is not None and tuple(made.shape[1:]) != shape.rest:
            return None
        for name in set(call.reads):
            if last[name] == call.output:
                del values[name]
    return list(filled(graph.outputs, values))


def _close(found: Any, wanted: Any) -> bool:
    """Equal to rounding, measured by the largest entry: half of the type's digits."""
    if not isinstance(found, Tensor) or not isinstance(wanted, Tensor):
        return type(found) is type(wanted) and bool(found == wanted)
    if found.shape != wanted.shape or found.dtype is not wanted.dtype:
        return False
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return torch.equal(found, wanted)
    largest = wanted.abs().nan_to_num(0.0, 0.0, 0.0).max().item() if wanted.numel() else 0.0
    allowed = torch.finfo(wanted.dtype).eps ** 0.5 * largest
    return torch.allclose(found, wanted, rtol=0.0, atol=allowed, equal_nan=True)
