"""Masks to start from: dense, random, one-shot pruned, or pruned and regrown; counts are exact."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from .. import criteria, distributions, patterns
from .. import masks as mask_algebra
from ..patterns import Pattern
from ..prune import keep_largest
from ..types import Distribution, Masks, Shapes, Tensors, View
from .options import check_choice

DistributionName: TypeAlias = Literal["uniform", "er", "erk", "smart_ratio"]
StartMask: TypeAlias = Literal["random", "pruned", "pruned-global", "pruned-and-regrown"]

DISTRIBUTIONS: dict[str, Distribution] = {
    "uniform": distributions.uniform,
    "er": distributions.er,
    "erk": distributions.erk,
    "smart_ratio": distributions.smart_ratio,
}

REGROWN = 0.5
"""Share of a layer's weights that is pruned and regrown, where a method has no `drop_fraction`."""


def start_masks(
    view: View,
    sparsity: float,
    *,
    distribution: str | Distribution,
    start_mask: StartMask,
    pattern: Pattern = "unstructured",
    regrown: float = REGROWN,
) -> Masks:
    """The first masks of a run.

    Args:
        view: the untrained (or loaded) network.
        sparsity: fraction of zeros to start with; 0 is dense and draws nothing.
        distribution: the layer-wise counts, by name or as a function.
        start_mask: "random" positions; "pruned": the largest weights of each layer;
            "pruned-global": the largest of all layers together, without `distribution`;
            "pruned-and-regrown": of each layer's count the share `regrown` are the places of
            largest |dL/dw| outside its largest weights, and start at 0, see `fresh_weights`.
        pattern: single weights, or whole units: then the counts are `patterns.unit_counts`, and
            with "pruned-global" those of `patterns.keep_units`.
        regrown: share of each layer's count, rounded as `moved` does.
    Returns:
        name -> bool mask, exactly `kept(N, sparsity)` True in total if the pattern is
        "unstructured".
    Raises:
        ValueError: a distribution of one's own gives another total; no gradient to regrow by.
    Source: Liu et al. 2021, arXiv 2106.10404, for pruned-and-regrown starts.
    """
    weights = view.weights
    if sparsity == 0:
        return {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}
    if start_mask == "pruned-global":
        return keep_largest(criteria.magnitude(view), sparsity, "global", pattern)
    shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
    counts = _counts(distribution, shapes, sparsity)
    if pattern == "channel":
        patterns.check_reachable(shapes, sparsity)
        counts = patterns.unit_counts(shapes, counts)
    score = criteria.random if start_mask == "random" else criteria.magnitude
    scores = patterns.scores_of(score(view), pattern)
    if start_mask != "pruned-and-regrown":
        return patterns.masks_of(mask_algebra.keep_layerwise(scores, counts), weights, pattern)
    back = {n: moved(count, regrown, pattern) for n, count in counts.items()}
    left = mask_algebra.keep_layerwise(scores, {n: counts[n] - back[n] for n in counts})
    by = patterns.scores_of(_first_gradient(view), pattern)
    return patterns.masks_of(mask_algebra.grow(left, by, back), weights, pattern)


def fresh_weights(
    view: View,
    masks: Tensors,
    *,
    start_mask: StartMask,
    pattern: Pattern = "unstructured",
    regrown: float = REGROWN,
) -> Masks:
    """Active weights of a start that must be set to 0: what was pruned and regrown.

    A method cannot set them itself, as it touches no weight; the Sparsifier does.

    Args:
        view: the network as `start_masks` saw it, or masked by what that gave.
        masks: what `start_masks` gave.
        start_mask: as there, and so are `pattern` and `regrown`.
    Returns:
        name -> bool; empty where nothing was regrown.
    """
    if start_mask != "pruned-and-regrown":
        return {}
    places = patterns.places_of(masks, pattern)
    counts = mask_algebra.count_active(places)
    scores = patterns.scores_of(criteria.magnitude(view), pattern)
    left = mask_algebra.keep_layerwise(
        scores, {n: count - moved(count, regrown, pattern) for n, count in counts.items()}
    )
    never_pruned = patterns.masks_of(left, masks, pattern)
    return {name: mask & ~never_pruned[name] for name, mask in masks.items()}


