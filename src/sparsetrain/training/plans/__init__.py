"""Plans: what differs between methods in the one loop, a file a family."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from ...data.loader import Loader
from ..config import TrainConfig
from .art import ArtPlan
from .base import Phase as Phase
from .base import Plan as Plan
from .single import SinglePlan


def make_plan(config: TrainConfig, model: nn.Module, optimizer: Optimizer, train: Loader) -> Plan:
    """Attach the method that the settings name.

    Args:
        config: resolved settings.
        train: for the number of steps, and for ART's batch-norm recalibration.
    Raises:
        ValueError: options the method does not take, or nothing prunable.
    """
    if config.sparse.method == "art":
        return ArtPlan(config, model, optimizer, train)
    return SinglePlan(config, model, optimizer, steps=config.optim.epochs * len(train))
