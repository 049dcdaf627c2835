"""The sparse convolution and linear layer as operators of torch: `sparsetrain::conv2d`, `::linear`.

They take and give ordinary tensors, so `torch.compile` and `torch.export` see one node where a
layer was; an exported program needs nothing but `import sparsetrain`. Outside of graphs nobody
calls them: there activations stay packed from layer to layer (conv.py).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor

from ..kernels import sparse_conv
from ..kernels.conv_plan import Geometry
from ..kernels.packed import pack, unpack
from .layers import Planned, Plans, Use, gather, is_gapless, pixel, scatter

_Key = tuple[int, tuple[int, ...], tuple[int, ...], tuple[int, ...]]
_MOST = 512


class _Known:
    """Plans of the masks that were last used."""

    def __init__(self) -> None:
        self._plans: OrderedDict[_Key, Plans] = OrderedDict()
        self._lock = threading.Lock()

    def planned(self, mask: Tensor, weight: Tensor, geometry: Geometry) -> Planned:
        """The plan of a weight in a convolution that packs its own input and output."""
        key = (mask.data_ptr(), tuple(mask.shape), mask.stride(), weight.stride())
        with self._lock:
            plans = self._plans.pop(key, None)
            # Compared, a pass over a byte a weight: in compiled graphs a tensor's version does not
            # follow changes, and its memory may have become another mask's.
            if plans is None or not torch.equal(mask, plans.mask):
                plans = Plans(mask.clone(), weight.stride())
            self._plans[key] = plans  # the latest last
            if len(self._plans) > _MOST:
                self._plans.popitem(last=False)
            return plans.planned(Use(geometry, geometry.halo, geometry.grad_halo))


_known = _Known()


def forward(
    images: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, g: Geometry
) -> Tensor:
    """The convolution of the kept weights.

    Args:
        images: float32 [images, channels, height, width].
        weight: float32 [outputs, channels, rows, columns].
        mask: bool of its shape.

    Returns:
        float32 [images, outputs, height, width], contiguous.
    """
    weight = weight if is_gapless(weight) else weight.contiguous()
    planned = _known.planned(mask, weight, g)
    plan = planned.plan
    made = sparse_conv.forward(plan, pack(images, plan.source), gather(weight, planned), bias=bias)
    return unpack(made, plan.target, images.shape[0])


def backward(
    grad: Tensor, images: Tensor, weight: Tensor, mask: Tensor, g: Geometry, wants: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of images and weight; of what is not wanted an empty tensor."""
    weight = weight if is_gapless(weight) else weight.contiguous()
    planned = _known.planned(mask, weight, g)
    plan, outer = planned.plan, pack(grad, planned.plan.target)
    found = [grad.new_empty(0), grad.new_empty(0)]
    if wants[0]:
        inner = sparse_conv.input_grad(plan, outer, gather(weight, planned))
        found[0] = unpack(inner, plan.source, images.shape[0])
    if wants[1]:
        entries = sparse_conv.weight_grad(plan, pack(images, plan.source), outer)
        found[1] = scatter(weight, planned, entries).contiguous()
    return found[0], found[1]


def _geometry(images: Tensor, weight: Tensor, stride: int, padding: list[int]) -> Geometry:
    kernel, size = (weight.shape[2], weight.shape[3]), (images.shape[2], images.shape[3])
    both = (padding[0], padding[1])
    return Geometry(weight.shape[1], weight.shape[0], kernel, stride, both, *size)


def _pixels(features: Tensor) -> Tensor:
    return features[:, :, None, None]


@torch.library.custom_op("sparsetrain::conv2d", mutates_args=())
def conv2d(
    images: Tensor,
    weight: Tensor,
    mask: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: list[int],
) -> Tensor:
    """`forward`, as an operator.

    Args:
        padding: zeros above and below, left and right.
    """
    return forward(images, weight, mask, bias, _geometry(images, weight, stride, padding))


@torch.library.custom_op("sparsetrain::conv2d_backward", mutates_args=())
def conv2d_backward(
    grad: Tensor,
    images: Tensor,
    weight: Tensor,
    mask: Tensor,
    stride: int,
    padding: list[int],
    wants: list[bool],
) -> tuple[Tensor, Tensor]:
    """`backward`, as an operator."""
    return backward(grad, images, weight, mask, _geometry(images, weight, stride, padding), wants)


@torch.library.custom_op("sparsetrain::linear", mutates_args=())
def linear(features: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None) -> Tensor:
    """`features @ (weight * mask).T + bias` of [images, features]."""
    layer = (_pixels(weight), _pixels(mask), bias, pixel(weight))
    return forward(_pixels(features), *layer).flatten(1)


@torch.library.custom_op("sparsetrain::linear_backward", mutates_args=())
def linear_backward(
    grad: Tensor, features: Tensor, weight: Tensor, mask: Tensor, wants: list[bool]
) -> tuple[Tensor, Tensor]:
    """Gradients of features and weight; of what is not wanted an empty tensor."""
    layer = (_pixels(weight), _pixels(mask), pixel(weight))
    inner, entries = backward(_pixels(grad), _pixels(features), *layer, wants)
    return inner.flatten(1) if wants[0] else inner, entries.flatten(1) if wants[1] else entries


@conv2d.register_fake
def _(images: Tensor, weight: Tensor, mask: Tensor, bias: Any, stride: int, padding: list[int]):
    g = _geometry(images, weight, stride, padding)
    return images.new_empty((images.shape[0], g.outputs, g.out_height, g.out_width))


@linear.register_fake
def _(features: Tensor, weight: Tensor, mask: Tensor, bias: Any):
    return features.new_empty((features.shape[0], weight.shape[0]))


@conv2d_backward.register_fake
def _(
    grad: Tensor, images: Tensor, weight: Tensor, mask: Any, stride: Any, padding: Any, wants: Any
):
    return _like(images, wants[0]), _like(weight, wants[1])


@linear_backward.register_fake
def _(grad: Tensor, features: Tensor, weight: Tensor, mask: Tensor, wants: list[bool]):
    return _like(features, wants[0]), _like(weight, wants[1])


def _like(tensor: Tensor, wanted: bool) -> Tensor:
    return tensor.new_empty(tensor.shape if wanted else (0,))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    images, weight, mask, _, *ctx.how = inputs
    ctx.save_for_backward(images, weight, mask)


def _conv2d_grads(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    wants = list(ctx.needs_input_grad[:2])
    found = conv2d_backward(grad, *ctx.saved_tensors, *ctx.how, wants)
    return _grads(ctx, found, grad.sum((0, 2, 3)) if ctx.needs_input_grad[3] else None)


def _linear_grads(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    found = linear_backward(grad, *ctx.saved_tensors, list(ctx.needs_input_grad[:2]))
    return _grads(ctx, found, grad.sum(0) if ctx.needs_input_grad[3] else None)


def _grads(
    ctx: Any, found: tuple[Tensor, Tensor], bias: Tensor | None
) -> tuple[Tensor | None, ...]:
    wanted = [x if wants else None for x, wants in zip(found, ctx.needs_input_grad, strict=False)]
    return (*wanted, None, bias, *(None for _ in ctx.how))


conv2d.register_autograd(_conv2d_grads, setup_context=_keep)
linear.register_autograd(_linear_grads, setup_context=_keep)
