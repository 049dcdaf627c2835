"""The vocabulary every other module speaks: tensors by name, schedules, views, methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

Tensors: TypeAlias = Mapping[str, Tensor]
"""Parameter name -> tensor. Order is the model's order and decides ties."""

Masks: TypeAlias = dict[str, Tensor]
"""Parameter name -> bool tensor of the parameter's shape, True where the weight is active."""

Memory: TypeAlias = Mapping[str, Any]
"""What a method remembers between updates: tensors, numbers, strings, nested mappings of them."""

Shapes: TypeAlias = Mapping[str, Sequence[int]]
"""Parameter name -> shape."""

Schedule: TypeAlias = Callable[[int], float]
"""Optimizer step -> value."""

Distribution: TypeAlias = Callable[[Shapes, float], dict[str, int]]
"""(shapes, target sparsity) -> kept weights of each layer, exact in total."""


@dataclass(frozen=True)
class View:
    """What a method may look at when it decides; nothing here may be changed in place.

    Attributes:
        step: optimizer steps taken so far.
        weights: name -> weight, detached.
        grads: name -> dense gradient of the loss, as the last backward left it and unscaled,
            without the regulariser's part; a name is missing where the parameter had none.
        momenta: name -> first-moment buffer of the optimizer (SGD's momentum buffer, Adam's
            `exp_avg`); a name is missing where the optimizer keeps none.
        generator: CPU generator; the same draws on every rank.
    """

    step: int
    weights: Tensors
    grads: Tensors
    momenta: Tensors
    generator: torch.Generator


Criterion: TypeAlias = Callable[[View], Tensors]
"""View -> name -> score of the weight's shape; the larger, the more worth keeping."""


@runtime_checkable
class Method(Protocol):
    """An in-loop method: a frozen value without state.

    A method that must see every step also has `observe(view, memory) -> memory`, which is called
    before masking, with dense gradients and optimizer momenta (class `Observer`).

    A method with `skip_weight_step = True` replaces the weight step by its update: at such a step
    no parameter of the optimizer moves and no state changes.
    """

    def init(self, view: View) -> tuple[Masks, Memory]:
        """Masks and memory to start from."""
        ...

    def when(self, step: int) -> bool:
        """Whether the masks are updated after optimizer step `step` (1 is the first)."""
        ...

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """New masks and memory; changes neither argument."""
        ...


@runtime_checkable
class Observer(Method, Protocol):
    """A method that looks at every step, as momentum growth must.

    It costs a copy of the gradients a step. A class whose options decide whether it is needed also
    has `observes: bool`; without that, `observe` is always called.
    """

    def observe(self, view: View, memory: Memory) -> Memory:
        """New memory, from the view before masking."""
        ...


def observes(method: Method) -> bool:
    """Whether a method looks at the gradient of every weight at each step."""
    return isinstance(method, Observer) and bool(getattr(method, "observes", True))


@runtime_checkable
class FreshStart(Method, Protocol):
    """A method of whose first active weights some start at 0: a start that prunes and regrows."""

    def fresh(self, view: View, masks: Masks) -> Masks:
        """name -> bool of `init`'s masks, True where a weight starts at 0; empty for none."""
        ...
