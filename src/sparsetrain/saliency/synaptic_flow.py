"""SynFlow: which weights lie on the strongest paths through the network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import masks as mask_algebra
from ..emptiness import warn_of_empty_layers
from ..selection import Patterns, select
from ..types import Masks, Tensors
from .scored_copy import Batches, LossFn, ScoredCopy, listed, scoring


def synflow(
    model: nn.Module,
    loss_fn: LossFn | None,
    batches: Batches,
    sparsity: float,
    *,
    rounds: int = 100,
    include: Patterns = None,
    exclude: Patterns = None,
) -> Masks:
    """Keep the weights on the strongest paths, without data: exactly `kept(N, sparsity)` of N.

    Train the result under `st.methods.static(masks=masks)`.

    Args:
        model: any module, freshly initialised; it is not changed.
        loss_fn: not used, None will do; here so that all three are called alike.
        batches: only the first one's shape is read; `[(torch.empty(1, 3, 32, 32), None)]` will do.
        sparsity: fraction of zeros over the selected weights, 0 <= sparsity < 1.
        rounds: scorings; after round i of n a share (1 - sparsity)^(i / n) is left.
        include: patterns of `st.select`.
        exclude: patterns of `st.select`.
    Returns:
        name -> bool mask.
    Raises:
        ValueError: nothing prunable, no batch, a value out of range, or a score that is NaN.
    Source: Tanaka et al. 2020, arXiv 2006.05467, alg. 1. Deviates: a weight pruned once stays
        pruned where scores are 0.
    """
    sparsity = mask_algebra.check_sparsity(sparsity)
    if not isinstance(rounds, int) or isinstance(rounds, bool) or rounds < 1:
        raise ValueError(f"rounds must be an int of at least 1, got {rounds!r}.")
    batches = listed(batches)[:1]
    parameters = select(model, include, exclude)
    total = mask_algebra.total(parameters)
    target = mask_algebra.kept(total, sparsity)
    masks = {name: torch.ones_like(p, dtype=torch.bool) for name, p in parameters.items()}
    for i in range(1, rounds + 1):
        planned = round(total * (1 - sparsity) ** (i / rounds))
        count = target if i == rounds else max(target, planned)
        scores = synflow_scores(model, batches, masks=masks, include=include, exclude=exclude)
        alive = {name: s.masked_fill(~masks[name], -torch.inf) for name, s in scores.items()}
        masks = mask_algebra.keep_global(alive, count)
    warn_of_empty_layers(masks)
    return masks


def synflow_scores(
    model: nn.Module,
    batches: Batches,
    *,
    masks: Tensors | None = None,
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Tensor]:
    """|w dR/dw| in float64, R the sum of outputs for ones as input, |tensors| and masked weights.

    In a network without biases each layer's scores sum to R, which is why no layer empties before
    the others.

    Args:
        model: any module; scored in eval mode.
        batches: only the first one's shape is read.
        masks: name -> bool of the selected weights; None prunes nothing.
        include: patterns of `st.select`.
        exclude: patterns of `st.select`.
    """
    (inputs, _), *_ = listed(batches)
    ones = torch.ones_like(_wide(inputs[:1]))
    copy = ScoredCopy.of(model, include, exclude, change=_absolute, masks=masks)
    with scoring(model, "eval"):
        scores = copy.gradient(copy.call(ones).sum())
    return {name: (copy.weights[name].detach() * g).abs() for name, g in scores.items()}


def _wide(tensor: Tensor) -> Tensor:
    # In float32 the product of a deep network's absolute weights overflows.
    return tensor.detach().double() if tensor.is_floating_point() else tensor.detach()


def _absolute(tensor: Tensor) -> Tensor:
    return _wide(tensor).abs() if tensor.is_floating_point() else tensor.clone()
