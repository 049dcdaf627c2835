"""Direct sparse convolution on packed activations: forward and both gradients.

In C++ where that is built; the twin beside it is PyTorch's convolution of the masked weight.
A linear layer is the case of a 1x1 kernel on 1x1 images.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from . import native
from .conv_plan import ConvPlan as ConvPlan
from .conv_plan import Geometry as Geometry
from .conv_plan import Work
from .conv_plan import plan as plan
from .conv_plan import plan_linear as plan_linear
from .packed import Layout as Layout
from .packed import inside
from .packed import pack as pack
from .packed import unpack as unpack


def gather(conv: ConvPlan, weight: Tensor) -> Tensor:
    """The kept weights of a dense float32 weight, in the plan's order, detached.

    Raises:
        ValueError: a weight of another shape than the mask.
    """
    if weight.numel() != conv.mask_shape.numel() or weight.dim() not in (2, 4):
        raise ValueError(
            f"weight must have the mask's shape {tuple(conv.mask_shape)}, got "
            f"{tuple(weight.shape)}. Plan again for another layer."
        )
    return weight.detach().contiguous().view(-1)[conv.entries.where]


def scatter(conv: ConvPlan, values: Tensor) -> Tensor:
    """A dense [outputs, channels, rows, columns]: these at the kept places, zeros elsewhere."""
    dense = torch.zeros(conv.mask_shape)
    dense.view(-1)[conv.entries.where] = values
    return dense


def forward(
    conv: ConvPlan,
    images: Tensor,
    values: Tensor,
    *,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    relu: bool = False,
    out: Tensor | None = None,
) -> Tensor:
    """The convolution, then plus bias, plus residual, then ReLU.

    Args:
        images: packed as `conv.source`, its halo zero.
        values: float32 [kept], from `gather`.
        bias: float32 [outputs].
        residual: packed as `conv.target`.
        out: packed as `conv.target`, its halo zero; may be the residual, not `images`.

    Returns:
        Packed as `conv.target`; its halo is zero.
    """
    conv.source.check(images, "images")
    _check_values(conv, values)
    if bias is not None:
        bias = _checked_bias(conv, bias)
    blocks = images.shape[0]
    out = conv.target.framed(blocks * conv.target.block) if out is None else out
    _check_blocks(conv.target, out, "out", blocks)
    if residual is not None:
        _check_blocks(conv.target, residual, "residual", blocks)
    if not native.takes([images, values, out], torch.float32):
        return _forward_twin(conv, images, values, bias, residual, relu, out)
    extra = (bias, residual)
    _run("st_conv", conv.work, images, out, values, bias_residual=extra, relu=relu)
    return out


def input_grad(conv: ConvPlan, grad: Tensor, values: Tensor, out: Tensor | None = None) -> Tensor:
    """The gradient of the input, packed as `conv.source`, from that of the output.

    Args:
        grad: packed as `conv.target`, its halo zero.
        values: float32 [kept], from `gather`.
        out: packed as `conv.source`, its halo zero, to be written instead of a new one.

    Raises:
        ValueError: one image a block, or too narrow a halo of the target.
    """
    _check_training(conv)
    conv.target.check(grad, "grad")
    _check_values(conv, values)
    if conv.target.halo < conv.geometry.grad_halo:
        raise ValueError(
            f"the gradient of the input needs a target_halo of at least {conv.geometry.grad_halo}, "
            f"the plan has {conv.target.halo}. Plan the convolution again."
        )
    out = conv.source.framed(grad.shape[0] * conv.source.block) if out is None else out
    _check_blocks(conv.source, out, "out", grad.shape[0])
    if not native.takes([grad, values], torch.float32):
        return _input_grad_twin(conv, grad, values, out)
    for order, work in conv.phases:
        _run("st_conv", work, grad, out, values[order])
    return out


def weight_grad(conv: ConvPlan, images: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the kept weights, float32 [kept] in the plan's order.

    Args:
        images: packed as `conv.source`, its halo zero.
        grad: packed as `conv.target`; zero for the missing images of the last block.

    Raises:
        ValueError: one image a block.
    """
    _check_training(conv)
    conv.source.check(images, "images")
    _check_blocks(conv.target, grad, "grad", images.shape[0])
    if not native.takes([images, grad], torch.float32):
        return _weight_grad_twin(conv, images, grad)
    grads = torch.empty(conv.kept)
    _run("st_conv_grad", conv.work, images, grad, grads)
    return grads


