"""Batch norm of packed activations, with the sum and ReLU behind it, under autograd."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..kernels import packed_norm
from ..kernels.packed_norm import Place, Saved
from .buffers import Buffers


class Statistics(NamedTuple):
    """Mean and variance that are taken off, float64 [channels].

    Attributes:
        entries: of a channel that they were taken from; 0 for those that do not follow the input.
    """

    mean: Tensor
    variance: Tensor
    entries: int


class Running(NamedTuple):
    """Running statistics, and the share of a batch in them; None is none."""

    mean: Tensor | None
    variance: Tensor | None
    momentum: float


class Job(NamedTuple):
    """What a batch norm runs with, besides tensors."""

    place: Place
    statistics: Statistics
    epsilon: float
    buffers: Buffers


@torch.no_grad()
def of_batch(images: Tensor, place: Place, running: Running) -> Statistics:
    """The batch's own statistics; the running ones follow them, in place."""
    count = place.batch * place.source.height * place.source.width
    mean, squares = packed_norm.moments(images.detach(), place.source, place.batch).unbind(1)
    share = running.momentum
    if running.mean is not None:
        running.mean.mul_(1 - share).add_(mean.to(running.mean.dtype), alpha=share)
    if running.variance is not None:
        unbiased = squares / (count - 1)
        running.variance.mul_(1 - share).add_(unbiased.to(running.variance.dtype), alpha=share)
    return Statistics(mean, squares / count, count)


def normalise(
    images: Tensor, affine: tuple[Tensor | None, Tensor | None], residual: Tensor | None, job: Job
) -> Tensor:
    """Batch norm, plus the residual, then ReLU where `job.place` says so.

    Args:
        images: packed as `job.place.source`.
        affine: scale and shift, [channels] each.
        residual: packed as `job.place.target`.
    """
    return _Norm.apply(images, *affine, residual, job)  # pyright: ignore


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        job: Job,
    ) -> Tensor:
        place, statistics = job.place, job.statistics
        scale = (statistics.variance + job.epsilon).rsqrt()
        ctx.inverse, ctx.job = scale, job
        scale = scale if weight is None else scale * weight
        shift = torch.zeros_like(scale) if bias is None else bias
        constants = torch.stack([statistics.mean, scale, shift.double()], 1).float()
        out = job.buffers.framed(place.target, place.batch)
        packed_norm.apply(place, Saved(images, None, constants), residual, out)
        needed = place.relu and residual is not None
        ctx.save_for_backward(images, out if needed else None, constants, weight)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        job: Job = ctx.job
        images, out, constants, _ = ctx.saved_tensors
        place, saved, grad = job.place, Saved(images, out, constants), grad.contiguous()
        residual_grad = None
        if ctx.needs_input_grad[3]:
            relu = place.relu
            residual_grad = job.buffers.framed(place.target, place.batch) if relu else grad
        masked = residual_grad if place.relu else None
        sums = packed_norm.sums(place, saved, grad, masked)
        if masked is not None:  # ReLU is behind it already: no need to look at the output again
            place, saved, grad = place._replace(relu=False), Saved(images, None, constants), masked
        found: list[Tensor | None] = [None, None, None, residual_grad, None]
        if ctx.needs_input_grad[0]:
            found[0] = job.buffers.framed(place.source, place.batch)
            slopes = _slopes(constants, ctx.inverse, sums, job.statistics.entries)
            packed_norm.input_grad(place, saved, grad, slopes, found[0])
        if ctx.needs_input_grad[1]:
            found[1] = (sums[:, 1] * ctx.inverse).float()
        if ctx.needs_input_grad[2]:
            found[2] = sums[:, 0].float()
        return tuple(found)


def _slopes(constants: Tensor, inverse: Tensor, sums: Tensor, count: int) -> Tensor:
    """What the batch's own mean and variance give back: along, plain of `input_grad`."""
    if count == 0:
        return constants.new_zeros(constants.shape[0], 2)
    share = constants[:, 1].double() / count
    return torch.stack([share * inverse.square() * sums[:, 1], share * sums[:, 0]], 1).float()
