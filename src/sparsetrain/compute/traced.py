"""Masked layers under `torch.compile` and `torch.export`: an operator each, of plain tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F

from . import ops
from .choice import Choices
from .layers import Layer


class Traced:
    """The masked layers of a model, where functions of them are traced.

    Args:
        layers: by `id` of their weights.
        choices: which of them run sparse; chosen while tracing, for the graph as long as it lives.
    """

    def __init__(self, layers: Mapping[int, Layer], choices: Choices) -> None:
        self._layers, self._choices = layers, choices
        self._named = {layer.name: layer for layer in layers.values()}

    def run(self, func: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
        """F.conv2d or F.linear, as an operator of the kept weights where that pays."""
        found = (self._conv2d if func is F.conv2d else self._linear)(*args, **kwargs)
        return func(*args, **kwargs) if found is NotImplemented else found

    def _conv2d(
        self,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] | str = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
    ) -> Any:
        layer, steps = self._layer(weight), _pair(stride)
        plain = groups == 1 and _pair(dilation) == (1, 1) and steps[0] == steps[1]
        if layer is None or not plain or isinstance(padding, str) or not _fits(input, 4):
            return NotImplemented
        around, size = _pair(padding), (int(input.shape[2]), int(input.shape[3]))
        if self.sparse(layer.name, *size, steps[0], *around, not input.requires_grad):
            return ops.conv2d(input, weight, layer.plans.mask, bias, steps[0], list(around))
        return NotImplemented

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
        layer = self._layer(weight)
        if layer is None or not _fits(input, 2):
            return NotImplemented
        if self.sparse(layer.name, 1, 1, 1, 0, 0, not input.requires_grad):
            return ops.linear(input, weight, layer.plans.mask, bias)
        return NotImplemented

    def sparse(
        self, name: str, height: int, width: int, stride: int, above: int, beside: int, first: bool
    ) -> bool:
        """What is chosen for a layer; in a thread of its own, which nobody traces."""
        layer = self._named[name]
        use = (layer, height, width, stride, (above, beside), first)
        with ThreadPoolExecutor(1) as apart:
            return apart.submit(self._choices.alone, *use).result()

    # As `torch.compiler.assume_constant_result` does, which imports Dynamo: seconds, here for all.
    sparse._dynamo_marked_constant = True  # pyright: ignore[reportFunctionMemberAccess]

    def _layer(self, weight: Tensor) -> Layer | None:
        """The layer of a weight, or of the stand-in that `torch.export` computes with."""
        if isinstance(weight, FakeTensor):
            made = weight.fake_mode.from_tensor
            found = (layer for layer in self._named.values() if made(layer.weight) is weight)
            return next(found, None)
        return self._layers.get(id(weight))


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    both = (size, size) if isinstance(size, int) else tuple(size) * (2 // len(size))
    return both[0], both[1]


def _fits(input: Tensor, dim: int) -> bool:
    return input.dtype is torch.float32 and input.device.type == "cpu" and input.dim() == dim
