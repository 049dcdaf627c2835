"""Oracles for the regularisers: a sort in NumPy, the published loss, three ways to a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsetrain.regularizers import L1, L2, HyperSparse, Regularizer

ALL = (HyperSparse(0.5), L1(), L2())


def by_sorting(weights: Sequence[Tensor], sparsity: float) -> tuple[list[np.ndarray], float, float]:
    """The closed form in float64 as the source states it: sort, then one formula. Also s and A."""
    arrays = [w.detach().double().numpy() for w in weights]
    w = np.concatenate([a.ravel() for a in arrays])
    magnitudes = np.sort(np.abs(w))
    border = magnitudes[math.floor(Fraction(str(sparsity)) * w.size)]
    if border == 0.0:
        return [np.zeros_like(a) for a in arrays], math.inf, 0.0
    s = 0.6585 / border
    activation = np.tanh(s * np.abs(w)).sum()
    with np.errstate(over="ignore"):
        bend = 1.0 / np.cosh(s * np.abs(w)) ** 2
    flat = np.sign(w) * s * bend * np.abs(w).sum() / activation
    cuts = np.cumsum([a.size for a in arrays])[:-1]
    parts = np.split(flat, cuts)
    return [p.reshape(a.shape) for p, a in zip(parts, arrays, strict=True)], s, float(activation)


def published_loss(weights: Sequence[Tensor], sparsity: float) -> Tensor:
    """Method 1 of the source, term by term: A and s are constants where the paper says so."""
    w = torch.cat([x.reshape(-1) for x in weights]).abs()
    border = torch.sort(w.detach()).values[math.floor(Fraction(str(sparsity)) * w.numel())]
    s = 0.6585 / border
    activation = torch.tanh(s * w).sum()
    return (w * activation / activation.detach() - w).sum()


def deviation(actual: Sequence[Tensor], expected: Sequence[np.ndarray]) -> float:
    """Largest deviation over largest gradient."""
    largest = max((np.abs(e).max() for e in expected if e.size), default=0.0)
    off = max(
        np.abs(a.double().numpy() - e).max()
        for a, e in zip(actual, expected, strict=True)
        if e.size
    )
    return float(off / largest) if largest else float(off)


def layers(seed: int = 0, dtype: torch.dtype = torch.float32, scale: float = 0.1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((8, 3, 3, 3), (16, 8, 1, 1), (10, 16), (7,))
    return [(torch.randn(s, generator=generator) * scale).to(dtype) for s in shapes]


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad


def by_backward(
    regularizer: Regularizer, weights: Sequence[Tensor], factor: float = 1.0
) -> list[Tensor]:
    leaves = [w.detach().clone().requires_grad_() for w in weights]
    (factor * regularizer.loss(leaves)).backward()
    return [gradient(leaf) for leaf in leaves]


def by_adding(
    regularizer: Regularizer, weights: Sequence[Tensor], factor: float = 1.0
) -> list[Tensor]:
    grads = [torch.zeros_like(w) for w in weights]
    assert regularizer.add_grad_(weights, grads, factor) is None
    return grads


WAYS = pytest.mark.parametrize(
    "way", [by_backward, by_adding, lambda r, w: r.grad(w)], ids=["loss", "add_grad_", "grad"]
)
Way = Callable[[Regularizer, Sequence[Tensor]], list[Tensor]]
