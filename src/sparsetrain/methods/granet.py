"""GraNet: prune gradually, and at each update move some of the weights that are left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from .. import schedules
from ..types import Masks, Memory, View
from . import published
from .gradual import check_channels, prune_to
from .growing import FLOOR, Growing
from .options import check_choice, check_compat, check_gradual, option, step_of
from .start import check_start


@final
@dataclass(frozen=True)
class GraNet(Growing):
    """Gradual pruning with neuroregeneration: an update prunes to s(t), then drops and grows.

    s(t) = s_f + (s_i - s_f)(1 - (t - start) / (stop - start))^3, and the moved fraction is a cosine
    from `drop_fraction` at step 0 to 0.005 at `regrow_until`. The other options are `Growing`'s.

    Args:
        initial_sparsity: zeros at step 0, spread by `distribution`; 0 is a dense start; None is
            0.5, or `sparsity` where that is less.
        start: the gradual pruning begins after this step (int) or fraction of the training
            (float); so do drop and grow.
        stop: `sparsity` is reached at this step or fraction, exactly.
        regrow_until: last step or fraction at which weights are moved.
        scope: rank all weights together, or prune each layer to the same sparsity.
        compat: "paper" counts, ties and ends as the published code does, see `published`; with
            global scope, magnitude drop, gradient growth and no redistribution.

    Source: Liu et al. 2021, arXiv 2106.10404. Deviates: the published code stops one update short
    of the final sparsity and leaves K - 1 weights; a weight pruned and regrown in one update keeps
    its value and its optimizer state also where the gradual step had pruned it.
    """

    initial_sparsity: float | None = option(None, "zeros at the start; 0: dense; default: 0.5")
    stop: float = option(0.5, "the final sparsity is reached at this step or fraction")
    regrow_until: float = option(1.0, "last update that moves weights: a step or a fraction")
    scope: Literal["global", "layer"] = option("global", "rank all weights together or by layer")
    compat: Literal["none", "paper"] | None = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gradual(self.first_sparsity, self.sparsity)
        check_start(self, sparsity=self.first_sparsity)
        check_choice("scope", self.scope, ("global", "layer"))
        if self.regrow_step < self.start_step:
            raise ValueError(
                f"regrow_until must be at or after start, got start={self.start}, "
                f"regrow_until={self.regrow_until}; to move no weights, use st.methods.gmp"
            )
        if self.scope == "layer" and self.redistribution != "none":
            raise ValueError(
                f"scope='layer' with redistribution={self.redistribution!r} makes no sense: one "
                "keeps all layers equally sparse, the other moves weights between them; take "
                "scope='global' or redistribution='none'"
            )
        parts = (
            *(self.scope, self.drop, self._growth_part),
            *(self.redistribution, self.pattern),
        )
        known = ("global", "magnitude", "gradient", "none", "unstructured")
        check_compat(self.compat, parts, known)

    @property
    def first_sparsity(self) -> float:
        """Fraction of zeros at step 0."""
        given = self.initial_sparsity
        return min(0.5, self.sparsity) if given is None else given

    @property
    def regrow_step(self) -> int:
        """Optimizer step of the last update that moves weights."""
        return step_of("regrow_until", self.regrow_until, self.total_steps)

    def sparsity_at(self, step: int) -> float:
        """The cubic schedule of the fraction of zeros."""
        initial = self.first_sparsity
        if self.compat == "paper":
            return self._window.sparsity_at(step, initial, self.sparsity)
        return schedules.cubic(initial, self.sparsity, self.start_step, self.stop_step)(step)

    def fraction(self, step: int) -> float:
        """The fraction of each layer's active weights that an update at `step` moves."""
        if step > self.regrow_step:
            return 0.0
        low = min(FLOOR, self.drop_fraction)
        return schedules.cosine(self.drop_fraction, low, 0, self.regrow_step)(step)

    def init(self, view: View) -> tuple[Masks, Memory]:
        """Masks with exactly `kept(N, sparsity_at(0))` weights."""
        check_channels(view, self.sparsity, self.scope, self.pattern)
        return self._start(view, self.sparsity_at(0))

    def fresh(self, view: View, masks: Masks) -> Masks:
        """Weights of `init`'s masks that start at 0; see `fresh_weights`."""
        return self._fresh(view, masks, self.sparsity_at(0))

    def when(self, step: int) -> bool:
        """At each multiple of `update_every` from start on, and at both ends."""
        if self.compat == "paper":
            return self.start_step <= step <= self.regrow_step and step % self.interval == 0
        ends = (self.stop_step, self.regrow_step)
        return any(schedules.Every(self.interval, self.start_step, end)(step) for end in ends)

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        """Prune to the schedule, then drop and grow; all ranked by the same weights."""
        sparsity = self.sparsity_at(view.step)
        if self.compat == "paper":
            left = self._window.prune(view, masks, sparsity)
            return published.move(view, left, self.fraction(view.step)), memory
        left = prune_to(view, masks, sparsity, self.scope, pattern=self.pattern)
        return self._regrow.swap(view, left, memory, self.fraction(view.step))

    @property
    def _window(self) -> published.Window:
        return published.Window(self.interval, self.start_step, self.stop_step)