def moved(count: int, fraction: float, pattern: Pattern, rounding: str = "up") -> int:
    """How many of `count` places a fraction is: whole units always down, weights by `rounding`.

    In decimal, as in `masks.kept`: 0.29 of 100 is 29. Of few units "up" would take one at least,
    and move a trained one to the very end.
    """
    share = Decimal(repr(float(fraction))) * count
    return math.ceil(share) if rounding == "up" and pattern != "channel" else math.floor(share)


def given_masks(masks: Mapping[str, Tensor], sparsity: float, pattern: Pattern) -> Masks:
    """The masks, if they hold exactly `kept(N, sparsity)` weights, or whole channels.

    Raises:
        ValueError: they hold another number; with pattern "channel", parts of channels.
    """
    if pattern == "channel":
        patterns.check_whole(masks)
        return dict(masks)
    wanted = mask_algebra.kept(mask_algebra.total(masks), sparsity)
    found = sum(mask_algebra.count_active(masks).values())
    if found != wanted:
        raise ValueError(
            f"masks must hold {wanted} weights, which is a sparsity of {sparsity:g}, got {found} "
            f"({mask_algebra.sparsity(masks):g}); pass the sparsity that they were made with"
        )
    return dict(masks)


def check_start(method: Any, *, sparsity: float | None = None, why_not: str = "") -> None:
    """Check the options `distribution`, `start_mask` and `pattern` of a method's dataclass.

    Args:
        method: with these three fields.
        sparsity: fraction of zeros at the start, where the method can start dense; else None.
        why_not: what the message adds for a start mask that there is not.
    Raises:
        ValueError: not one of the choices, or two that make no sense together.
    """
    check_choice("pattern", method.pattern, get_args(Pattern))
    check_choice("start_mask", method.start_mask, get_args(StartMask), why_not)
    _check_distribution(method.distribution)
    default = {field.name: field.default for field in dataclasses.fields(method)}
    # Of a sweep down to no zeros at all nothing is refused.
    if sparsity == 0 and method.sparsity > 0:
        for name in ("distribution", "start_mask"):
            if (value := getattr(method, name)) != default[name]:
                raise ValueError(
                    f"{name}={value!r} makes no sense for a dense start: there are no zeros to "
                    "place; give an initial_sparsity above 0, or leave it out"
                )
    if (
        method.start_mask == "pruned-global"
        and (value := method.distribution) != default["distribution"]
    ):
        raise ValueError(
            f"start_mask='pruned-global' with distribution={value!r} makes no sense: one ranking "
            "of all layers decides each layer's count; take start_mask='pruned', or leave the "
            "distribution out"
        )


def _check_distribution(value: object) -> None:
    known = isinstance(value, str) and value in DISTRIBUTIONS
    if known or (callable(value) and not isinstance(value, type)):
        return
    near = difflib.get_close_matches(str(value).lower(), DISTRIBUTIONS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; or a function of (shapes, sparsity)"
    check_choice("distribution", value, tuple(DISTRIBUTIONS), hint)


def _counts(distribution: str | Distribution, shapes: Shapes, sparsity: float) -> dict[str, int]:
    """The distribution's weights of each layer, in the shapes' order."""
    rule = DISTRIBUTIONS[distribution] if isinstance(distribution, str) else distribution
    counts = rule(shapes, sparsity)
    if odd := sorted(shapes.keys() ^ counts.keys()):
        raise ValueError(f"distribution and network must name the same layers; not: {odd[0]}")
    wanted = mask_algebra.kept(sum(math.prod(shape) for shape in shapes.values()), sparsity)
    if (found := sum(counts.values())) != wanted:
        raise ValueError(
            f"distribution keeps {found} weights, but a sparsity of {sparsity:g} is {wanted}; "
            "st.distributions.from_densities rounds densities to an exact total"
        )
    return {name: counts[name] for name in shapes}


def _first_gradient(view: View) -> Tensors:
    if missing := [name for name in view.weights if name not in view.grads]:
        raise ValueError(
            f"start_mask='pruned-and-regrown' needs the gradient, and {missing[0]} has none: call "
            "loss.backward() on a batch or more before the Sparsifier is made, and "
            "optimizer.zero_grad() after"
        )
    return criteria.gradient(view)
