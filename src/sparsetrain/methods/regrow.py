"""Drop and grow: the one move of every method that keeps its number of weights and moves them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .. import criteria, patterns
from .. import masks as mask_algebra
from ..patterns import Pattern
from ..types import Criterion, Masks, Memory, View
from .apportion import Redistribution, regrow_counts
from .start import moved

DropRule: TypeAlias = Literal["magnitude", "set", "threshold", "taylor"]
GrowthRule: TypeAlias = Literal["gradient", "random", "momentum", "random-unfired"]

_DROP: dict[str, Criterion] = {
    "magnitude": criteria.magnitude,
    "set": criteria.sign_aware,
    "threshold": criteria.magnitude,
    "taylor": criteria.taylor,
}


@dataclass(frozen=True)
class Regrow:
    """Rules of one drop-and-grow; a value without state.

    All layers are dropped first, then all are grown. What was dropped a moment ago may grow back,
    and then keeps its value and its optimizer state; an active position is never chosen, so a
    gradient of zeros loses no weight.

    Attributes:
        drop: which active weights go: the smallest |w|; the smallest of each sign; every
            |w| <= `threshold`; the smallest |w dL/dw|.
        growth: which inactive positions come: the largest |dL/dw|; random; the largest averaged
            |dL/dw|; random, those that never were active first.
        redistribution: how many come back in each layer, see `regrow_counts`.
        threshold: given with drop="threshold", else None.
        ema_decay: decay a step of the averaged gradient.
        rounding: of fraction x active weights of a layer, as the method's source has it.
        pattern: single weights, or whole units by the sum of their weights' scores; a fraction of
            a layer's units is rounded down, and the layer keeps its number of them.
        revive: grow anywhere; else in a unit that the drop left without a weight only once all
            others are full.
    """

    drop: DropRule
    growth: GrowthRule
    redistribution: Redistribution
    threshold: float | None
    ema_decay: float
    rounding: Literal["up", "down"]
    pattern: Pattern = "unstructured"
    revive: bool = True

    def memory(self, masks: Masks) -> Memory:
        """What the rules must remember, at the start: nothing, unless a rule looks back."""
        return {"fired": dict(masks)} if self.growth == "random-unfired" else {}

    def observe(self, view: View, memory: Memory) -> Memory:
        """Average the dense gradient, where a rule reads it; else the memory as it is.

        The optimizer's own momentum cannot serve: it is masked at every step, so outside the mask
        it is zero, and growth would bring back exactly what was dropped.
        """
        if "momentum" not in (self.growth, self.redistribution):
            return memory
        old = memory.get("momentum", {})
        new = {n: self._averaged(w, view.grads.get(n), old.get(n)) for n, w in view.weights.items()}
        return {**memory, "momentum": new}

    def swap(
        self, view: View, masks: Masks, memory: Memory, fraction: float
    ) -> tuple[Masks, Memory]:
        """Drop `fraction` of each layer's active weights, or units, and grow as many in total."""
        if fraction == 0:
            return masks, memory
        places = dict(patterns.places_of(masks, self.pattern))
        counts = self._drop_counts(view, places, fraction)
        scores = patterns.scores_of(_DROP[self.drop](view), self.pattern)
        left = mask_algebra.drop(places, scores, counts)
        momentum = memory.get("momentum", {})
        wanted = regrow_counts(self.redistribution, view, places, counts, momentum)
        scores = patterns.scores_of(self._growth_scores(view, memory), self.pattern)
        grown = self._grown(left, scores, wanted)
        new = patterns.masks_of(grown, masks, self.pattern)
        if self.growth == "random-unfired":
            fired = {n: new[n] | f.to(new[n].device) for n, f in memory["fired"].items()}
            memory = {**memory, "fired": fired}
        return new, memory

    def _grown(self, left: Masks, scores: Mapping[str, Tensor], counts: Mapping[str, int]) -> Masks:
        if self.revive:
            return mask_algebra.grow(left, scores, counts)
        alive = patterns.expand(patterns.units_of(left), left)
        free = mask_algebra.count_active({n: alive[n] & ~mask for n, mask in left.items()})
        first = {n: min(count, free[n]) for n, count in counts.items()}
        grown = mask_algebra.grow(left, scores, first, allowed=alive)
        rest = {n: count - first[n] for n, count in counts.items()}
        return mask_algebra.grow(grown, scores, rest) if any(rest.values()) else grown

    def _drop_counts(self, view: View, masks: Masks, fraction: float) -> dict[str, int]:
        if self.threshold is not None:
            below = {n: m & (view.weights[n].abs() <= self.threshold) for n, m in masks.items()}
            return mask_algebra.count_active(below)
        active = mask_algebra.count_active(masks)
        return {n: moved(k, fraction, self.pattern, self.rounding) for n, k in active.items()}

    def _growth_scores(self, view: View, memory: Memory) -> Mapping[str, Tensor]:
        if self.growth == "gradient":
            return criteria.gradient(view)
        if self.growth == "momentum":
            momentum = memory["momentum"]
            return {n: momentum[n].to(w.device).abs() for n, w in view.weights.items()}
        scores = criteria.random(view)
        if self.growth == "random-unfired":
            fired = memory["fired"]
            # Random scores lie in [0, 1): one more puts every unfired position above the others.
            return {n: s + (~fired[n]).to(s.device, s.dtype) for n, s in scores.items()}
        return scores

    def _averaged(self, weight: Tensor, grad: Tensor | None, old: Tensor | None) -> Tensor:
        # float32 at least: a tenth of a gradient vanishes beside a sum in bfloat16.
        dtype = torch.promote_types(weight.dtype, torch.float32)
        base = torch.zeros_like(weight, dtype=dtype) if old is None else old.to(weight.device)
        return (
            base * self.ema_decay if grad is None else base.lerp(grad.to(dtype), 1 - self.ema_decay)
        )
