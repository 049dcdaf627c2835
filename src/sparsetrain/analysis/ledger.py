"""What training costs in floating-point operations, integrated over the moving sparsity.

For one image and layer with dense cost f and density d, a step costs

    forward f·d  +  gradient of the inputs f·d  +  gradient of the weights f·d

and a step whose method reads the dense gradient, to decide what grows, costs f in place of the last
f·d. Densities are counted step by step. What lies outside pruned layers costs three times its
forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ledger:
    """Operations of a training, a multiply-add counting as two.

    Attributes:
        dense: of the same training without zeros.
        layers: [epochs, layers] of the sparse one: masked forward and backward passes.
        others: [epochs] of what is not pruned.
        growth: [epochs] more for gradients of pruned weights, where the method reads them.
    """

    dense: float
    layers: np.ndarray
    others: np.ndarray
    growth: np.ndarray

    @property
    def sparse(self) -> float:
        """All of the sparse training, gradients of pruned weights left out as in the record."""
        return float(self.layers.sum() + self.others.sum())

    @property
    def total(self) -> float:
        """All of it, with them."""
        return self.sparse + float(self.growth.sum())


def training_ledger(
    densities: np.ndarray,
    flops: np.ndarray,
    *,
    total: float,
    images: int,
    read: np.ndarray | None = None,
) -> Ledger:
    """Sum up a training.

    Args:
        densities: [epochs, layers], mean over the steps of an epoch.
        flops: [layers], dense forward cost of one image.
        total: dense forward cost of one image with everything outside these layers.
        images: trained on in an epoch.
        read: [epochs, layers], share of a layer's weights that are pruned and whose gradient the
            method read, mean over the steps; None: none.
    Returns:
        The operations, by epoch and layer.
    Raises:
        ValueError: the shapes do not fit.
    Source: Evci et al. 2020, arXiv 1911.11134, appendix H, whose RigL step on average,
        (3·f_S·Δ + 2·f_S + f_D) / (Δ + 1), this is where 1 of Δ + 1 steps reads (1 - d).
    """
    more = np.zeros(densities.shape) if read is None else read
    if densities.ndim != 2 or more.shape != densities.shape or densities.shape[1:] != flops.shape:
        raise ValueError(
            "densities and read must be [epochs, layers] and flops [layers], got "
            f"{densities.shape}, {more.shape} and {flops.shape}."
        )
    epochs, outside = len(densities), total - float(flops.sum())
    return Ledger(
        dense=3.0 * total * images * epochs,
        layers=3 * images * densities * flops,
        others=np.full(epochs, 3 * images * outside),
        growth=images * (more * flops).sum(axis=1),
    )
