"""Units run by torch: convolutions folded and channels-last, everything else as it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from .graph import run
from .units import Add, Affine, Conv, Flatten, Norm, Op, Other, Pool, Unit
from .weights import folded

Step: TypeAlias = Callable[..., Any]
"""What a unit does with the values it reads."""


def dense_step(unit: Unit, values: Mapping[str, Any], shape: tuple[int, ...] | None) -> Step:
    """A function of the values that a unit reads.

    Args:
        values: the constants; what the step needs of them is copied.
        shape: of the output without its first dimension, where known.
    """
    op = unit.op
    if isinstance(op, Conv):
        return _linear(op, values) if op.linear else _conv(op, values)
    if isinstance(op, Other):
        return _other(unit, op, values)
    return _plain(op, values, shape or ())


def _conv(op: Conv, values: Mapping[str, Any]) -> Step:
    weight, bias = _owned(*folded(op, values))
    # oneDNN's kernels are fastest on channels-last, and pass the format on.
    weight = weight.contiguous(memory_format=torch.channels_last)
    sizes = (op.stride, op.padding, op.dilation, op.groups)

    def step(images: Tensor, *residual: Tensor) -> Tensor:
        return _finished(F.conv2d(images, weight, bias, *sizes), residual, op.relu)

    return step


def _linear(op: Conv, values: Mapping[str, Any]) -> Step:
    weight, bias = _owned(*folded(op, values))

    def step(vectors: Tensor, *residual: Tensor) -> Tensor:
        return _finished(F.linear(vectors, weight, bias), residual, op.relu)

    return step


def _finished(result: Tensor, residual: tuple[Tensor, ...], relu: bool) -> Tensor:
    """In place: the result is new and nobody else's."""
    if residual:
        result.add_(residual[0])
    return result.relu_() if relu else result


def _plain(op: Op, values: Mapping[str, Any], shape: tuple[int, ...]) -> Step:
    if isinstance(op, Add):
        return (lambda a, b: (a + b).relu_()) if op.relu else torch.add
    if isinstance(op, Flatten):
        return lambda images: images.flatten(1)
    if isinstance(op, Pool):
        return _pool(op, shape)
    assert isinstance(op, Affine)
    if op.norm is None:
        return torch.relu
    return _norm(op.norm, op.relu, values)


def _pool(op: Pool, shape: tuple[int, ...]) -> Step:
    if op.kind == "max":
        return lambda images: F.max_pool2d(images, op.kernel, op.stride, op.padding)

    def step(images: Tensor) -> Tensor:
        if op.kernel == tuple(images.shape[2:]) and op.padding == (0, 0):
            return images.mean((2, 3)).view(images.shape[0], *shape)
        return F.avg_pool2d(
            images, op.kernel, op.stride, op.padding, count_include_pad=op.count_include_pad
        )

    return step


def _norm(norm: Norm, relu: bool, values: Mapping[str, Any]) -> Step:
    names = (norm.mean, norm.variance, norm.weight, norm.bias)
    mean, variance, weight, bias = (None if n is None else values[n].clone() for n in names)

    def step(images: Tensor) -> Tensor:
        result = F.batch_norm(images, mean, variance, weight, bias, False, 0.0, norm.eps)
        return result.relu_() if relu else result

    return step


def _other(unit: Unit, op: Other, values: Mapping[str, Any]) -> Step:
    call, names = op.call, unit.inputs
    held = {name: _copied(values[name]) for name in call.reads if name in values}

    def step(*given: Any) -> Any:
        return run(call, held | dict(zip(names, given, strict=True)))

    return step


def _owned(weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Copies that the model's later training does not reach."""
    return weight.detach().clone(), None if bias is None else bias.detach().clone()


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value
