"""Batch norm on packed activations, with the sum and ReLU behind it: in C++, and a twin.

Forward takes two passes over the activations (moments; everything else), backward two more (sums;
everything else), because memory traffic decides the time of both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import native
from .packed import Layout, inside, pack


class Place(NamedTuple):
    """Where a batch norm works.

    Attributes:
        batch: images; those that the last block lacks count nowhere.
        source: layout of its input.
        target: layout of its output, equal but for the halo.
        relu: whether ReLU follows.
    """

    batch: int
    source: Layout
    target: Layout
    relu: bool


class Saved(NamedTuple):
    """What the forward pass leaves for the backward pass.

    Attributes:
        images: the input, packed as `source`.
        out: the output, needed where a residual was added before ReLU; else None.
        constants: float32 [channels, 3]: mean, scale, shift.
    """

    images: Tensor
    out: Tensor | None
    constants: Tensor


class _Operands(NamedTuple):
    """Pointers of `NormCall` in csrc/api.h."""

    images: Tensor | None = None
    residual: Tensor | None = None
    out: Tensor | None = None
    grad: Tensor | None = None
    masked: Tensor | None = None
    in_grad: Tensor | None = None
    constants: Tensor | None = None
    sums: Tensor | None = None


def moments(images: Tensor, layout: Layout, batch: int) -> Tensor:
    """Mean and sum of squared distances from it, of each channel over all images.

    Args:
        images: packed as `layout`.

    Returns:
        float64 [channels, 2].
    """
    layout.check(images, "images")
    if native.takes([images], torch.float32):
        found = torch.empty(layout.channels, 2, dtype=torch.float64)
        place = Place(batch, layout, layout, relu=False)
        _run("st_moments", place, _Operands(images=images, sums=found))
        return found
    flat = inside(images, layout)[:batch].double().transpose(0, 1).flatten(1)
    mean = flat.mean(1)
    return torch.stack([mean, (flat - mean[:, None]).square().sum(1)], 1)


def apply(place: Place, saved: Saved, residual: Tensor | None, out: Tensor) -> None:
    """Write `(images - mean) * scale + shift`, plus the residual, then ReLU where asked.

    Args:
        saved: its input and constants; its output is not looked at.
        residual: packed as `place.target`.
        out: packed as `place.target`, its halo zero.
    """
    _check(place, saved, (("residual", residual), ("out", out)))
    if native.takes([saved.images, out], torch.float32):
        constants = _five(saved.constants, None)
        operands = _Operands(saved.images, residual, out, constants=constants)
        _run("st_norm", place, operands)
        return
    result = _affine(place, saved)
    if residual is not None:
        result = result + inside(residual, place.target)
    pack(result.relu() if place.relu else result, place.target, out)


def sums(place: Place, saved: Saved, grad: Tensor, masked: Tensor | None = None) -> Tensor:
    """Sums over all images of g and of g * (images - mean), where g = `grad` behind ReLU.

    Args:
        grad: of the output, packed as `place.target`.
        masked: gets g, which is the residual's gradient; packed as `place.target`, halo zero.

    Returns:
        float64 [channels, 2].
    """
    _check(place, saved, (("grad", grad), ("masked", masked), ("out", saved.out)))
    if native.takes([saved.images, grad], torch.float32):
        found = torch.empty(place.source.channels, 2, dtype=torch.float64)
        constants = _five(saved.constants, None)
        operands = _Operands(saved.images, None, saved.out, grad, masked, None, constants, found)
        _run("st_norm_sums", place, operands)
        return found
    g = _behind_relu(place, saved, grad)
    if masked is not None:
        pack(g, place.target, masked)
    terms = torch.stack([g, g * _away(place, saved)])[:, : place.batch].double()
    return terms.sum((1, 3, 4)).T.contiguous()


def input_grad(place: Place, saved: Saved, grad: Tensor, slopes: Tensor, out: Tensor) -> None:
    """Write `g * scale - (images - mean) * along - plain`, zero for the missing images.

    Args:
        grad: of the output, packed as `place.target`.
        slopes: float32 [channels, 2]: along, plain.
        out: packed as `place.source`, its halo zero.
    """
    _check(place, saved, (("grad", grad), ("out", saved.out)))
    place.source.check(out, "out")
    if native.takes([saved.images, grad, out], torch.float32):
        constants = _five(saved.constants, slopes)
        operands = _Operands(saved.images, None, saved.out, grad, None, out, constants)
        _run("st_norm_grad", place, operands)
        return
    g = _behind_relu(place, saved, grad)
    scale = saved.constants[:, 1].view(-1, 1, 1)
    along, plain = (column.view(-1, 1, 1) for column in slopes.unbind(1))
    result = g * scale - (_away(place, saved) * along + plain)
    result[place.batch :] = 0
    pack(result, place.source, out)


def _run(name: native.OfOneRow, place: Place, operands: _Operands) -> None:
    """Call with `NormCall` of csrc/api.h."""
    addresses = [0 if tensor is None else tensor.data_ptr() for tensor in operands]
    source, target = place.source, place.target
    sizes = [place.batch, source.block, source.channels, source.height, source.width]
    native.run(name, [*sizes, source.halo, target.halo, *addresses, int(place.relu)])


def _five(constants: Tensor, slopes: Tensor | None) -> Tensor:
    more = constants.new_zeros(constants.shape[0], 2) if slopes is None else slopes
    return torch.cat([constants, more], 1)


def _away(place: Place, saved: Saved) -> Tensor:
    return inside(saved.images, place.source) - saved.constants[:, 0].view(-1, 1, 1)


def _affine(place: Place, saved: Saved) -> Tensor:
    scale, shift = (column.view(-1, 1, 1) for column in saved.constants[:, 1:].unbind(1))
    return _away(place, saved) * scale + shift


def _behind_relu(place: Place, saved: Saved, grad: Tensor) -> Tensor:
    g = inside(grad, place.target)
    if place.relu:
        found = saved.out
        out = _affine(place, saved) if found is None else inside(found, place.target)
        g = g.masked_fill(out <= 0, 0)
    g[place.batch :] = 0
    return g


def _check(place: Place, saved: Saved, others: tuple[tuple[str, Tensor | None], ...]) -> None:
    place.source.check(saved.images, "images")
    blocks = saved.images.shape[0]
    for what, tensor in others:
        if tensor is None:
            continue
        place.target.check(tensor, what)
        if tensor.shape[0] != blocks:
            raise ValueError(
                f"{what} must have the input's {blocks} blocks, got {tensor.shape[0]}."
            )
    if not (blocks - 1) * place.source.block < place.batch <= blocks * place.source.block:
        raise ValueError(
            f"batch must fill the {blocks} blocks of {place.source.block} images but the last, "
            f"got {place.batch}."
        )
