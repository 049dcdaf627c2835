"""Iterative magnitude pruning as arithmetic: the rounds, the weights left after each, what next."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, TypeAlias

from .masks import check_sparsity, kept

Phase: TypeAlias = Literal["dense", "sparse", "done"]
Rewind: TypeAlias = Literal["start", "learning-rate"] | int
"""Where the weights go back to: their start, their value after step k, or nowhere."""


@dataclass(frozen=True)
class ImpRule:
    """The constants of one run of iterative magnitude pruning.

    A round is one pruning and the training after it; a dense training comes first, so there are
    `total_rounds` + 1 trainings.

    Attributes:
        sparsity: fraction of zeros after the last round.
        epochs_per_round: epochs of each training, the dense one too.
        final_epochs: epochs of the last training; None is `epochs_per_round`.
        rounds: prunings, in equal shares; None is as many as `fraction` needs.
        fraction: of the weights that are left, removed each round; not used where `rounds` is
            given. The last round removes what `sparsity` asks for.
        rewind: "start", "learning-rate" (weights stay), or k: their value after optimizer step k.
    """

    sparsity: float
    epochs_per_round: int
    final_epochs: int | None = None
    rounds: int | None = None
    fraction: float = 0.2
    rewind: Rewind = "start"

    def __post_init__(self) -> None:
        check_sparsity(self.sparsity)
        for name in ("epochs_per_round", "final_epochs", "rounds"):
            value = getattr(self, name)
            if value is None and name != "epochs_per_round":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be an int of at least 1, got {value!r}")
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must be in (0, 1), got {self.fraction}; 0.2 is usual")
        step = isinstance(self.rewind, int) and not isinstance(self.rewind, bool)
        if not (step and int(self.rewind) >= 0) and self.rewind not in ("start", "learning-rate"):
            raise ValueError(
                "rewind must be 'start', 'learning-rate' or an optimizer step, 0 or more, "
                f"got {self.rewind!r}"
            )

    @property
    def total_rounds(self) -> int:
        """How many prunings there are: the least r with (1 - fraction)^r <= 1 - sparsity."""
        if self.rounds is not None:
            return self.rounds
        share, target = 1 - _exact(self.fraction), 1 - _exact(self.sparsity)
        count = max(0, math.floor(math.log(target) / math.log(share)) - 1)
        # Fractions decide: 0.8^2 is 0.64 and not a hair above it.
        while share**count > target:
            count += 1
        return count

    def epochs(self, round_number: int) -> int:
        """Epochs of the training after `round_number` prunings."""
        if round_number == self.total_rounds and self.final_epochs is not None:
            return self.final_epochs
        return self.epochs_per_round

    @property
    def total_epochs(self) -> int:
        """Epochs of all trainings together."""
        return self.total_rounds * self.epochs_per_round + self.epochs(self.total_rounds)

    def kept(self, n: int, round_number: int) -> int:
        """How many of `n` weights are left after `round_number` prunings.

        Returns:
            (1 - fraction)^r n cut upwards, or equal shares where `rounds` is given; after the last
            round exactly `masks.kept(n, sparsity)`.
        """
        target = kept(n, self.sparsity)
        if round_number >= self.total_rounds:
            return target
        if self.rounds is None:
            return max(target, math.ceil((1 - _exact(self.fraction)) ** round_number * n))
        return max(target, round(n * (target / n) ** (round_number / self.rounds)))


@dataclass(frozen=True)
class ImpState:
    """Where a run stands; plain numbers only.

    Attributes:
        round: prunings so far.
        epoch: epochs finished since the last of them.
        done: the last training is over.
    """

    round: int = 0
    epoch: int = 0
    done: bool = False


def transition(rule: ImpRule, state: ImpState) -> ImpState:
    """The state after one more epoch.

    Returns:
        The next epoch of the same training; or, with `round` one higher, the start of the next
        one, for which the weights are to be pruned; or the end.
    Raises:
        ValueError: the run is done.
    Source: Frankle & Carbin 2019, arXiv 1803.03635; Renda et al. 2020, arXiv 2003.02389.
    """
    if state.done:
        raise ValueError("the run is done; start a new one to train on")
    state = replace(state, epoch=state.epoch + 1)
    if state.epoch < rule.epochs(state.round):
        return state
    if state.round < rule.total_rounds:
        return ImpState(round=state.round + 1)
    return replace(state, done=True)


def _exact(value: float) -> Fraction:
    """A float as the decimal it is written as: 0.1 is a tenth."""
    return Fraction(repr(float(value)))
