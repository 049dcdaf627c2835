"""An in-loop method as a plan: one phase, all decisions within the epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ... import methods
from ...sparsifier import Sparsifier
from ..config import TrainConfig
from .base import Phase


class SinglePlan:
    """An in-loop method: one phase."""

    def __init__(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer, *, steps: int
    ) -> None:
        options = {
            field.name: getattr(config.options, field.name)
            for field in dataclasses.fields(config.options)
        }
        method = methods.create(
            config.sparse.method, sparsity=config.sparse.sparsity, total_steps=steps, **options
        )
        self.phase = Phase("train", first=0, epochs=config.optim.epochs, scheduled=True)
        self._sparsifier = Sparsifier(model, optimizer, method, seed=config.run.seed)

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """The engine's masks."""
        return self._sparsifier.masks

    @property
    def sparsity(self) -> float:
        """The engine's sparsity."""
        return self._sparsifier.sparsity

    def end_epoch(
        self, epoch: int, accuracy: float, evaluate: Callable[[nn.Module], float]
    ) -> dict[str, float]:
        """Nothing to decide; the method acts within the epoch."""
        return {}

    def end_after(self, epoch: int) -> int:
        """As many as asked for."""
        return self.phase.epochs

    def facts(self) -> dict[str, Any]:
        """Nothing beyond the masks."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """The engine's."""
        return self._sparsifier.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The engine's."""
        self._sparsifier.load_state_dict(state)

    def finalize(self) -> None:
        """The engine's."""
        self._sparsifier.finalize()
