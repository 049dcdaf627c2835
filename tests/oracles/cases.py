"""The small layers of the published prune-and-regrow cases, and one update of them."""

from __future__ import annotations

import torch
from torch import Tensor

import sparsetrain as st
from sparsetrain.types import View

# A 3x4 layer, its dense gradient and its momentum; active where the weight is not zero.
W = [0.9, -0.8, 0.05, -0.02, 0.7, 0, 0, 0, -0.3, 0.15, 0, -0.6]
G = [0.1, 0.2, -5, 0.01, 0.3, 0.5, -0.9, 0.05, 0.4, -0.6, 1.5, 0.02]
V = [0.5, -0.1, 0.3, 0.2, -0.4, 0, 0, 0, 0.1, -0.2, 0, 0.6]


def grid(values: list[float]) -> Tensor:
    return torch.tensor(values).view(3, 4)


def bits(mask: Tensor) -> str:
    return "".join(str(int(bit)) for bit in mask.flatten())


def moved(method: st.Method, weights: list[float] = W, grads: list[float] = G) -> str:
    """The mask after one update of the layer at step 1."""
    masks = {"w": grid(weights) != 0}
    view = View(1, {"w": grid(weights)}, {"w": grid(grads)}, {}, torch.Generator())
    return bits(method.update(view, masks, {})[0]["w"])


def regrow(fraction: float, **options: object) -> st.Method:
    """Moves a constant fraction by gradient: the published drop and grow at a given rate."""
    options = {"growth": "gradient", "drop_fraction": fraction} | options
    return st.methods.create("set", sparsity=0.5, total_steps=10, **options)


# Two layers for one-shot pruning; B is 2x3.
A = [0.9, -0.8, 0.05, 0, 0.7, 0, -0.12, 0, -0.3, 0.15, 0, -0.6]
B = [0.01, 0, 0.04, 0.35, -0.45, 0.55]
