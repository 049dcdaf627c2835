"""What a masked weight needs to run sparse: its plans, and its kept entries in and out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..kernels.conv_plan import ConvPlan, Geometry, plan


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


class Layer:
    """One masked weight. Plans last until its mask changes.

    Args:
        name: of the parameter.
        weight: [outputs, inputs] or [outputs, channels, rows, columns], of any strides without
            gaps.
        mask: bool of its shape; changed in place.
    """

    def __init__(self, name: str, weight: nn.Parameter, mask: Tensor, block: int) -> None:
        self.name, self.weight, self.mask = name, weight, mask
        self._block, self._version = block, -1
        self._plans: dict[Use, Planned] = {}
        self._density, self._strides = 1.0, weight.stride()

    @property
    def density(self) -> float:
        """The fraction of weights kept."""
        self._follow_mask()
        return self._density

    def is_at(self, weight: nn.Parameter) -> bool:
        """Whether this is its weight, and in the order of memory that plans were made for."""
        return weight is self.weight and weight.stride() == self._strides

    def planned(self, use: Use) -> Planned:
        """The plan for a use, made at its first.

        Raises:
            ValueError: too large a layer; see `kernels.conv_plan.plan`.
        """
        self._follow_mask()
        if use not in self._plans:
            self._plans[use] = self._make(use)
        return self._plans[use]

    def gather(self, planned: Planned) -> Tensor:
        """The kept weights in the plan's order, float32 [kept]."""
        return _flat(self.weight.detach()).index_select(0, planned.where)

    def scatter(self, planned: Planned, values: Tensor) -> Tensor:
        """A tensor like the weight: these at the kept places, zeros elsewhere."""
        dense = torch.zeros_like(self.weight, requires_grad=False)
        _flat(dense).index_copy_(0, planned.where, values)
        return dense

    def _follow_mask(self) -> None:
        if self._version != self.mask._version:
            self._plans.clear()
            self._version = self.mask._version
            self._density = int(self.mask.sum()) / max(1, self.mask.numel())

    def _make(self, use: Use) -> Planned:
        mask = self.mask if self.mask.dim() == 4 else self.mask[:, :, None, None]
        made = plan(
            mask,
            use.geometry,
            block=self._block,
            source_halo=use.source_halo,
            target_halo=use.target_halo,
        )
        where, rest = torch.zeros_like(made.entries.where), made.entries.where
        for size, stride in reversed(
            list(zip(self.weight.shape, self.weight.stride(), strict=True))
        ):
            where, rest = where + rest % size * stride, rest // size
        return Planned(made, where)


def _flat(weight: Tensor) -> Tensor:
    """All entries in the order of memory."""
    return weight.as_strided((weight.numel(),), (1,))
