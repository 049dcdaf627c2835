"""HyperSparse, L1 and L2: penalties on all prunable weights, with closed-form gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import (
    Any,
    NoReturn,
    ParamSpec,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    overload,
    runtime_checkable,
)

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import masks, sharded
from .kernels import regularizer as kernel

P = ParamSpec("P")
R = TypeVar("R")

Weights: TypeAlias = Mapping[str, Tensor] | Sequence[Tensor]
"""The prunable weights, ranked together; a tensor that two layers share is given once."""

Grads: TypeAlias = Mapping[str, Tensor | None] | Sequence[Tensor | None]
"""One gradient a weight; None for a weight that is ranked but not moved."""


@runtime_checkable
class Regularizer(Protocol):
    """A penalty on the weights, usable in either of the two published ways.

    "Method 1" adds `strength * loss(weights)` to the training loss; "method 2" adds
    `strength * grad(weights)` to the gradients after `backward()`. Both move the weights alike.
    """

    def loss(self, weights: Weights) -> Tensor:
        """A 0-d tensor whose gradient is `grad(weights)`."""
        ...

    @overload
    def grad(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
    @overload
    def grad(self, weights: Sequence[Tensor]) -> list[Tensor]: ...
    def grad(self, weights: Weights) -> dict[str, Tensor] | list[Tensor]:
        """The closed-form gradient, a tensor for each weight."""
        ...

    def add_grad_(self, weights: Weights, grads: Grads, scale: float | Tensor) -> None:
        """Add `scale` times the closed-form gradient to `grads`, in place."""
        ...


@dataclass(frozen=True)
class _Measured:
    """What one pass over all weights found, and the gradient that follows from it.

    Attributes:
        total: not finite exactly where a weight is not.
        value: the penalty.
        add_: adds a multiple of the gradient in place.
        gradient: makes new tensors with the gradient; None is `add_` to zeros.
    """

    total: kernel.Scalar
    value: kernel.Scalar
    add_: Callable[[Sequence[Tensor], kernel.Grads, kernel.Scalar], None]
    gradient: Callable[[Sequence[Tensor]], list[Tensor]] | None = None


class _ClosedForm(ABC):
    """Checks, structure and autograd around a measurement and an in-place closed form."""

    def loss(self, weights: Weights) -> Tensor:
        """The penalty as a term of the training loss ("method 1").

        Args:
            weights: name -> tensor or a sequence of tensors, ranked together; float32, float64,
                bfloat16 or float16 of any shapes and strides, on one device.

        Returns:
            A 0-d tensor, float64 if any weight is, else float32. `backward()` gives each weight
            the closed-form gradient; there is no second derivative.

        Raises:
            ValueError: no weights, or weights of two devices.
            TypeError: a weight is not a dense floating-point tensor.
            FloatingPointError: a weight on CPU is NaN or infinite (elsewhere NaN is passed on, so
                that nothing waits for the device).
        """
        return _outside_graphs(_loss)(self, weights)

    @overload
    def grad(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]: ...
    @overload
    def grad(self, weights: Sequence[Tensor]) -> list[Tensor]: ...
    def grad(self, weights: Weights) -> dict[str, Tensor] | list[Tensor]:
        """The closed-form gradient ("method 2"), to be added to the gradients after `backward()`.

        Args:
            weights: as for `loss`.

        Returns:
            A tensor of the shape, dtype, device and memory format of each weight: a dict for a
            mapping, a list for a sequence.

        Raises:
            ValueError, TypeError, FloatingPointError: as for `loss`.
        """
        grads = _outside_graphs(_grad)(self, weights)
        return dict(zip(weights, grads, strict=True)) if isinstance(weights, Mapping) else grads

    def add_grad_(self, weights: Weights, grads: Grads, scale: float | Tensor) -> None:
        """Add `scale` times the closed-form gradient to `grads`, in place: the fast path.

        Args:
            weights: as for `loss`.
            grads: the same structure; None for a weight that is ranked but not moved.
            scale: the strength; a 0-d tensor on the weights' device is not read back.

        Raises:
            ValueError: names, number, shape or device of `grads` differ from the weights'; also
                as for `loss`.
            TypeError, FloatingPointError: as for `loss`; `grads` are then unchanged.
        """
        _outside_graphs(_add_grad_)(self, weights, grads, scale)

    @abstractmethod
    def _measure(self, weights: Sequence[Tensor]) -> _Measured:
        """One pass over all weights, which are checked, without a graph (`no_grad`)."""


@dataclass(frozen=True)
class HyperSparse(_ClosedForm):
    """Push the weights below the pruning border to zero and leave those above it alone.

    With S = sum |w|, A = sum tanh(s|w|), the border |w|_(k) of 0-based rank k = floor(sparsity * n)
    among all n weights and s = 0.6585 / border, the gradient is
    sign(w) * s * sech^2(s|w|) * S / A: steepest next to zero, two thirds of that at the border.
    It does not change when all weights are scaled by one factor.

    The value of `loss` is 0, as published (up to rounding there): it only carries a gradient, so
    there is no use in logging it or in differentiating it numerically.

    A border of 0 (more zeros than the sparsity asks for) gives a zero gradient. The gradient next
    to zero is unbounded as the weights concentrate on few places.

    Args:
        sparsity: fraction of weights to be pruned later, 0 <= sparsity < 1.

    Raises:
        ValueError: sparsity not in [0, 1).

    Source: Glandorf et al. 2023, HyperSparse Neural Networks, arXiv 2308.07163, and its code
        (loss/HyperSparse.py). Deviates: k in decimal arithmetic (0.29 * 100 is 29), an order
        statistic instead of a sort, a defined border of 0.
    """

    sparsity: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "sparsity", masks.check_sparsity(self.sparsity))

    def _measure(self, weights: Sequence[Tensor]) -> _Measured:
        n = sum(w.numel() for w in weights)
        rank = n - masks.kept(n, self.sparsity)
        if sharded.any_sharded(weights):
            border = sharded.kth_smallest([weight.abs() for weight in weights], rank)
            slope = kernel.hypersparse_slope(_rows(weights), border, _adder(weights))
        else:
            slope = kernel.hypersparse(weights, rank)
        zero = slope.total - slope.total  # NaN where the weights are not finite
        add_ = partial(kernel.add_hypersparse_, slope=slope)
        return _Measured(slope.total, zero, add_, partial(kernel.hypersparse_gradient, slope=slope))


@dataclass(frozen=True)
class L1(_ClosedForm):
    """Sum of |w| over all weights; gradient sign(w), 0 at 0."""

    def _measure(self, weights: Sequence[Tensor]) -> _Measured:
        (total,) = _adder(weights)([kernel.sum_magnitudes(_rows(weights))])
        return _Measured(total, total, kernel.add_sign_)


@dataclass(frozen=True)
class L2(_ClosedForm):
    """Sum of w^2 over all weights, without a factor 1/2; gradient 2w."""

    def _measure(self, weights: Sequence[Tensor]) -> _Measured:
        (total,) = _adder(weights)([kernel.sum_squares(_rows(weights))])
        return _Measured(total, total, kernel.add_double_)


def _loss(regularizer: _ClosedForm, weights: Weights) -> Tensor:
    tensors = _listed(weights)
    with torch.no_grad():
        measured = _measure(regularizer, weights, tensors)
    dtype = kernel.compute_dtype([w.dtype for w in tensors])
    rows = [w.to_local() if sharded.is_sharded(w) else w for w in tensors]  # differentiable
    return cast(Tensor, _Loss.apply(measured, dtype, *rows))


def _grad(regularizer: _ClosedForm, weights: Weights) -> list[Tensor]:
    tensors = _listed(weights)
    with torch.no_grad():  # not a detached copy of each: half a microsecond, a thousand times
        measured = _measure(regularizer, weights, tensors)
        rows = _rows(tensors)
        if measured.gradient is not None:
            grads = measured.gradient(rows)
        else:
            grads = kernel.zeros_like(rows)
            measured.add_(rows, grads, 1.0)
        if not sharded.any_sharded(tensors):
            return grads
        values = [w.detach() for w in tensors]
        return [sharded.wrap(grad, value) for grad, value in zip(grads, values, strict=True)]


def _add_grad_(
    regularizer: _ClosedForm, weights: Weights, grads: Grads, scale: float | Tensor
) -> None:
    tensors = _listed(weights)
    targets = _matched(tensors, weights, grads)
    with torch.no_grad():
        own = targets
        if sharded.any_sharded(tensors):
            own = [None if target is None else sharded.local(target) for target in targets]
        _measure(regularizer, weights, tensors).add_(_rows(tensors), own, scale)


def _add_measured_(
    measured: _Measured, weights: Sequence[Tensor], grads: kernel.Grads, scale: Tensor
) -> None:
    measured.add_(weights, grads, scale)


def _outside_graphs(function: Callable[P, R]) -> Callable[P, R]:
    """The function itself, or, while torch.compile traces the caller, one that it does not enter.

    Not a decorator: torch.compiler.disable imports the compiler, which takes a second.
    """
    if not torch.compiler.is_compiling():
        return function
    return cast("Callable[P, R]", torch.compiler.disable(function))


class _Loss(torch.autograd.Function):
    """The penalty without a graph over the weights: only two numbers wait for `backward`."""

    @staticmethod
    def forward(ctx: Any, measured: _Measured, dtype: torch.dtype, *weights: Tensor) -> Tensor:
        ctx.measured = measured
        ctx.save_for_backward(*weights)
        return torch.as_tensor(measured.value, dtype=dtype, device=weights[0].device)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad_output: Tensor
    ) -> tuple[Tensor | None, ...]:
        weights: tuple[Tensor, ...] = ctx.saved_tensors
        wanted = ctx.needs_input_grad[2:]
        grads = [
            torch.zeros_like(w) if want else None for w, want in zip(weights, wanted, strict=True)
        ]
        values = [w.detach() for w in weights]
        _outside_graphs(_add_measured_)(ctx.measured, values, grads, grad_output)
        return None, None, *grads


def _measure(regularizer: _ClosedForm, weights: Weights, tensors: Sequence[Tensor]) -> _Measured:
    measured = regularizer._measure(tensors)
    if isinstance(measured.total, float) and not math.isfinite(measured.total):
        for name, tensor in zip(_names(weights), tensors, strict=True):
            if not _is_finite(tensor):
                raise FloatingPointError(
                    f"weights[{name}] holds NaN or infinite values; lower the learning rate or the "
                    "regulariser's strength, or go back to a checkpoint before this step."
                )
    return measured


def _rows(weights: Sequence[Tensor]) -> list[Tensor]:
    """This rank's rows of sharded weights; plain ones as they are."""
    if not sharded.any_sharded(weights):
        return list(weights)
    return [sharded.local(weight) for weight in weights]


