"""GMP: gradual magnitude pruning, the baseline that is hardest to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final, get_args

from .. import masks as mask_algebra
from .. import schedules
from ..patterns import Pattern, Scope
from ..types import Distribution, Masks, Memory, View
from . import published
from .gradual import check_channels, prune_to
from .options import (
    check_choice,
    check_compat,
    check_fraction,
    check_gradual,
    check_total_steps,
    interval_of,
    option,
    step_of,
)
from .start import DistributionName, StartMask, check_start, fresh_weights, start_masks


@final
@dataclass(frozen=True)
class GMP:
    """The smallest weights go bit by bit, s(t) = s_f + (s_i - s_f)(1 - u)^3, and stay away.

    Args:
        sparsity: fraction of zeros from `stop` on.
        total_steps: optimizer steps of the whole training.
        initial_sparsity: zeros at step 0; 0 is a dense start.
        update_every: steps between two prunings; None is `schedules.default_interval`.
        start: u is 0 up to this step (int) or fraction of the training (float).
        stop: u is 1 from this step or fraction on.
        scope: rank all weights together, or prune each layer to the same sparsity.
        classifier_sparsity: with scope "layer", the most that the last selected layer is pruned
            to; 0.8 is the rule of Gale et al. None treats it like the others.
        distribution: kept weights of each layer at the start, if the start is not dense.
        start_mask: the largest weights of each layer, random ones, or as `start_masks` says.
        pattern: "channel" prunes whole output channels, see `patterns.keep_units`.
        compat: "paper" counts, ties and ends as GraNet's published code does, see `published`; with
            global scope.
    Raises:
        ValueError: an option out of range, or two that make no sense together.
    Source: Zhu & Gupta 2017, arXiv 1710.01878; Gale et al. 2019, arXiv 1902.09574. Deviates: pruned
    weights get no update and do not come back; counts are exact.
    """

    sparsity: float
    total_steps: int
    initial_sparsity: float = option(0.0, "fraction of zeros at the start; 0: dense")
    update_every: int | None = option(
        None, "optimizer steps between mask updates; default: 100, less in short trainings"
    )
    start: float = option(0.0, "pruning begins after this step, or this fraction of the training")
    stop: float = option(0.75, "the final sparsity is reached at this step or fraction")
    scope: Literal["global", "layer"] = option("global", "rank all weights together or by layer")
    classifier_sparsity: float | None = option(
        None, "with scope=layer: most zeros in the last layer; 0.8 is published"
    )
    distribution: DistributionName | Distribution = option(
        "erk", "kept weights of each layer at a sparse start"
    )
    start_mask: StartMask = option("pruned", "positions at a sparse start")
    pattern: Pattern = option("unstructured", "prune single weights or whole output channels")
    compat: Literal["none", "paper"] | None = "none"

    def __post_init__(self) -> None:
        mask_algebra.check_sparsity(self.sparsity)
        check_total_steps(self.total_steps)
        check_gradual(self.initial_sparsity, self.sparsity)
        check_choice("scope", self.scope, get_args(Scope))
        check_start(self, sparsity=self.initial_sparsity)
        check_compat(self.compat, (self.scope, self.pattern), ("global", "unstructured"))
        self._every(0)
        if self.classifier_sparsity is not None:
            self._check_classifier(self.classifier_sparsity)

    @property
    def start_step(self) -> int:
        """Optimizer step after which pruning begins."""
        return step_of("start", self.start, self.total_steps)

    @property
    def stop_step(self) -> int:
        """Optimizer step of the last pruning."""
        return step_of("stop", self.stop, self.total_steps)

    def sparsity_at(self, step: int) -> float:
        """The cubic schedule of the fraction of zeros."""
        initial = self.initial_sparsity
        if self.compat == "paper":
            return self._window.sparsity_at(step, initial, self.sparsity)
        return schedules.cubic(initial, self.sparsity, self.start_step, self.stop_step)(step)

    def init(self, view: View) -> tuple[Masks, Memory]:
        """Dense, or masks with exactly `kept(N, initial_sparsity)` weights."""
        check_channels(view, self.sparsity, self.scope, self.pattern)
        masks = start_masks(
            view,
            self.sparsity_at(0),
            distribution=self.distribution,
            start_mask=self.start_mask,
            pattern=self.pattern,
        )
        return masks, {}

    def fresh(self, view: View, masks: Masks) -> Masks:
        """Weights of `init`'s masks that start at 0; see `fresh_weights`."""
        if self.sparsity_at(0) == 0:
            return {}
        return fresh_weights(view, masks, start_mask=self.start_mask, pattern=self.pattern)

    def when(self, step: int) -> bool:
        """At each multiple of `update_every` in [start, stop], and at stop."""
        if self.compat == "paper":
            window = self._window
            return window.start <= step <= window.stop and step % window.interval == 0
        return self._every(step)

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Drop the smallest weights until the schedule's number is left."""
        if self.compat == "paper":
            return self._window.prune(view, masks, self.sparsity_at(view.step)), memory
        new = prune_to(
            view,
            masks,
            self.sparsity_at(view.step),
            self.scope,
            classifier_sparsity=self.classifier_sparsity,
            pattern=self.pattern,
        )
        return new, memory

    @property
    def _window(self) -> published.Window:
        interval = interval_of(self.update_every, self.total_steps)
        return published.Window(interval, self.start_step, self.stop_step)

    def _every(self, step: int) -> bool:
        interval = interval_of(self.update_every, self.total_steps)
        return schedules.Every(interval, self.start_step, self.stop_step)(step)

    def _check_classifier(self, sparsity: float) -> None:
        check_fraction("classifier_sparsity", sparsity)
        if self.scope != "layer":
            raise ValueError(
                f"classifier_sparsity={sparsity} needs scope='layer': a global ranking decides "
                "the classifier's count by itself"
            )
        if self.pattern == "channel":
            raise ValueError(
                f"classifier_sparsity={sparsity} with pattern='channel' makes no sense: the "
                "classifier's channels are the classes, so it is left whole"
            )
