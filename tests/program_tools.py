"""Random packed programs beside the same network in float64 PyTorch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsetrain.kernels import sparse_conv as sc
from sparsetrain.kernels.packed import Layout
from sparsetrain.kernels.program import Add, Affine, Conv, Flatten, Pool, Program, Step


class Drawn:
    """A program that grows step by step, and what float64 says of each buffer."""

    def __init__(self, channels: int, height: int, width: int, block: int, batch: int) -> None:
        self.block, self.halo = block, 2
        self.buffers: list[Layout] = []
        self.steps: list[Step] = []
        self.known: list[Tensor] = []
        self.images = torch.randn(batch, channels, height, width)
        self.buffer(self.images.double())

    def buffer(self, known: Tensor) -> int:
        """A new buffer for this value."""
        channels, height, width = known.shape[1:]
        self.buffers.append(Layout(channels, height, width, self.halo, self.block))
        self.known.append(known)
        return len(self.buffers) - 1

    def program(self) -> Program:
        return Program(tuple(self.buffers), tuple(self.steps), (0,), (len(self.buffers) - 1,))

    def conv(
        self,
        source: int,
        outputs: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        density: float = 0.3,
        bias: bool = True,
        residual: int | None = None,
        relu: bool = False,
    ) -> int:
        layout = self.buffers[source]
        padding = (kernel // 2, kernel // 2)
        geometry = sc.Geometry(
            layout.channels, outputs, (kernel, kernel), stride, padding, layout.height, layout.width
        )
        mask = torch.rand(outputs, layout.channels, kernel, kernel) < density
        weight = torch.randn(mask.shape) * mask
        vector = torch.randn(outputs) if bias else None
        wide = None if vector is None else vector.double()
        known = F.conv2d(self.known[source], weight.double(), wide, stride, padding)
        if residual is not None:
            known = known + self.known[residual]
        target = self.buffer(known.relu() if relu else known)
        plan = sc.plan(
            mask, geometry, block=self.block, source_halo=self.halo, target_halo=self.halo
        )
        values = sc.gather(plan, weight)
        self.steps.append(Conv(source, target, plan, values, vector, residual, relu))
        return target

    def pool(self, source: int, kind: str, kernel: int, stride: int, padding: int = 0) -> int:
        pool: Callable[..., Tensor] = F.max_pool2d if kind == "max" else F.avg_pool2d
        target = self.buffer(pool(self.known[source], kernel, stride, padding))
        window, step, pad = ((size, size) for size in (kernel, stride, padding))
        what = "max" if kind == "max" else "mean"
        self.steps.append(Pool(source, target, what, window, step, pad))
        return target

    def mean(self, source: int) -> int:
        layout = self.buffers[source]
        whole = (layout.height, layout.width)
        target = self.buffer(self.known[source].mean((2, 3), keepdim=True))
        self.steps.append(Pool(source, target, "mean", whole, whole))
        return target

    def add(self, source: int, other: int, *, relu: bool = False) -> int:
        known = self.known[source] + self.known[other]
        target = self.buffer(known.relu() if relu else known)
        self.steps.append(Add(source, target, other, relu))
        return target

    def affine(self, source: int, *, relu: bool = False, plain: bool = False) -> int:
        count = self.buffers[source].channels
        scale, shift = (None, None) if plain else (torch.randn(count), torch.randn(count))
        known = self.known[source]
        if scale is not None and shift is not None:
            known = known * scale.double().view(-1, 1, 1) + shift.double().view(-1, 1, 1)
        target = self.buffer(known.relu() if relu else known)
        self.steps.append(Affine(source, target, scale, shift, relu))
        return target

    def flatten(self, source: int) -> int:
        target = self.buffer(self.known[source].flatten(1)[:, :, None, None])
        self.steps.append(Flatten(source, target))
        return target


def network(batch: int, block: int, *, size: int = 8, density: float = 0.3) -> Drawn:
    """Every kind of step at least once, a residual block and a linear layer among them."""
    net = Drawn(3, size, size + 1, block, batch)
    stem = net.conv(0, 10, density=density, relu=True)
    middle = net.conv(stem, 12, density=density, stride=2, relu=True)
    short = net.conv(stem, 12, kernel=1, stride=2, bias=False, density=density)
    joined = net.conv(middle, 12, density=density, residual=short, relu=True)
    pooled = net.pool(joined, "max", 2, 2, 1)
    normed = net.affine(pooled, relu=True)
    both = net.add(normed, net.affine(pooled, plain=True), relu=True)
    small = net.pool(both, "mean", 2, 1, 1)
    last = net.conv(net.flatten(small), 17, kernel=1, density=density)
    net.conv(last, 5, kernel=1, density=density)
    return net
