"""Sparse convolutions and linear layers of packed activations, under autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..kernels import sparse_conv
from .buffers import Buffers
from .layers import Layer, Planned, gather, scatter


class Consumers:
    """What becomes of an output. Behind batch norm's own mean, a bias has no gradient."""

    def __init__(self) -> None:
        self.normed = False
        self.others = False


class Job(NamedTuple):
    """What a convolution runs with, besides tensors."""

    layer: Layer
    planned: Planned
    batch: int
    buffers: Buffers
    consumers: Consumers


def convolve(images: Tensor, bias: Tensor | None, job: Job) -> Tensor:
    """The convolution of packed images, packed as the plan's target."""
    return _Convolution.apply(images, job.layer.weight, bias, job)  # pyright: ignore


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, job: Job) -> Tensor:
        plan = job.planned.plan
        values = gather(weight, job.planned)
        out = job.buffers.framed(plan.target, job.batch)
        sparse_conv.forward(plan, images, values, bias=bias, out=out)
        ctx.job = job
        ctx.save_for_backward(images, values, weight)  # the weight: autograd sees its changes
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        job: Job = ctx.job
        images, values, weight = ctx.saved_tensors
        plan, (wants_images, wants_weight, wants_bias, _) = job.planned.plan, ctx.needs_input_grad
        grad = grad.contiguous()
        found: list[Tensor | None] = [None, None, None, None]
        if wants_images:
            found[0] = job.buffers.framed(plan.source, job.batch)
            sparse_conv.input_grad(plan, grad, values, found[0])
        if wants_weight:
            entries = sparse_conv.weight_grad(plan, images, grad)
            found[1] = scatter(weight, job.planned, entries)
        if wants_bias:
            found[2] = _bias_grad(grad, job)
        return tuple(found)


def _bias_grad(grad: Tensor, job: Job) -> Tensor:
    if job.consumers.normed and not job.consumers.others:
        return grad.new_zeros(grad.shape[1])  # the norm takes it away again: exactly zero
    return grad.sum((0, 2, 3, 4))
