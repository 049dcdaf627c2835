"""What compiling finds out once about a model and keeps when its weights change."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from .capture import capture
from .fuse import fused
from .graph import Graph
from .packable import kinds as kinds_of
from .packable import packable
from .units import Conv, Kind, Network


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model's structure, without its weights.

    Attributes:
        network: its units.
        kinds: of all values.
        able: outputs of the units that can be packed.
        signature: of the model's forward.
        given: names of the parameters of forward that the example gives.
        example: flat inputs, tensors copied.
        parameters: names of the model's own.
    """

    network: Network
    kinds: Mapping[str, Kind]
    able: frozenset[str]
    signature: inspect.Signature
    given: frozenset[str]
    example: tuple[Any, ...]
    parameters: frozenset[str]

    @property
    def graph(self) -> Graph:
        """As it was captured."""
        return self.network.graph

    def rows(self) -> int:
        """The example's batch."""
        return next(v.shape[0] for v in self.example if isinstance(v, Tensor) and v.dim())

    def inputs(self, rows: int) -> dict[str, Any]:
        """The example with so many rows, by name; itself where the batch is fixed."""
        given = {
            n: v for n, v in zip(self.graph.inputs, self.example, strict=True) if n is not None
        }
        if not self.graph.batch or rows == self.rows():
            return given
        many = torch.arange(rows) % self.rows()
        return {n: v[many] if is_batched(self.graph, n) else v for n, v in given.items()}


def prepare(model: nn.Module, example_input: object) -> Prepared:
    """Capture a model and see what its units are.

    Args:
        example_input: a tensor, a tuple of arguments or a mapping of them by name.

    Raises:
        ValueError: arguments that forward does not take, or see `capture`.
    """
    signature = inspect.signature(model.forward)
    arguments = bound(signature, *_arguments(example_input))
    args, kwargs = arguments.args, arguments.kwargs
    graph = capture(model, args, kwargs)
    network = fused(graph)
    found = kinds_of(network)
    able = frozenset(unit.output for unit in network.units if packable(unit, graph, found))
    flat = pytree.tree_leaves((args, kwargs))
    example = tuple(v.detach().clone() if isinstance(v, Tensor) else v for v in flat)
    given = frozenset(arguments.arguments)
    return Prepared(
        network, found, able, signature, given, example, frozenset(parameter_names(model))
    )


def parameter_names(model: nn.Module) -> list[str]:
    """Of all parameters, tied ones under each of their names."""
    return [name for name, _ in model.named_parameters(remove_duplicate=False)]


def bound(
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    given: frozenset[str] | None = None,
) -> inspect.BoundArguments:
    """Arguments in the signature's own form, however they were given.

    Args:
        given: names of the parameters that shall be given: defaults are filled in for those that
            are not, and left out of the others. None takes the arguments as they are.

    Raises:
        ValueError: arguments that do not fit it.
    """
    try:
        found = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ValueError(
            f"the model takes {signature}, but got other arguments: {error}. Call the compiled "
            "network as the model."
        ) from error
    if given is not None:
        defaults = {name: p.default for name, p in signature.parameters.items()}
        kept = {n: v for n, v in found.arguments.items() if n in given or not same(v, defaults[n])}
        absent = {n: defaults[n] for n in given if defaults[n] is not inspect.Parameter.empty}
        found = inspect.BoundArguments(signature, OrderedDict(absent | kept))
    return found


def same(value: object, other: object) -> bool:
    """Whether two arguments are equal and of one type; tensors are if they are one."""
    if value is other or isinstance(value, Tensor):
        return value is other
    return type(value) is type(other) and value == other


def is_batched(graph: Graph, name: str) -> bool:
    """Whether the first dimension of an input may change."""
    shape = graph.shapes.get(name)
    return shape is not None and not shape.rows.isdigit()


def kept_counts(network: Network, values: Mapping[str, Any]) -> dict[str, int]:
    """Weights that are not zero, of each convolution and linear layer, by output."""
    return {
        unit.output: int(torch.count_nonzero(values[unit.op.weight]))
        for unit in network.units
        if isinstance(unit.op, Conv)
    }


def _arguments(example: object) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(example, tuple):
        return example, {}
    if isinstance(example, Mapping):
        return (), {str(name): value for name, value in example.items()}
    if isinstance(example, Tensor):
        return (example,), {}
    raise ValueError(
        "example_input must be a tensor, a tuple of the model's arguments or a dict of them by "
        f"name, got {type(example).__name__}."
    )
