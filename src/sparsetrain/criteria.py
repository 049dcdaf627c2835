"""What makes a weight worth keeping: functions from a View to scores, the larger the better."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from . import sharded
from .types import Tensors, View


class _Scores(Mapping[str, Tensor]):
    """name -> score, made anew at each reading.

    Reading scores layer by layer keeps them in the cache: the pass over 25 M weights takes 4 ms,
    where a copy of them all takes 40 ms and 100 MB.
    """

    def __init__(self, score: Callable[..., Tensor], *values: Tensors) -> None:
        self._score, self._values = score, values

    def __getitem__(self, name: str) -> Tensor:
        return self._score(*(values[name] for values in self._values))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values[0])

    def __len__(self) -> int:
        return len(self._values[0])


_BACKWARD = (
    "call backward() before the masks are updated, or leave out with exclude=[…] what the loss "
    "does not depend on"
)


def magnitude(view: View) -> Tensors:
    """|w| of every weight.

    Source: Han et al. 2015, arXiv 1506.02626.
    """
    return _Scores(torch.abs, view.weights)


def gradient(view: View) -> Tensors:
    """|dL/dw| of the last backward, dense: also where the weight is pruned.

    Raises:
        ValueError: a weight without gradient (the message names it).

    Source: Evci et al. 2020 (RigL), arXiv 1911.11134.
    """
    grads = _each(view, view.grads, "gradient", _BACKWARD)
    return _Scores(torch.abs, grads)


def momentum(view: View) -> Tensors:
    """|first moment| that the optimizer keeps: SGD's momentum buffer, Adam's `exp_avg`.

    Raises:
        ValueError: a weight without it (the message names it).

    Source: Dettmers & Zettlemoyer 2019, arXiv 1907.04840.
    """
    hint = "use an optimizer with momentum, and take a step before the masks are updated"
    return _Scores(torch.abs, _each(view, view.momenta, "first moment", hint))


def taylor(view: View) -> Tensors:
    """|w dL/dw|: to first order, how much the loss changes when the weight goes.

    Raises:
        ValueError: a weight without gradient (the message names it).

    Source: Molchanov et al. 2019, arXiv 1906.10771. Deviates: not squared, which orders alike and
    does not underflow.
    """
    grads = _each(view, view.grads, "gradient", _BACKWARD)
    return _Scores(lambda weight, grad: (weight * grad).abs(), view.weights, grads)


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
    return {name: sharded.whole(_signed_rank, weight) for name, weight in view.weights.items()}


def random(view: View) -> dict[str, Tensor]:
    """Uniform in [0, 1), float32, drawn on the CPU so that every device and rank sees the same.

    A sharded weight's rank draws the whole layer and keeps its rows.
    """
    return {name: _uniform_like(weight, view.generator) for name, weight in view.weights.items()}


def _uniform_like(weight: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(weight.shape, generator=generator)
    if sharded.is_sharded(weight):
        return sharded.place(drawn, weight)
    # In the weight's memory format: mixing formats makes every later pass three times slower.
    return torch.empty_like(weight, dtype=drawn.dtype).copy_(drawn)


def _signed_rank(weight: Tensor) -> Tensor:
    flat = weight.detach().flatten()
    # Backwards, so that a stable sort ranks the higher flat index lower: it is dropped first.
    # Zeros need no rank, and in a sparse network they are most of what a sort would move.
    place = flat.nonzero().squeeze(1).flip(0)
    place = place[flat[place].abs().argsort(stable=True)]
    scores = torch.full(flat.shape, -1, device=flat.device)
    for offset, sign in enumerate((1, -1)):
        same = place[sign * flat[place] > 0]
        scores[same] = 2 * torch.arange(len(same), device=flat.device) + offset
    return scores.view(weight.shape)


def _each(view: View, found: Tensors, what: str, hint: str) -> Tensors:
    """What was found, if it was for every weight."""
    if missing := [name for name in view.weights if name not in found]:
        raise ValueError(f"no {what} for {', '.join(missing)}; {hint}.")
    return {name: found[name] for name in view.weights}
