"""Plans: what differs between methods in the one loop, a file a family."""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from ... import methods
from ...data.deal import Feed
from ..config import TrainConfig
from .art import ArtPlan
from .at_init import at_init_plan
from .base import Phase as Phase
from .base import Plan as Plan
from .imp import ImpPlan
from .single import in_loop_plan


def make_plan(
    config: TrainConfig,
    model: nn.Module,
    optimizer: Optimizer,
    train: Feed,
    whole: nn.Module | None = None,
) -> Plan:
    """Attach the method that the settings name.

    Args:
        config: resolved settings.
        train: for the number of steps, the images to score on, and ART's batch-norm recalibration;
            all processes' images, so that each scores alike.
        whole: the network before it was sharded, for scores; None: `model` is not.
    Raises:
        ValueError: options the method does not take, or nothing prunable.
    """
    name = config.sparse.method
    family = methods.get(name).family
    if family == "phases":
        plan = {"art": ArtPlan, "imp": ImpPlan}[name]
        return plan(config, model, optimizer, train)
    if family == "at-init":
        return at_init_plan(config, model, optimizer, train, whole or model)
    return in_loop_plan(config, model, optimizer, train, whole or model)
