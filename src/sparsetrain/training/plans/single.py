"""One phase under one Sparsifier, and the in-loop methods as that."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ... import methods
from ...data.deal import Feed
from ...sparsifier import Sparsifier
from ...types import Method
from ..config import TrainConfig
from .base import Phase
from .regrown_start import first_gradient


def in_loop_plan(
    config: TrainConfig, model: nn.Module, optimizer: Optimizer, train: Feed, whole: nn.Module
) -> SinglePlan:
    """The plan of an in-loop method, attached.

    Raises:
        ValueError: options the method does not take, or nothing prunable.
    """
    options = {
        field.name: getattr(config.options, field.name)
        for field in dataclasses.fields(config.options)
    }
    kind = methods.get(config.sparse.method).make
    known = {field.name for field in dataclasses.fields(kind)} if kind is not None else set()
    if "compat" in known:
        options["compat"] = config.sparse.compat  # the published counts and ties too, as ART's
    steps = config.optim.epochs * len(train)
    method = methods.create(
        config.sparse.method, sparsity=config.sparse.sparsity, total_steps=steps, **options
    )
    if options.get("start_mask") != "pruned-and-regrown":
        return SinglePlan(config, attach(config, model, optimizer, method))
    with first_gradient(config, model, train, whole) as images:
        sparsifier = attach(config, model, optimizer, method)
    return SinglePlan(config, sparsifier, {"scored_images": images})


def attach(
    config: TrainConfig, model: nn.Module, optimizer: Optimizer, method: Method
) -> Sparsifier:
    """The engine over the weights that the settings choose, with the run's seed."""
    return Sparsifier(
        model,
        optimizer,
        method,
        seed=config.run.seed,
        include=config.sparse.include or None,
        exclude=config.sparse.exclude,
    )


class SinglePlan:
    """One phase under one Sparsifier; all decisions fall within the epochs.

    Args:
        sparsifier: attached already.
        facts: what the record gains.
    """

    def __init__(
        self,
        config: TrainConfig,
        sparsifier: Sparsifier,
        facts: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.phase = Phase("train", first=0, epochs=config.optim.epochs, scheduled=True)
        self.sparsifier, self._facts = sparsifier, facts

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """The engine's masks."""
        return self.sparsifier.masks

    @property
    def engine(self) -> Sparsifier:
        """What keeps the masks."""
        return self.sparsifier

    @property
    def sparsity(self) -> float:
        """The engine's sparsity."""
        return self.sparsifier.sparsity

    def end_epoch(
        self, epoch: int, accuracy: float, evaluate: Callable[[nn.Module], float]
    ) -> dict[str, float]:
        """Nothing to decide; the method acts within the epoch."""
        return {}

    def end_after(self, epoch: int) -> int:
        """As many as asked for."""
        return self.phase.epochs

    def facts(self) -> dict[str, Any]:
        """What was known at the start."""
        return dict(self._facts)

    @property
    def update_seconds(self) -> float:
        """The engine's."""
        return self.sparsifier.update_seconds

    def state_dict(self) -> dict[str, Any]:
        """The engine's."""
        return self.sparsifier.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The engine's."""
        self.sparsifier.load_state_dict(state)

    def finalize(self) -> None:
        """The engine's."""
        self.sparsifier.finalize()