def _adder(weights: Sequence[Tensor]) -> kernel.Reduce:
    """What makes sums over rows to sums over the weights: one message, none for plain weights."""
    if not sharded.any_sharded(weights):
        return tuple

    def add(parts: Sequence[kernel.Scalar]) -> list[kernel.Scalar]:
        own = [p if isinstance(p, Tensor) else torch.tensor(p, dtype=torch.float64) for p in parts]
        added = sharded.add_up(own, weights[0])
        return [
            total if isinstance(part, Tensor) else float(total)
            for part, total in zip(parts, added, strict=True)
        ]

    return add


def _is_finite(weight: Tensor) -> bool:
    """Whether all entries are, on all ranks."""
    (bad,) = sharded.add_up([(~torch.isfinite(sharded.local(weight))).sum()], weight)
    return int(bad) == 0


def _names(weights: Weights) -> list[str]:
    """What messages call each weight."""
    if isinstance(weights, Mapping):
        return [repr(name) for name in weights]
    return [str(place) for place in range(len(weights))]


def _listed(weights: Weights) -> list[Tensor]:
    """The tensors, checked."""
    if isinstance(weights, Tensor):
        raise TypeError(
            "weights must be a sequence or mapping of tensors, got one tensor; pass [w]."
        )
    tensors = list(weights.values() if isinstance(weights, Mapping) else weights)
    for i, tensor in enumerate(tensors):
        if not _is_usable(tensor, tensors[0]):
            _refuse(_names(weights)[i], tensor, tensors[0])
    if not any(w.numel() for w in tensors):
        raise ValueError(
            f"weights must hold at least one value, got {len(tensors)} tensors with none; pass the "
            "prunable weights, for example sparsetrain.select(model)."
        )
    return tensors


