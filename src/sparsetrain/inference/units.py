"""The units a network is made of: what is folded together and chosen for as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from .graph import Call, Graph, refs

Kind: TypeAlias = Literal["first", "last"]
"""Whether channels are the first dimension of an image or the last."""


@dataclass(frozen=True)
class Norm:
    """A batch norm by its running statistics; names of constants, None where it has none."""

    weight: str | None
    bias: str | None
    mean: str
    variance: str
    eps: float


@dataclass(frozen=True)
class Conv:
    """A convolution or a linear layer, then batch norms, plus a residual, then ReLU.

    Attributes:
        weight: name of the constant, [outputs, channels / groups, rows, columns] or
            [outputs, inputs].
        bias: name of the constant [outputs].
        linear: whether it is a linear layer, on the last dimension.
        stride: down and across.
        padding: above and below, left and right.
        dilation: down and across.
        groups: of channels.
        norms: folded into weight and bias, in order.
        residual: whether the second value read is added.
        relu: whether negative results become zero.
    """

    weight: str
    bias: str | None
    linear: bool = False
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    norms: tuple[Norm, ...] = ()
    residual: bool = False
    relu: bool = False


@dataclass(frozen=True)
class Pool:
    """The largest or the mean entry of windows; `kernel` in rows and columns, as all pairs."""

    kind: Literal["max", "mean"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    count_include_pad: bool = True


@dataclass(frozen=True)
class Add:
    """The sum of two values of one shape."""

    relu: bool = False


@dataclass(frozen=True)
class Affine:
    """A batch norm that no weight could take, or ReLU alone."""

    norm: Norm | None
    relu: bool = False


@dataclass(frozen=True)
class Flatten:
    """Channels, rows and columns of each image in one dimension."""


@dataclass(frozen=True)
class Same:
    """The same entries under another name, such as dropout in evaluation."""


@dataclass(frozen=True, eq=False)
class Other:
    """Any other operator, run by torch."""

    call: Call


Op: TypeAlias = Conv | Pool | Add | Affine | Flatten | Same | Other


@dataclass(frozen=True, eq=False)
class Unit:
    """One step of a network.

    Attributes:
        name: of the layer.
        op: what it does.
        inputs: values it reads.
        output: the value it makes.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    output: str

    def renamed(self, names: dict[str, str]) -> Unit:
        """The same, reading other values in the place of some."""
        return replace(self, inputs=tuple(names.get(name, name) for name in self.inputs))


@dataclass(frozen=True, eq=False)
class Network:
    """A graph as units.

    Attributes:
        graph: that was captured.
        units: in an order in which they can run.
        alias: name of a value -> the value that has its entries and its shape.
    """

    graph: Graph
    units: tuple[Unit, ...]
    alias: dict[str, str]

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the values that the network gives back."""
        return tuple(self.alias.get(name, name) for name in refs(self.graph.outputs))
