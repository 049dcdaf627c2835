"""A captured network as plain values: calls of torch operators between named tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import BuiltinFunctionType, MappingProxyType
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def _as_strided(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return value.contiguous().as_strided(*args, **kwargs)


# A view holds for the strides of the traced values alone; others may come.
_BY_COPY: Mapping[Any, Any] = MappingProxyType(
    {
        aten.view.default: aten.reshape.default,
        aten._unsafe_view.default: aten.reshape.default,
        aten.as_strided.default: _as_strided,
    }
)


@dataclass(frozen=True)
class Ref:
    """The value of this name, in the place of an argument."""

    name: str


@dataclass(frozen=True)
class Shape:
    """What is known of a tensor before the network runs.

    Attributes:
        rows: its first dimension, as an expression of the batch; equal texts, equal sizes.
        rest: the other dimensions.
        dtype: of its entries.
    """

    rows: str
    rest: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True, eq=False)
class Call:
    """One operator, run once.

    Attributes:
        output: name of what it gives.
        target: the operator.
        args: its arguments, with a `Ref` for each value, also inside lists.
        kwargs: likewise by name.
        layer: dotted name of the module that called it.
    """

    output: str
    target: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    layer: str

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values it reads, each time it does."""
        return tuple(refs((self.args, tuple(self.kwargs.values()))))

    @property
    def name(self) -> str:
        """The operator's own name, such as "silu"."""
        if isinstance(self.target, BuiltinFunctionType):
            return self.target.__name__
        return str(self.target).removeprefix("aten.").split(".")[0]

    def renamed(self, names: Mapping[str, str]) -> Call:
        """The same, reading other values in the place of some."""
        values = {name: Ref(names.get(name, name)) for name in self.reads}
        kwargs = {name: filled(value, values) for name, value in self.kwargs.items()}
        return replace(self, args=filled(self.args, values), kwargs=kwargs)

    def argument(self, place: int, name: str, default: Any) -> Any:
        """An argument given by place or by name."""
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


@dataclass(frozen=True, eq=False)
class Graph:
    """A network in evaluation mode.

    Attributes:
        inputs: names of the flat inputs in order; None where the example had no tensor.
        examples: shapes of the flat inputs, the whole ones; None likewise.
        fixed: values of the flat inputs that are no tensors.
        constants: name -> the parameter's or buffer's name in the model.
        lifted: name -> tensors and other objects that the model holds without a name.
        derived: calls that depend on constants alone, in order.
        calls: all others, in order.
        outputs: flat results; a `Ref` or a plain value.
        shapes: name -> shape, where there is one tensor whose other dimensions are fixed.
        in_spec: of the inputs (args, kwargs), for `torch.utils._pytree`.
        out_spec: of the outputs.
        batch: whether the first dimension may change from call to call.
        barred: batches of none and one image where the model computes otherwise.
    """

    inputs: tuple[str | None, ...]
    examples: tuple[tuple[int, ...] | None, ...]
    fixed: tuple[Any, ...]
    constants: Mapping[str, str]
    lifted: Mapping[str, Any]
    derived: tuple[Call, ...]
    calls: tuple[Call, ...]
    outputs: tuple[Any, ...]
    shapes: Mapping[str, Shape]
    in_spec: Any
    out_spec: Any
    batch: bool
    barred: frozenset[int] = frozenset()


def refs(value: Any) -> Iterator[str]:
    """Names of the values in an argument, in lists and tuples too."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from refs(part)


def filled(value: Any, values: Mapping[str, Any]) -> Any:
    """An argument with its values in the place of their names."""
    if isinstance(value, Ref):
        return values[value.name]
    if isinstance(value, (list, tuple)):
        return type(value)([filled(part, values) for part in value])
    return value


def run(call: Call, values: Mapping[str, Any]) -> Any:
    """What the operator gives for these values."""
    args = [filled(value, values) for value in call.args]
    kwargs = {name: filled(value, values) for name, value in call.kwargs.items()}
    return _BY_COPY.get(call.target, call.target)(*args, **kwargs)


def is_tensor(value: object) -> bool:
    """Whether a flat input is a tensor."""
    return isinstance(value, Tensor)
