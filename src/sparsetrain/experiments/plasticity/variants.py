"""The ways in which the study prunes, and the masks that they give."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ... import masks as mask_algebra
from ...patterns import masks_of, places_of, scores_of
from ...prune import prune
from ...selection import Patterns
from ...types import Masks

Structure = Literal["global", "layer", "channel"]
Regrow = Literal["none", "gradient", "random"]


@dataclass(frozen=True)
class Variant:
    """One pruning at one epoch.

    Attributes:
        epoch: epochs of the dense training behind it.
        fraction: of the weights, pruned.
        structure: global: the smallest of all layers together; layer: of each layer alike; channel:
            whole filters.
        regrow: none; or which of the pruned come back, while as many of the smallest left go.
    """

    epoch: int
    fraction: float
    structure: Structure
    regrow: Regrow

    def __str__(self) -> str:
        return f"epoch {self.epoch} prune {self.fraction:g} {self.structure} regrow {self.regrow}"

    def about(self) -> dict[str, object]:
        """Its attributes by name."""
        return asdict(self)


def variants(
    epochs: tuple[int, ...],
    fractions: tuple[float, ...],
    structures: tuple[Structure, ...],
    regrows: tuple[Regrow, ...],
) -> Iterator[Variant]:
    """All of them, epoch by epoch."""
    for parts in itertools.product(epochs, fractions, structures, regrows):
        yield Variant(*parts)


class Pruned(NamedTuple):
    """What is left of a network.

    Attributes:
        masks: weight name -> bool, True where the weight stays.
        grown: the same, True where it was pruned and regrown, and is 0 in the model.
    """

    masks: Masks
    grown: Masks


def masks_for(
    variant: Variant,
    model: nn.Module,
    gradients: Mapping[str, Tensor],
    *,
    share: float,
    seed: int,
    include: Patterns = None,
    exclude: Patterns = None,
) -> Pruned:
    """Prune a model in place, and regrow.

    Args:
        gradients: weight name -> dense gradient, for regrow=gradient.
        share: of each layer's weights (or filters) left, exchanged for pruned ones.
        seed: of random regrowth.
        include: the weights to prune, as for `prune`.
        exclude: those that stay dense.
    Source: Liu et al. 2021, arXiv 2106.10404, section 3.
    """
    pattern = "channel" if variant.structure == "channel" else "unstructured"
    scope = "layer" if variant.structure == "layer" else "global"
    masks = prune(
        model, variant.fraction, scope=scope, pattern=pattern, include=include, exclude=exclude
    )
    if variant.regrow == "none":
        return Pruned(masks, {})
    weights = {name: p.detach() for name, p in model.named_parameters() if name in masks}
    places = places_of(masks, pattern)
    counts = {
        name: min(round(share * int(kept.sum())), int((~kept).sum()))
        for name, kept in places.items()
    }
    magnitudes = scores_of({name: w.abs() for name, w in weights.items()}, pattern)
    less = mask_algebra.drop(places, magnitudes, counts)
    more = mask_algebra.grow(
        less,
        scores_of(_growth(variant.regrow, weights, gradients, seed), pattern),
        counts,
        # What was dropped just now does not come back.
        allowed={name: ~kept for name, kept in places.items()},
    )
    masks, stayed = masks_of(more, weights, pattern), masks_of(less, weights, pattern)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in masks:
                weight.mul_(stayed[name])
    return Pruned(masks, {name: mask & ~stayed[name] for name, mask in masks.items()})


def _growth(
    regrow: Regrow, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], seed: int
) -> dict[str, Tensor]:
    if regrow == "gradient":
        return {name: gradients[name].abs() for name in weights}
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(weight.shape, generator=generator).to(weight.device)
        for name, weight in weights.items()
    }
