"""N:M masks: of each M neighbouring weights of an output the same number stays."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .. import sharded
from ..types import Masks, Tensors


def keep_n_of_m(scores: Tensors, n: int = 2, m: int = 4) -> Masks:
    """Keep the `n` largest scores of each `m` neighbours.

    Neighbours follow each other in a row of a layer's inputs: the first dimension is the outputs,
    the others are flattened, as `is_2to4` reads them.

    Args:
        scores: name -> tensor of two or more dimensions; convolutions too.
        n: kept of each m, 0 < n <= m.
        m: neighbours.
    Returns:
        name -> bool mask of the same shape, device and memory format, exactly n / m of it True;
        ties go to the earlier position.
    Raises:
        ValueError: n or m out of range, inputs that m does not divide, or a NaN score; the layers
            are named.
    Source: Mishra et al. 2021, arXiv 2104.08378, for 2:4 by magnitude.
    """
    if not 0 < n <= m:
        raise ValueError(f"n must be in [1, m={m}], got {n}.")
    uneven = [name for name, score in scores.items() if math.prod(score.shape[1:]) % m]
    uneven += [name for name, score in scores.items() if score.ndim < 2]
    if uneven:
        raise ValueError(
            f"the inputs of {', '.join(dict.fromkeys(uneven))} are no multiple of m={m}; leave "
            "these layers out, as by exclude of st.select."
        )
    return {name: _layer(name, score, n, m) for name, score in scores.items()}


def _layer(name: str, score: Tensor, n: int, m: int) -> Tensor:
    if sharded.is_sharded(score):  # whole rows on each rank, and a group lies in one row
        return sharded.wrap(_layer(name, sharded.local(score), n, m), score)
    if torch.isnan(score).any():
        raise ValueError(f"scores are NaN in {name}; look for a diverged loss first.")
    groups = score.detach().reshape(-1, m)
    best = groups.argsort(dim=1, descending=True, stable=True)[:, :n]
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, best, value=True)
    return torch.empty_like(score, dtype=torch.bool).copy_(mask.view(score.shape))
