"""When ART goes from phase to phase: a pure function of the accuracies seen so far."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

Phase: TypeAlias = Literal["dense", "regularize", "finetune", "done"]
Outcome: TypeAlias = Literal["converged", "cap", "collapsed"]
Compat: TypeAlias = Literal["none", "paper"] | None


@dataclass(frozen=True)
class ArtRule:
    """The constants of one ART run.

    Attributes:
        dense_epochs: epochs of the dense phase, 0 for a network that is trained already.
        finetune_epochs: epochs of the fine-tuning phase, 0 to stop at the pruned network.
        max_regularize_epochs: cap of the regularising phase, at least 1.
        window: pruned accuracies that are averaged, odd, so that the window has a centre.
        collapse: dense accuracy below this share of its own peak is a collapse, not a success.
        doubt: below this share of the peak it is one too, unless the pruned copy has come up by
            at least as much as the dense network has come down.
        compat: "paper" takes the published decisions, faults included.
    """

    dense_epochs: int
    finetune_epochs: int
    max_regularize_epochs: int
    window: int = 3
    collapse: float = 0.5
    doubt: float = 0.8
    compat: Compat = None

    def __post_init__(self) -> None:
        smallest = {
            "dense_epochs": 0,
            "finetune_epochs": 0,
            "max_regularize_epochs": 1,
            "window": 1,
        }
        for name, least in smallest.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an int of at least {least}, got {value!r}")
        if self.window % 2 == 0:
            raise ValueError(
                f"window must be odd, to have a centre, got {self.window}; try {self.window + 1}"
            )
        if self.compat not in (None, "none", "paper"):
            raise ValueError(f"compat must be None, 'none' or 'paper', got {self.compat!r}")


@dataclass(frozen=True)
class Candidate:
    """A pruned copy: its regularising epoch (1 is the first), accuracy, and its window's mean."""

    epoch: int
    accuracy: float
    mean: float


@dataclass(frozen=True)
class ArtState:
    """Where a run stands; plain numbers only.

    Attributes:
        phase: the phase that the next epoch belongs to.
        epoch: epochs finished in that phase.
        window: the last pruned accuracies as (regularising epoch, accuracy), oldest first.
        best: the pruned copy with the best window so far.
        dense_peak: the best dense training accuracy seen.
        first_pruned: the pruned accuracy of the first regularising epoch.
        outcome: why the regularising phase ended; None before.
        chosen: the regularising epoch whose pruned copy is fine-tuned; None before.
    """

    phase: Phase = "dense"
    epoch: int = 0
    window: tuple[tuple[int, float], ...] = ()
    best: Candidate | None = None
    dense_peak: float = 0.0
    first_pruned: float | None = None
    outcome: Outcome | None = None
    chosen: int | None = None

    @property
    def window_mean(self) -> float:
        """Mean pruned accuracy over the window, NaN when it is empty."""
        return sum(a for _, a in self.window) / len(self.window) if self.window else math.nan


def start(rule: ArtRule) -> ArtState:
    """The state before the first epoch."""
    return ArtState(phase="dense" if rule.dense_epochs else "regularize")


