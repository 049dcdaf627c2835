"""What training costs in floating-point operations, integrated over the moving sparsity.

For one image and layer with dense cost f and density d, a step costs

    forward f·d  +  gradient of the inputs f·d  +  gradient of the weights f·d

and a step whose method reads the dense gradient, to decide what grows, costs f in place of the last
f·d. Over the steps of an epoch d is the mean of the densities at its two ends. What lies outside
pruned layers costs three times its forward pass.
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
    begun: np.ndarray,
    ended: np.ndarray,
    flops: np.ndarray,
    *,
    total: float,
    images: int,
    dense_gradients: np.ndarray | None = None,
) -> Ledger:
    """Sum up a training.

    Args:
        begun: [epochs, layers] densities before each epoch's first step.
        ended: [epochs, layers] after its last.
        flops: [layers], dense forward cost of one image.
        total: dense forward cost of one image with everything outside these layers.
        images: trained on in an epoch.
        dense_gradients: [epochs], the share of an epoch's steps in which the method reads the
            gradient of every weight; None: none.
    Returns:
        The operations, by epoch and layer.
    Raises:
        ValueError: the shapes do not fit.
    Source: Evci et al. 2020, arXiv 1911.11134, appendix H, whose RigL step on average,
        (3·f_S·Δ + 2·f_S + f_D) / (Δ + 1), this is at a share of 1 / (Δ + 1).
    """
    if begun.ndim != 2 or begun.shape != ended.shape or begun.shape[1:] != flops.shape:
        raise ValueError(
            "begun and ended must be [epochs, layers] and flops [layers], got "
            f"{begun.shape}, {ended.shape} and {flops.shape}."
        )
    epochs = len(begun)
    mean = (begun + ended) / 2
    share = np.zeros(epochs) if dense_gradients is None else np.asarray(dense_gradients)
    outside = total - float(flops.sum())
    return Ledger(
        dense=3.0 * total * images * epochs,
        layers=3 * images * mean * flops,
        others=np.full(epochs, 3 * images * outside),
        growth=images * share * ((1 - mean) * flops).sum(axis=1),
    )
