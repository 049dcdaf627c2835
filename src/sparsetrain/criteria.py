"""What makes a weight worth keeping: functions from a View to scores, the larger the better."""

from __future__ import annotations

import torch
from torch import Tensor

from .types import Tensors, View


def magnitude(view: View) -> dict[str, Tensor]:
    """|w| of every weight.

    Source: Han et al. 2015, arXiv 1506.02626.
    """
    return {name: weight.abs() for name, weight in view.weights.items()}


def gradient(view: View) -> dict[str, Tensor]:
    """|dL/dw| of the last backward, dense: also where the weight is pruned.

    Raises:
        ValueError: a weight without gradient (the message names it).

    Source: Evci et al. 2020 (RigL), arXiv 1911.11134.
    """
    grads = _each(view, view.grads, "gradient", "call backward() before the masks are updated")
    return {name: grad.abs() for name, grad in grads.items()}


def momentum(view: View) -> dict[str, Tensor]:
    """|first moment| that the optimizer keeps: SGD's momentum buffer, Adam's `exp_avg`.

    Raises:
        ValueError: a weight without it (the message names it).

    Source: Dettmers & Zettlemoyer 2019, arXiv 1907.04840.
    """
    hint = "use an optimizer with momentum, and take a step before the masks are updated"
    momenta = _each(view, view.momenta, "first moment", hint)
    return {name: moment.abs() for name, moment in momenta.items()}


def taylor(view: View) -> dict[str, Tensor]:
    """|w dL/dw|: to first order, how much the loss changes when the weight goes.

    Raises:
        ValueError: a weight without gradient (the message names it).

    Source: Molchanov et al. 2019, arXiv 1906.10771. Deviates: not squared, which orders alike and
    does not underflow.
    """
    grads = _each(view, view.grads, "gradient", "call backward() before the masks are updated")
    return {name: (weight * grads[name]).abs() for name, weight in view.weights.items()}


def sign_aware(view: View) -> dict[str, Tensor]:
    """Distance from zero by rank, positive and negative weights taken in turn.

    Dropping the n smallest scores removes the ceil(n/2) smallest positive weights and the
    floor(n/2) negative ones closest to zero; where one sign runs out, the other gives the rest.

    Returns:
        name -> int64: -1 for a zero weight, 2 * rank for a positive one, 2 * rank + 1 for a
        negative one; of equal weights the lower flat index has the higher rank.

    Source: Mocanu et al. 2018 (SET), arXiv 1707.04780. Deviates: exactly n go, where taking
    ceil(n/2) of each sign removes one more for odd n; active zeros go first.
    """
    return {name: _signed_rank(weight) for name, weight in view.weights.items()}


def random(view: View) -> dict[str, Tensor]:
    """Uniform in [0, 1), float32, drawn on the CPU so that every device and rank sees the same."""
    return {
        name: torch.rand(weight.shape, generator=view.generator).to(weight.device)
        for name, weight in view.weights.items()
    }


def _signed_rank(weight: Tensor) -> Tensor:
    # Backwards, so that a stable sort ranks the higher flat index lower: it is dropped first.
    flat = weight.detach().flatten().flip(0)
    order = flat.abs().argsort(stable=True)
    ordered = flat[order]
    scores = torch.full_like(order, -1)
    for offset, same in enumerate((ordered > 0, ordered < 0)):
        rank = same.cumsum(0) - 1
        scores[order] = torch.where(same, 2 * rank + offset, scores[order])
    return scores.flip(0).view(weight.shape)


def _each(view: View, found: Tensors, what: str, hint: str) -> Tensors:
    """What was found, if it was for every weight."""
    if missing := [name for name in view.weights if name not in found]:
        raise ValueError(f"no {what} for {', '.join(missing)}; {hint}.")
    return {name: found[name] for name in view.weights}