def _is_usable(weight: Tensor, first: Tensor) -> bool:
    return (
        isinstance(weight, Tensor)
        and weight.is_floating_point()
        and weight.layout is torch.strided
        and (weight is first or weight.device == first.device)
    )


def _refuse(name: str, weight: Tensor, first: Tensor) -> NoReturn:
    if not isinstance(weight, Tensor):
        raise TypeError(f"weights[{name}] must be a tensor, got {type(weight).__name__}.")
    if not weight.is_floating_point() or weight.layout is not torch.strided:
        raise TypeError(
            f"weights[{name}] must be a dense floating-point tensor, got {weight.dtype} with "
            f"layout {weight.layout}; leave it out or convert it with .float()."
        )
    raise ValueError(
        f"weights must lie on one device, got {first.device} and {weight.device} for "
        f"weights[{name}]; move them to one device first."
    )


def _matched(tensors: Sequence[Tensor], weights: Weights, grads: Grads) -> list[Tensor | None]:
    """The gradients in the order of the weights, checked."""
    if isinstance(weights, Mapping) != isinstance(grads, Mapping):
        raise ValueError("grads must be a mapping where weights is one, and a sequence where not.")
    if isinstance(weights, Mapping) and isinstance(grads, Mapping):
        if missing := [name for name in weights if name not in grads]:
            raise ValueError(f"grads has no {missing[0]!r}; give every weight a gradient or None.")
        listed = [grads[name] for name in weights]
    else:
        listed = list(cast(Sequence[Tensor | None], grads))
    if len(listed) != len(tensors) or len(grads) != len(tensors):
        raise ValueError(
            f"grads must have one entry for each of the {len(tensors)} weights, got {len(grads)}; "
            "use None for a weight that is not moved."
        )
    for i, (weight, grad) in enumerate(zip(tensors, listed, strict=True)):
        if grad is not None and (grad.shape != weight.shape or grad.device != weight.device):
            raise ValueError(
                f"grads[{_names(weights)[i]}] must have the weight's shape {tuple(weight.shape)} "
                f"and device {weight.device}, got {tuple(grad.shape)} on {grad.device}."
            )
    return listed