def transition(
    rule: ArtRule, state: ArtState, dense_accuracy: float, pruned_accuracy: float | None = None
) -> ArtState:
    """The state after one more epoch.

    Args:
        rule: the run's constants.
        state: the state before the epoch.
        dense_accuracy: training accuracy of the epoch, in any unit that `pruned_accuracy` shares.
        pruned_accuracy: training accuracy of the pruned copy; needed while regularising.
    Returns:
        The new state. Regularising ends with outcome "converged" when the mean over the current
        full window reaches the current dense accuracy, "collapsed" when it is rather the dense
        network that came down (see `ArtRule`), which chooses the best window so far, and "cap"
        after `max_regularize_epochs`, which chooses the most accurate copy of the last and of the
        best window: a copy that still gets better is best at the end, not in its window's middle.
    Raises:
        ValueError: an accuracy is not a finite number of at least 0 or missing, or the run is done.
    Source: arXiv 2308.07163 and its code. Deviates, unless compat is "paper": window means are
        compared with window means, the current window decides, and the phase has an end.
    """
    if state.phase == "done":
        raise ValueError("the run is done; start a new one to train on")
    _check_accuracy("train_accuracy", dense_accuracy)
    state = replace(state, epoch=state.epoch + 1, dense_peak=max(state.dense_peak, dense_accuracy))
    if state.phase == "dense":
        return _enter(state, "regularize") if state.epoch >= rule.dense_epochs else state
    if state.phase == "finetune":
        return _enter(state, "done") if state.epoch >= rule.finetune_epochs else state
    if pruned_accuracy is None:
        raise ValueError("pruned_accuracy is needed in the regularising phase, got None")
    _check_accuracy("the pruned copy's accuracy", pruned_accuracy)
    return _regularized(rule, state, dense_accuracy, pruned_accuracy)


def _regularized(rule: ArtRule, state: ArtState, dense: float, pruned: float) -> ArtState:
    window = (*state.window, (state.epoch, pruned))[-rule.window :]
    first = pruned if state.first_pruned is None else state.first_pruned
    epoch, accuracy = window[min(len(window) - 1, rule.window // 2)]
    state = replace(state, window=window, first_pruned=first)
    current = Candidate(epoch, accuracy, state.window_mean)
    paper = rule.compat == "paper"
    if paper:  # a mean against the single accuracy of the stored element, 0 at first
        better = current.mean > (state.best.accuracy if state.best else 0.0)
    else:
        better = state.best is None or current.mean > state.best.mean
    best = current if better else state.best
    state = replace(state, best=best)
    if paper:
        if best is not None and best.mean > dense:
            return _finish(rule, state, "converged", best.epoch)
    elif dense < rule.collapse * state.dense_peak:
        return _finish(rule, state, "collapsed", (best or current).epoch)
    elif len(window) == rule.window and current.mean >= dense:
        if _came_down(rule, state, dense, current.mean):
            return _finish(rule, state, "collapsed", (best or current).epoch)
        return _finish(rule, state, "converged", current.epoch)
    if state.epoch >= rule.max_regularize_epochs:
        chosen = (best or current).epoch if paper else _most_accurate(state)
        return _finish(rule, state, "cap", chosen)
    return state


def _most_accurate(state: ArtState) -> int:
    """The epoch of the best pruned copy of those that are held; the earliest of equal ones."""
    held = dict(state.window)
    held |= {state.best.epoch: state.best.accuracy} if state.best else {}
    return min(held, key=lambda epoch: (-held[epoch], epoch))


def _came_down(rule: ArtRule, state: ArtState, dense: float, mean: float) -> bool:
    """Whether they met because the dense accuracy fell, not because the pruned one rose."""
    rose = mean - (state.first_pruned if state.first_pruned is not None else mean)
    return dense < rule.doubt * state.dense_peak and rose < state.dense_peak - dense


def _finish(rule: ArtRule, state: ArtState, outcome: Outcome, chosen: int) -> ArtState:
    state = replace(state, outcome=outcome, chosen=chosen)
    return _enter(state, "finetune" if rule.finetune_epochs else "done")


def _enter(state: ArtState, phase: Phase) -> ArtState:
    return replace(state, phase=phase, epoch=0)


def _check_accuracy(name: str, value: float) -> None:
    if not math.isfinite(value):
        raise ValueError(
            f"{name} must be a finite number, got {value}; the training has failed, lower the "
            "learning rate or the regulariser's strength"
        )
    if value < 0:
        raise ValueError(
            f"{name} must be at least 0, got {value}: ART compares shares of it. Give an accuracy, "
            "or another score of which more is better, such as exp(-loss)"
        )
