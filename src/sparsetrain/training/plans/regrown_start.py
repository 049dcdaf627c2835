"""A start that is pruned and regrown: the gradient it ranks by, found before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn import functional as F

from ...data.deal import Feed
from ...saliency.scored_copy import ScoredCopy, scoring, summed_gradient
from ...selection import select
from ...sharded import place
from ..config import TrainConfig


@contextmanager
def first_gradient(
    config: TrainConfig, model: nn.Module, train: Feed, whole: nn.Module
) -> Iterator[int]:
    """For the while, `p.grad` of the selected weights is that of the first training batch.

    It is found on a copy in train mode, so that running statistics and torch's random state are as
    before; a continued run finds the same one. `whole` is the model before it was sharded.

    Yields:
        The number of images.
    """
    include, exclude = config.sparse.include or None, config.sparse.exclude
    images, labels = next(train.batches(0))
    with scoring(whole, "train"):
        copy = ScoredCopy.of(whole, include, exclude)
        found = summed_gradient(copy, F.cross_entropy, [(images, labels)])
    weights = select(model, include, exclude)
    try:
        for name, weight in weights.items():
            weight.grad = place(found[name], weight)
        yield len(labels)
    finally:
        for weight in weights.values():
            weight.grad = None
