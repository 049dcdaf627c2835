"""A program run step by step over the whole batch: the twin of csrc/program.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from . import sparse_conv
from .packed import inside, pack, unpack
from .program_steps import Add, Affine, Conv, Flatten, Pool, Step

if TYPE_CHECKING:
    from .program import Program


def run(program: Program, images: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The outputs for a batch.

    Args:
        images: float32 [batch, channels, height, width], one for each input of the program.
    """
    batch = images[0].shape[0]
    packed = {
        index: pack(tensor, program.buffers[index])
        for index, tensor in zip(program.inputs, images, strict=True)
    }
    for step in program.steps:
        packed[step.target] = _result(program, step, packed)
    return tuple(unpack(packed[i], program.buffers[i], batch) for i in program.outputs)


def _result(program: Program, step: Step, packed: dict[int, Tensor]) -> Tensor:
    """What a step writes, packed; its target is not overwritten."""
    if isinstance(step, Conv):
        residual = None if step.residual is None else packed[step.residual]
        return sparse_conv.forward(
            step.plan,
            packed[step.source],
            step.values,
            bias=step.bias,
            residual=residual,
            relu=step.relu,
        )
    source, other = (inside(packed[i], program.buffers[i]) for i in (step.reads * 2)[:2])
    return pack(_plain(step, source, other), program.buffers[step.target])


def _plain(step: Pool | Add | Affine | Flatten, source: Tensor, other: Tensor) -> Tensor:
    if isinstance(step, Flatten):
        return source.flatten(1)[:, :, None, None]
    if isinstance(step, Pool):
        windows = (step.kernel, step.stride, step.padding)
        if step.kind == "max":
            return F.max_pool2d(source, *windows)
        return F.avg_pool2d(source, *windows, count_include_pad=step.count_padding)
    if isinstance(step, Add):
        result = source + other
    else:
        scale, shift = (
            None if vector is None else vector.view(-1, 1, 1) for vector in (step.scale, step.shift)
        )
        result = source if scale is None else source * scale
        result = result if shift is None else result + shift
    return result.relu() if step.relu else result
