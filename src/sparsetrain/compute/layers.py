"""What a masked weight needs to run sparse: its plans, and its kept entries in and out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..kernels.conv_plan import ConvPlan, Geometry, plan

BLOCK = 16
"""Images side by side in the packed layout of training."""


class Use(NamedTuple):
    """A way in which a weight is used.

    Attributes:
        geometry: of the convolution; a linear layer is one of single pixels.
        source_halo: zeros around its input.
        target_halo: zeros around its output.
    """

    geometry: Geometry
    source_halo: int
    target_halo: int


class Planned(NamedTuple):
    """A plan, and where its entries lie in the memory of the weight, int64."""

    plan: ConvPlan
    where: Tensor


class Plans:
    """The plans of a mask, made when they are needed; they last until it changes.

    Args:
        mask: bool [outputs, inputs] or [outputs, channels, rows, columns]; changed in place.
        strides: of weights under this mask, which have no gaps.
    """

    def __init__(self, mask: Tensor, strides: Sequence[int]) -> None:
        self.mask, self.strides = mask, tuple(strides)
        self._version, self._density = -1, 1.0
        self._made: dict[Use, Planned] = {}

    @property
    def density(self) -> float:
        """The fraction of weights kept."""
        self._follow_mask()
        return self._density

    def planned(self, use: Use) -> Planned:
        """The plan for a use.

        Raises:
            ValueError: too large a layer; see `kernels.conv_plan.plan`.
        """
        self._follow_mask()
        if use not in self._made:
            self._made[use] = self._make(use)
        return self._made[use]

    def _follow_mask(self) -> None:
        if self._version != self.mask._version:
            self._made.clear()
            self._version = self.mask._version
            self._density = int(self.mask.sum()) / max(1, self.mask.numel())

    def _make(self, use: Use) -> Planned:
        mask = self.mask if self.mask.dim() == 4 else self.mask[:, :, None, None]
        made = plan(
            mask,
            use.geometry,
            block=BLOCK,
            source_halo=use.source_halo,
            target_halo=use.target_halo,
        )
        where, rest = torch.zeros_like(made.entries.where), made.entries.where
        for size, stride in reversed(list(zip(self.mask.shape, self.strides, strict=True))):
            where, rest = where + rest % size * stride, rest // size
        return Planned(made, where)


class Layer:
    """One masked weight.

    Args:
        name: of the parameter.
        weight: [outputs, inputs] or [outputs, channels, rows, columns], of any strides without
            gaps.
        mask: bool of its shape; changed in place.
    """

    def __init__(self, name: str, weight: nn.Parameter, mask: Tensor) -> None:
        self.name, self.weight = name, weight
        self.plans = Plans(mask, weight.stride())

    @property
    def density(self) -> float:
        """The fraction of weights kept."""
        return self.plans.density

    def is_at(self, weight: nn.Parameter) -> bool:
        """Whether this is its weight, and in the order of memory that plans were made for."""
        return weight is self.weight and weight.stride() == self.plans.strides


def gather(weight: Tensor, planned: Planned) -> Tensor:
    """The kept weights in the plan's order, float32 [kept]."""
    return _flat(weight.detach()).index_select(0, planned.where)


def scatter(weight: Tensor, planned: Planned, values: Tensor) -> Tensor:
    """A tensor like the weight: these at the kept places, zeros elsewhere."""
    dense = torch.zeros_like(weight, requires_grad=False)
    _flat(dense).index_copy_(0, planned.where, values)
    return dense


def is_gapless(weight: Tensor) -> bool:
    """Whether all its memory from the first to the last entry is its own, in a usual order."""
    last = weight.dim() == 4 and weight.is_contiguous(memory_format=torch.channels_last)
    return last or weight.is_contiguous()


def pixel(weight: Tensor) -> Geometry:
    """A linear layer's geometry: a 1x1 convolution of single pixels."""
    return Geometry(weight.shape[1], weight.shape[0], (1, 1), 1, (0, 0), 1, 1)


def _flat(weight: Tensor) -> Tensor:
    """All entries in the order of memory."""
    return weight.as_strided((weight.numel(),), (1,))
