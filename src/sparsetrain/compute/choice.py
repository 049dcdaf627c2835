"""Which layers run sparse: by measurement on this machine, or by a fixed rule."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..kernels import sparse_conv
from ..kernels.conv_plan import Geometry
from ..kernels.packed import pack, unpack
from . import ops
from .layers import Layer, Use, gather
from .pace import How

Mode = Literal["measured", "fixed", "sparse"]
MODES: tuple[Mode, ...] = ("measured", "fixed", "sparse")

_SURE_SPARSE = 0.02
_FIXED = 0.15
"""Density up to which the fixed rule takes the sparse kernels; 0.1 to 0.3 by machine and layer."""
_FEW = 64
"""Inputs of an output channel that a layer may have to run sparse whatever its density."""
_IMAGES, _ROUNDS = 16, 3
ALONE = " alone"
"""Ends the names of layers in a compiled graph, which pack and unpack by themselves."""


class Choices:
    """What was chosen for each layer and size of image, to be kept with a run.

    Args:
        mode: "measured" times both ways once, "fixed" goes by density alone, "sparse" takes the
            sparse kernels always.
        known: from `known` of an earlier process.
    """

    def __init__(self, mode: Mode, known: Mapping[str, str] | None = None) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
        self.mode: Mode = mode
        self.known: dict[str, str] = dict(known or {})

    def __call__(self, layer: Layer, geometry: Geometry, *, first: bool) -> How:
        """How a layer runs.

        Args:
            first: whether its input needs no gradient.
        """
        if self.mode == "sparse":
            return "sparse"
        key = f"{layer.name} {geometry.height}x{geometry.width} {step_of(layer.density)}"
        if key not in self.known:
            # The stem: few products, and what follows it is packed from there on.
            stem = first and geometry.channels * math.prod(geometry.kernel) <= _FEW
            self.known[key] = "sparse" if stem else self._decide(layer, geometry, measured)
        return "sparse" if self.known[key] == "sparse" else "dense"

    def alone(
        self,
        layer: Layer,
        height: int,
        width: int,
        stride: int,
        padding: tuple[int, int],
        first: bool,
    ) -> bool:
        """Whether a layer runs sparse that packs its input and unpacks its output itself."""
        if self.mode == "sparse":
            return True
        shape = (*layer.weight.shape, 1, 1)[:4]
        g = Geometry(shape[1], shape[0], (shape[2], shape[3]), stride, padding, height, width)
        key = f"{layer.name} {height}x{width} {step_of(layer.density)}{ALONE}"
        if key not in self.known:
            self.known[key] = self._decide(layer, g, partial(measured_alone, first=first))
        return self.known[key] == "sparse"

    def _decide(
        self, layer: Layer, geometry: Geometry, measure: Callable[[Layer, Geometry], How]
    ) -> How:
        if self.mode == "fixed":
            return "sparse" if layer.density <= _FIXED else "dense"
        if layer.density <= _SURE_SPARSE:
            return "sparse"
        return measure(layer, geometry)


def step_of(density: float) -> str:
    """Density in steps of a third, so that a mask that thins out is chosen for anew."""
    return "empty" if density == 0 else f"d{round(math.log(density) / math.log(0.66))}"


@torch.no_grad()
def measured_alone(layer: Layer, geometry: Geometry, *, first: bool) -> How:
    """The faster way for forward and backward of 16 ordinary images, of three rounds each.

    Args:
        first: whether the gradient of its input is not needed.
    """
    g = geometry
    images = torch.randn(_IMAGES, g.channels, g.height, g.width)
    grad = torch.randn(_IMAGES, g.outputs, g.out_height, g.out_width)
    shape = (g.outputs, g.channels, *g.kernel)
    weight, mask = layer.weight.detach().view(shape), layer.plans.mask.view(shape)

    def sparse() -> None:
        ops.forward(images, weight, mask, None, g)
        ops.backward(grad, images, weight, mask, g, [not first, True])

    faster = _fastest(sparse) <= _fastest(lambda: _dense_step(images, weight, grad, g))
    return "sparse" if faster else "dense"


@torch.no_grad()
def measured(layer: Layer, geometry: Geometry) -> How:
    """The faster way for forward and backward of 16 images, of three rounds each."""
    g = geometry
    images = torch.randn(_IMAGES, g.channels, g.height, g.width)
    grad = torch.randn(_IMAGES, g.outputs, g.out_height, g.out_width)
    halo = max(g.halo, g.grad_halo)
    planned = layer.plans.planned(Use(g, halo, halo))
    plan = planned.plan
    inner, outer = pack(images, plan.source), pack(grad, plan.target)

    def sparse() -> None:
        values = gather(layer.weight, planned)
        sparse_conv.forward(plan, inner, values)
        sparse_conv.input_grad(plan, outer, values)
        sparse_conv.weight_grad(plan, inner, outer)

    def dense() -> None:
        given = unpack(inner, plan.source, _IMAGES)
        weight = layer.weight.detach().view(plan.mask_shape)
        pack(_dense_step(given, weight, grad, g)[0], plan.source)
        unpack(pack(grad, plan.target), plan.target, _IMAGES)

    return "sparse" if _fastest(sparse) <= _fastest(dense) else "dense"


def _dense_step(images: Tensor, weight: Tensor, grad: Tensor, g: Geometry) -> tuple[Tensor, ...]:
    with torch.enable_grad():
        leaves = [images.requires_grad_(), weight.clone().requires_grad_()]
        out = F.conv2d(leaves[0], leaves[1], None, g.stride, g.padding)
        return torch.autograd.grad(out, leaves, grad.to(out.dtype))


def _fastest(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[1:])
