"""SNIP: how much the loss depends on each weight being there."""

from __future__ import annotations

from torch import Tensor, nn

from .. import masks as mask_algebra
from ..selection import Patterns
from ..types import Masks
from .scored_copy import Batches, LossFn, Mode, ScoredCopy, keep, listed, scoring, summed_gradient


def snip(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Batches,
    sparsity: float,
    *,
    mode: Mode = "train",
    include: Patterns = None,
    exclude: Patterns = None,
) -> Masks:
    """Keep the weights whose removal changes the loss most: exactly `kept(N, sparsity)` of N.

    Train the result under `st.methods.static(masks=masks)`.

    Args:
        model: any module, freshly initialised; it is not changed.
        loss_fn: (what the model returns, targets) -> 0-d loss; its scale does not matter.
        batches: (inputs, targets) pairs, at least one.
        sparsity: fraction of zeros over the selected weights, 0 <= sparsity < 1.
        mode: "train" normalises by each batch, "eval" by the running statistics.
        include: patterns of `st.select`.
        exclude: patterns of `st.select`.
    Returns:
        name -> bool mask.
    Raises:
        ValueError: nothing prunable, no batch, a value out of range, or a score that is NaN.
    Source: Lee et al. 2019, arXiv 1810.02340, eq. 6.
    """
    sparsity = mask_algebra.check_sparsity(sparsity)
    scores = snip_scores(model, loss_fn, batches, mode=mode, include=include, exclude=exclude)
    return keep(scores, sparsity)


def snip_scores(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Batches,
    *,
    mode: Mode = "train",
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Tensor]:
    """|w g| with g = dL/dw summed over the batches; arguments as for `snip`.

    It equals |dL/dc| for a gate c = 1 that multiplies the weight.
    """
    copy = ScoredCopy.of(model, include, exclude)
    with scoring(model, mode):
        gradient = summed_gradient(copy, loss_fn, listed(batches))
    return {name: (copy.weights[name].detach() * g).abs() for name, g in gradient.items()}
