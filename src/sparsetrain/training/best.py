"""The best epoch so far, among the sparsest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .. import sharded


@dataclass(frozen=True)
class Best:
    """One epoch's network.

    Attributes:
        epoch: from 1.
        sparsity: of the network then.
        accuracy: that it was chosen by.
        weights: its `state_dict`, copied; empty where only the number matters.
    """

    epoch: int
    sparsity: float
    accuracy: float
    weights: dict[str, Tensor]

    def state_dict(self) -> dict[str, Any]:
        """Its fields."""
        return dict(vars(self))


def better(
    best: Best | None, *, epoch: int, sparsity: float, accuracy: float, model: nn.Module | None
) -> Best:
    """The better of the best so far and a new epoch; on a tie the later one.

    A sparser network beats any accuracy: before the target sparsity is reached, no epoch is an
    answer to what was asked.

    Args:
        model: its weights are copied if it wins; None copies none.
    """
    if best is not None and (sparsity, accuracy) < (best.sparsity, best.accuracy):
        return best
    weights = (
        {}
        if model is None
        else {name: tensor.clone() for name, tensor in sharded.model_state(model).items()}
    )
    return Best(epoch, sparsity, accuracy, weights)