def _run(
    name: native.OfOneRow,
    work: Work,
    images: Tensor,
    out: Tensor,
    values: Tensor,
    *,
    bias_residual: tuple[Tensor | None, Tensor | None] = (None, None),
    relu: bool = False,
) -> None:
    """Call with `ConvCall` of csrc/api.h; for the gradient, `values` is what is written."""
    bias, residual = bias_residual
    corner = 4 * work.corner
    e = work.entries
    vectors = [_address(x) for x in (e.order, e.starts, e.offsets, values, bias)]
    conv = [*work.conv, int(relu), *vectors]
    more = 0 if residual is None else residual.data_ptr() + corner
    addresses = [images.data_ptr(), more, out.data_ptr() + corner, values.data_ptr()]
    native.run(name, [*conv, *addresses, images.shape[0], *work.sizes])


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _check_values(conv: ConvPlan, values: Tensor) -> None:
    good = values.dtype is torch.float32 and values.is_contiguous()
    if not good or values.shape != (conv.kept,) or values.device.type != "cpu":
        raise ValueError(
            f"values must be contiguous float32 of shape ({conv.kept},) on the CPU, got "
            f"{values.dtype} of {tuple(values.shape)} on {values.device}. Take them from gather()."
        )


def _checked_bias(conv: ConvPlan, bias: Tensor) -> Tensor:
    wanted = (conv.geometry.outputs,)
    if bias.dtype is not torch.float32 or bias.shape != wanted or bias.device.type != "cpu":
        raise ValueError(
            f"bias must be float32 of shape {wanted} on the CPU, got {bias.dtype} of "
            f"{tuple(bias.shape)} on {bias.device}."
        )
    return bias.detach().contiguous()


def _check_blocks(layout: Layout, packed: Tensor, what: str, blocks: int) -> None:
    layout.check(packed, what)
    if packed.shape[0] != blocks:
        raise ValueError(f"{what} must have the input's {blocks} blocks, got {packed.shape[0]}.")


def _check_training(conv: ConvPlan) -> None:
    if conv.source.block == 1:
        raise ValueError("gradients need blocks of 16 images or more. Plan with block=16.")


def _forward_twin(
    conv: ConvPlan,
    images: Tensor,
    values: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    relu: bool,
    out: Tensor,
) -> Tensor:
    g = conv.geometry
    result = F.conv2d(inside(images, conv.source), scatter(conv, values), bias, g.stride, g.padding)
    if residual is not None:
        result = result + inside(residual, conv.target)
    return pack(result.relu() if relu else result, conv.target, out)


def _input_grad_twin(conv: ConvPlan, grad: Tensor, values: Tensor, out: Tensor) -> Tensor:
    g, outer, weight = conv.geometry, inside(grad, conv.target), scatter(conv, values)
    images = torch.zeros(outer.shape[0], g.channels, g.height, g.width)
    backward = torch.func.vjp(lambda x: F.conv2d(x, weight, None, g.stride, g.padding), images)[1]
    return pack(backward(outer)[0], conv.source, out)


def _weight_grad_twin(conv: ConvPlan, images: Tensor, grad: Tensor) -> Tensor:
    g, inner = conv.geometry, inside(images, conv.source)
    weight = torch.zeros(conv.mask_shape)
    backward = torch.func.vjp(lambda w: F.conv2d(inner, w, None, g.stride, g.padding), weight)[1]
    return backward(inside(grad, conv.target))[0].reshape(-1)[conv.entries.where]
