"""Pooling, packing and unpacking of activations, under autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..kernels import packed, packed_pool
from ..kernels.packed import Layout
from ..kernels.packed_pool import Pooling
from .buffers import Buffers


def pool(images: Tensor, pooling: Pooling, buffers: Buffers) -> Tensor:
    """The largest value or the mean of each window, packed as `pooling.target`."""
    return _Pool.apply(images, pooling, buffers)  # pyright: ignore


def pack(images: Tensor, layout: Layout, buffers: Buffers) -> Tensor:
    """A float32 batch [images, channels, height, width] in the packed layout."""
    return _Pack.apply(images, layout, buffers)  # pyright: ignore


def unpack(images: Tensor, layout: Layout, batch: int, buffers: Buffers) -> Tensor:
    """The batch back as [batch, channels, height, width]."""
    return _Unpack.apply(images, layout, batch, buffers)  # pyright: ignore


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, pooling: Pooling, buffers: Buffers) -> Tensor:
        batch = images.shape[0] * pooling.source.block
        out = buffers.framed(pooling.target, batch)
        packed_pool.pool(pooling, images, out)
        ctx.pooling, ctx.buffers, ctx.batch = pooling, buffers, batch
        ctx.save_for_backward(images if pooling.kind == "max" else None)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        (images,) = ctx.saved_tensors
        out = ctx.buffers.framed(ctx.pooling.source, ctx.batch)
        packed_pool.pool_grad(ctx.pooling, images, grad.contiguous(), out)
        return out, None, None


class _Pack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, layout: Layout, buffers: Buffers) -> Tensor:
        ctx.layout, ctx.batch = layout, images.shape[0]
        return packed.pack(images, layout, buffers.framed(layout, images.shape[0]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        return packed.unpack(grad.contiguous(), ctx.layout, ctx.batch), None, None


class _Unpack(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, layout: Layout, batch: int, buffers: Buffers) -> Tensor:
        ctx.layout, ctx.buffers = layout, buffers
        return packed.unpack(images, layout, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        room = ctx.buffers.framed(ctx.layout, grad.shape[0])
        return packed.pack(grad, ctx.layout, room), None, None, None
