"""Pooling on packed activations over windows that do not overlap: in C++, and a twin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from . import native
from .packed import Layout, inside, pack


@dataclass(frozen=True)
class Pooling:
    """Windows of a fixed size, one beside the other.

    Attributes:
        kind: largest value or mean.
        window: rows and columns; what is left of the map at its lower and right side is not seen.
        source: layout of the input.
        halo: of the output.
    """

    kind: Literal["max", "mean"]
    window: tuple[int, int]
    source: Layout
    halo: int

    @property
    def target(self) -> Layout:
        """Layout of the output."""
        s, (rows, columns) = self.source, self.window
        return Layout(s.channels, s.height // rows, s.width // columns, self.halo, s.block)

    @property
    def covers(self) -> bool:
        """Whether every place of the input is in a window."""
        return self.source.height % self.window[0] == self.source.width % self.window[1] == 0


def pool(pooling: Pooling, images: Tensor, out: Tensor) -> None:
    """Write the outputs.

    Args:
        images: packed as `pooling.source`.
        out: packed as `pooling.target`, its halo zero.
    """
    _check(pooling, images, out)
    if native.takes([images, out], torch.float32):
        addresses = [images.data_ptr(), out.data_ptr(), 0, 0]
        native.run("st_window", [*_sizes(pooling, images), *addresses])
        return
    pack(_twin(pooling, inside(images, pooling.source)), pooling.target, out)


def pool_grad(pooling: Pooling, images: Tensor | None, grad: Tensor, out: Tensor) -> None:
    """Write the gradient of the input; of equal largest values the first gets it, as in PyTorch.

    Args:
        images: the input, packed as `pooling.source`; may be None for the mean.
        grad: of the output, packed as `pooling.target`.
        out: packed as `pooling.source`, its halo zero.

    Raises:
        ValueError: no images for the maximum, or tensors that are not packed as said.
    """
    _check(pooling, out, grad)
    if images is None and pooling.kind == "max":
        raise ValueError("images must be given for the gradient of the largest value.")
    if not pooling.covers:
        out.zero_()
    if native.takes([grad, out], torch.float32):
        there = 0 if images is None else images.data_ptr()
        addresses = [there, 0, grad.data_ptr(), out.data_ptr()]
        native.run("st_window_grad", [*_sizes(pooling, out), *addresses])
        return
    given = inside(out if images is None else images, pooling.source)
    backward = torch.func.vjp(lambda x: _twin(pooling, x), given)[1]
    pack(backward(inside(grad, pooling.target))[0], pooling.source, out)


def _twin(pooling: Pooling, images: Tensor) -> Tensor:
    if pooling.kind == "max":
        return F.max_pool2d(images, pooling.window)
    return F.avg_pool2d(images, pooling.window)


def _sizes(pooling: Pooling, images: Tensor) -> list[int]:
    """`WindowCall` of csrc/api.h as far as the pointers."""
    s = pooling.source
    sizes = [images.shape[0], s.channels, s.block, s.height, s.width, s.halo]
    return [*sizes, *pooling.window, pooling.halo, int(pooling.kind == "max")]


def _check(pooling: Pooling, images: Tensor, out: Tensor) -> None:
    pooling.source.check(images, "images")
    pooling.target.check(out, "out")
    if images.shape[0] != out.shape[0]:
        raise ValueError(f"out must have the input's {images.shape[0]} blocks, got {out.shape[0]}.")
