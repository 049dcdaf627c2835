"""GraSP: which weights the gradient needs to keep flowing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import masks as mask_algebra
from ..selection import Patterns
from ..types import Masks
from .scored_copy import (
    Batches,
    LossFn,
    Mode,
    ScoredCopy,
    keep,
    listed,
    loss_of,
    scoring,
    summed_gradient,
)


def grasp(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Batches,
    sparsity: float,
    *,
    temperature: float = 200.0,
    mode: Mode = "train",
    include: Patterns = None,
    exclude: Patterns = None,
) -> Masks:
    """Keep the weights that the gradient flow needs: exactly `kept(N, sparsity)` of N.

    Train the result under `st.methods.static(masks=masks)`. The source takes ten images a class
    as two batches.

    Args:
        model: any module, freshly initialised; it must return logits. It is not changed.
        loss_fn: (logits / temperature, targets) -> 0-d loss.
        batches: (inputs, targets) pairs, at least one; read twice, so all are held.
        sparsity: fraction of zeros over the selected weights, 0 <= sparsity < 1.
        temperature: divides the logits, above 0; it changes the ranking.
        mode: "train" normalises by each batch, "eval" by the running statistics.
        include: patterns of `st.select`.
        exclude: patterns of `st.select`.
    Returns:
        name -> bool mask.
    Raises:
        ValueError: nothing prunable, no batch, a value out of range, or a score that is NaN.
    Source: Wang et al. 2020, arXiv 2002.07376, eq. 8. Deviates from the published code: the
        network's own linear weights are scored, where the code draws new ones for scoring.
    """
    sparsity = mask_algebra.check_sparsity(sparsity)
    scores = grasp_scores(
        model,
        loss_fn,
        batches,
        temperature=temperature,
        mode=mode,
        include=include,
        exclude=exclude,
    )
    return keep(scores, sparsity)


def grasp_scores(
    model: nn.Module,
    loss_fn: LossFn,
    batches: Batches,
    *,
    temperature: float = 200.0,
    mode: Mode = "train",
    include: Patterns = None,
    exclude: Patterns = None,
) -> dict[str, Tensor]:
    """w (H g), g and H of L(logits / temperature) summed over the batches.

    Arguments and errors as for `grasp`. Deleting w changes |g|^2 by -2 w (H g) to first order, so
    the largest are kept. H is taken among the selected weights.

    Returns:
        name -> float32 scores of the weight's shape.

    Raises:
        ValueError: a temperature that is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}.")

    def cooled(outputs: Tensor, targets: Any) -> Tensor:
        return loss_fn(outputs / temperature, targets)

    copy, held = ScoredCopy.of(model, include, exclude), listed(batches)
    with scoring(model, mode), _twice_differentiable(model):
        gradient = summed_gradient(copy, cooled, held)
        product = {name: torch.zeros_like(g) for name, g in gradient.items()}
        for inputs, targets in held:
            first = copy.gradient(loss_of(copy, cooled, inputs, targets), create_graph=True)
            flow = torch.stack([(gradient[n] * first[n]).sum() for n in first]).sum()
            for name, g in copy.gradient(flow).items():
                product[name] += g
    return {name: copy.weights[name].detach() * hg for name, hg in product.items()}


@contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Fused attention and cuDNN's recurrent kernels have no second derivative; torch's own do."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    plain = torch.backends.cudnn.flags(enabled=False) if recurrent else nullcontext()
    with sdpa_kernel(SDPBackend.MATH), plain:
        yield
