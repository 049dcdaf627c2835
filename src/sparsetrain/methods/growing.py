"""What all methods that drop and grow share: their options, and how the parts are called."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from torch import Tensor

from .. import masks as mask_algebra
from .. import schedules
from ..patterns import Pattern
from ..types import Distribution, Masks, Memory, View
from .apportion import Redistribution
from .options import check_choice, check_fraction, check_total_steps, interval_of, option, step_of
from .regrow import DropRule, GrowthRule, Regrow
from .start import (
    DistributionName,
    StartMask,
    check_start,
    fresh_weights,
    given_masks,
    start_masks,
)

FLOOR = 0.005
"""Drop fraction at the end of a cosine that is published with a floor."""

_NO_START = (
    "; a dense start makes sense where weights are pruned in training: "
    "st.methods.granet(initial_sparsity=0.0) or st.methods.gmp()"
)


@dataclass(frozen=True)
class Growing(ABC):
    """A method that drops and grows; each one is its defaults and its course over time.

    Args:
        sparsity: fraction of zeros over all selected weights at the end.
        total_steps: optimizer steps of the whole training.
        update_every: steps between two updates; None is `schedules.default_interval`.
        start: no update before this step (int) or fraction of the training (float).
        stop: last update, likewise.
        drop_fraction: fraction of each layer's weights that the first updates move.
        drop: which weights go, see `Regrow`.
        growth: which come. "momentum" keeps an average of the dense gradient: one more float32
            buffer of the network's size, and a dense gradient and one pass over it every step.
        redistribution: which layers grow; "momentum" costs the same buffer.
        distribution: kept weights of each layer at the start; a name, or a function such as
            `st.distributions.given({…})`.
        start_mask: random positions, the largest weights of each layer or of all, or
            "pruned-and-regrown": `drop_fraction` of each layer's count is regrown by gradient and
            starts at 0, see `start_masks`.
        threshold: weights no larger go; with drop="threshold" alone, instead of `drop_fraction`.
        ema_decay: decay a step of the averaged gradient.
        pattern: "channel" moves whole output channels, see `patterns`: by the sums of their
            weights' scores, and each layer's number of them stays. Behind a batch norm the
            gradient of a channel that has long been zero is larger than that of one just dropped.
        revive: False grows no weight in a unit (output channel, neuron) that has none left, unless
            all others of its layer are full. Behind a batch norm, which divides by the deviation of
            a unit that gives a constant, a revived weight's gradient is some 300 times as large as
            others': its first step makes it one of the layer's largest, so it is never dropped
            again, and the weights dropped in its place leave the next units dead. At 98 % zeros and
            more this can ruin a network; the papers' methods revive.
        masks: name -> bool tensor to start from, of `st.prune`, `st.saliency` or a file; in place
            of `distribution` and `start_mask`, and with the first sparsity's exact count.
    Raises:
        ValueError: an option out of range, or two that make no sense together.
    """

    sparsity: float
    total_steps: int
    update_every: int | None = option(
        None, "optimizer steps between mask updates; default: 100, less in short trainings"
    )
    start: float = option(0.0, "no update before this step, or this fraction of the training")
    stop: float = option(1.0, "last update: a step, or a fraction of the training")
    drop_fraction: float = option(0.5, "fraction of each layer's weights that is moved at first")
    drop: Literal["magnitude", "set", "threshold", "taylor"] = option(
        "magnitude", "which active weights are dropped"
    )
    growth: Literal["gradient", "random", "momentum", "random-unfired"] = option(
        "gradient", "which inactive weights are grown"
    )
    redistribution: Literal["none", "magnitude", "momentum", "nonzeros"] = option(
        "none", "how dropped weights spread over the layers"
    )
    distribution: DistributionName | Distribution = option(
        "erk", "kept weights of each layer at the start"
    )
    start_mask: StartMask = option("random", "positions at the start: random, or the largest")
    threshold: float | None = option(None, "with drop=threshold: weights no larger are dropped")
    ema_decay: float = option(0.9, "with momentum: decay a step of the averaged gradient")
    pattern: Pattern = option("unstructured", "move single weights or whole output channels")
    revive: bool = option(True, "weights may grow in units that have none left")
    # Tensors neither compare nor hash as values do.
    masks: Mapping[str, Tensor] | None = field(default=None, compare=False)

    rounding: ClassVar[Literal["up", "down"]] = "up"

    def __post_init__(self) -> None:
        mask_algebra.check_sparsity(self.sparsity)
        check_total_steps(self.total_steps)
        check_fraction("drop_fraction", self.drop_fraction)
        check_fraction("ema_decay", self.ema_decay)
        check_choice("drop", self.drop, get_args(DropRule))
        check_choice("growth", self.growth, get_args(GrowthRule))
        check_choice("redistribution", self.redistribution, get_args(Redistribution))
        check_start(self, why_not=_NO_START)
        self._check_threshold()
        self._check_pattern()
        schedules.Every(self.interval, self.start_step, self.stop_step)

    @property
    def interval(self) -> int:
        """Optimizer steps between two updates."""
        return interval_of(self.update_every, self.total_steps)

    @property
    def start_step(self) -> int:
        """First optimizer step that may be an update."""
        return step_of("start", self.start, self.total_steps)

    @property
    def stop_step(self) -> int:
        """Optimizer step of the last update."""
        return step_of("stop", self.stop, self.total_steps)

    @property
    def observes(self) -> bool:
        """Whether a part reads the averaged gradient, so that every step must be seen."""
        return "momentum" in (self.growth, self.redistribution)

    def observe(self, view: View, memory: Memory) -> Memory:
        """Average the dense gradient where momentum growth or redistribution reads it."""
        return self._regrow.observe(view, memory)

    def _start(self, view: View, sparsity: float) -> tuple[Masks, Memory]:
        if self.masks is None:
            masks = start_masks(
                view,
                sparsity,
                distribution=self.distribution,
                start_mask=self.start_mask,
                pattern=self.pattern,
                regrown=self.drop_fraction,
            )
        else:
            masks = given_masks(self.masks, sparsity, self.pattern)
        return masks, self._regrow.memory(masks)

    def _fresh(self, view: View, masks: Masks, sparsity: float) -> Masks:
        if self.masks is not None or sparsity == 0:
            return {}
        return fresh_weights(
            view,
            masks,
            start_mask=self.start_mask,
            pattern=self.pattern,
            regrown=self.drop_fraction,
        )

    @property
    def _regrow(self) -> Regrow:
        return Regrow(
            self.drop,
            self.growth,
            self.redistribution,
            threshold=self.threshold,
            ema_decay=self.ema_decay,
            rounding=self.rounding,
            pattern=self.pattern,
            revive=self.revive,
        )

    @property
    def _growth_part(self) -> str:
        """How growth is called where the published code has no rule for it."""
        return self.growth if self.revive else f"{self.growth} without revival"

    def _check_pattern(self) -> None:
        if self.pattern != "channel":
            return
        if not self.revive:
            raise ValueError(
                "revive=False with pattern='channel' makes no sense: a channel that is grown is "
                "one without a weight; leave revive out"
            )
        if self.redistribution != "none":
            raise ValueError(
                f"redistribution={self.redistribution!r} with pattern='channel' makes no sense: "
                "channels of different layers differ in size, so that layers cannot exchange them "
                "at a constant number of weights; take redistribution='none'"
            )
        if self.drop in ("set", "threshold"):
            raise ValueError(
                f"drop={self.drop!r} with pattern='channel' makes no sense: it judges single "
                "weights; take drop='magnitude' or 'taylor'"
            )

    def _check_threshold(self) -> None:
        if (self.drop == "threshold") != (self.threshold is not None):
            raise ValueError(
                f"drop={self.drop!r} with threshold={self.threshold!r} makes no sense: "
                "drop='threshold' needs a threshold, and no other drop rule reads one"
            )
        if self.threshold is not None and not 0 <= self.threshold < math.inf:
            raise ValueError(f"threshold must be a number >= 0, got {self.threshold!r}")


@dataclass(frozen=True)
class ConstantCount(Growing):
    """A growing method that holds `kept(N, sparsity)` weights from first to last."""

    def init(self, view: View) -> tuple[Masks, Memory]:
        """Masks with exactly `kept(N, sparsity)` weights, spread by `distribution`."""
        return self._start(view, self.sparsity)

    def fresh(self, view: View, masks: Masks) -> Masks:
        """Weights of `init`'s masks that start at 0; see `fresh_weights`."""
        return self._fresh(view, masks, self.sparsity)

    def when(self, step: int) -> bool:
        """At each multiple of `update_every` in [start, stop], and at stop."""
        return schedules.Every(self.interval, self.start_step, self.stop_step)(step)

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Drop and grow; see `Regrow`."""
        return self._regrow.swap(view, masks, memory, self.fraction(view.step))

    @abstractmethod
    def fraction(self, step: int) -> float:
        """The fraction of each layer's active weights that an update at `step` moves."""
