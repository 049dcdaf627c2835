"""Iterative magnitude pruning as a plan: a dense training, then one a round, each a phase."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from ...data.deal import Feed
from ...imp import IMP
from ...imp_rule import ImpRule
from ...sparsifier import Sparsifier
from ..config import TrainConfig
from ..options import ImpOptions
from .base import Phase

_log = logging.getLogger(__name__)

# Fewer, and a training from its start, or from a point near it, ends near chance.
_FEW_EPOCHS = 5


class ImpPlan:
    """Iterative magnitude pruning: each training is a phase with the whole schedule."""

    def __init__(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer, train: Feed
    ) -> None:
        rule = imp_rule(config, steps=len(train))
        warn_of_short_trainings(rule)
        self._imp = IMP(
            model,
            optimizer,
            sparsity=rule.sparsity,
            epochs_per_round=rule.epochs_per_round,
            final_epochs=rule.final_epochs,
            rounds=rule.rounds,
            fraction=rule.fraction,
            rewind=rule.rewind,
            include=config.sparse.include or None,
            exclude=config.sparse.exclude,
        )

    @property
    def phase(self) -> Phase:
        """The training that the next epoch belongs to."""
        rule, number = self._imp.rule, self._imp.round
        name = f"round {number}" if number else "dense"
        return Phase(name, number * rule.epochs_per_round, rule.epochs(number), scheduled=True)

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """IMP's masks, all active before the first round."""
        return self._imp.masks

    @property
    def engine(self) -> IMP:
        """What keeps the masks."""
        return self._imp

    @property
    def sparsity(self) -> float:
        """IMP's sparsity, 0 before the first round."""
        return self._imp.sparsity

    @property
    def sparsifier(self) -> Sparsifier:
        """IMP's engine of the phase."""
        return self._imp.sparsifier

    def end_epoch(
        self, epoch: int, accuracy: float, evaluate: Callable[[nn.Module], float]
    ) -> dict[str, float]:
        """Prune and rewind where a round ends."""
        self._imp.epoch_end(accuracy, evaluate)
        return {}

    def end_after(self, epoch: int) -> int:
        """All trainings together."""
        return self._imp.rule.total_epochs

    def facts(self) -> dict[str, Any]:
        """How the run was divided."""
        rule = self._imp.rule
        return {
            "rounds": rule.total_rounds,
            "epochs_per_round": rule.epochs_per_round,
            "final_epochs": rule.epochs(rule.total_rounds),
            "rewind": rule.rewind,
        }

    @property
    def update_seconds(self) -> float:
        """None: IMP decides between epochs."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """IMP's."""
        return self._imp.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """IMP's."""
        self._imp.load_state_dict(state)

    def finalize(self) -> None:
        """Take the hooks off; the zeros stay."""
        self._imp.finalize()


def imp_rule(config: TrainConfig, *, steps: int) -> ImpRule:
    """IMP's constants, `epochs` shared out among its trainings.

    Args:
        config: resolved settings with IMP's options.
        steps: optimizer steps of an epoch.
    Raises:
        ValueError: an option out of range, or fewer epochs than trainings.
    """
    options: ImpOptions = config.options
    each = options.epochs_per_round
    rule = ImpRule(
        sparsity=config.sparse.sparsity,
        epochs_per_round=1 if each is None else each,
        rounds=options.rounds,
        fraction=options.fraction,
        rewind=_step(options, steps) if options.rewind == "epoch" else options.rewind,
    )
    if each is not None:
        _check_rewind(options, rule)
        return rule
    total, trainings = config.optim.epochs, rule.total_rounds + 1
    if total < trainings:
        raise ValueError(
            f"epochs must be at least {trainings}, one for each training of imp at sparsity "
            f"{rule.sparsity:g}, got {total}; raise epochs, or give fewer rounds"
        )
    each = total // trainings
    shared = replace(rule, epochs_per_round=each, final_epochs=total - rule.total_rounds * each)
    _check_rewind(options, shared)
    return shared


def warn_of_short_trainings(rule: ImpRule) -> None:
    """Say so where trainings are too short to learn from the weights they go back to."""
    each, trainings, total = rule.epochs_per_round, rule.total_rounds + 1, rule.total_epochs
    # With learning-rate the weights stay, so that a short training goes on from the one before.
    if each >= _FEW_EPOCHS or rule.total_rounds == 0 or rule.rewind == "learning-rate":
        return
    given = f"fraction={rule.fraction:g}" if rule.rounds is None else f"rounds={rule.rounds}"
    moves = f"take {_FEW_EPOCHS * trainings} epochs in all"
    if (rounds := total // _FEW_EPOCHS - 1) >= 1:
        share = math.ceil(100 * (1 - (1 - rule.sparsity) ** (1 / rounds))) / 100
        moves += f", or fewer rounds: rounds={rounds}, or fraction={share:g}"
    _log.warning(
        f"imp at {given} is {trainings} trainings and gives each {each} of {total} epochs; with "
        f"fewer than {_FEW_EPOCHS} they end near chance: {moves}."
    )


def _step(options: ImpOptions, steps: int) -> int:
    if not 0 <= options.rewind_epoch < math.inf:
        raise ValueError(f"rewind_epoch must be 0 or more, got {options.rewind_epoch:g}")
    return round(options.rewind_epoch * steps)


def _check_rewind(options: ImpOptions, rule: ImpRule) -> None:
    """Raise ValueError if the dense training ends before the epoch to go back to."""
    if options.rewind == "epoch" and options.rewind_epoch > rule.epochs_per_round:
        raise ValueError(
            f"rewind_epoch must be within the dense training of {rule.epochs_per_round} epochs, "
            f"got {options.rewind_epoch:g}; lower it, or raise epochs"
        )
