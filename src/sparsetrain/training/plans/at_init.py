"""A mask chosen before the first step, then fixed: SNIP, GraSP, SynFlow, random tickets."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from ... import criteria, distributions, methods, saliency
from ... import masks as mask_algebra
from ...data.deal import Feed
from ...selection import select
from ...types import Masks, View
from ..config import TrainConfig
from ..options import SmartRatioOptions, SnipOptions, SynflowOptions
from .single import SinglePlan, attach


def at_init_plan(
    config: TrainConfig, model: nn.Module, optimizer: Optimizer, train: Feed, whole: nn.Module
) -> SinglePlan:
    """A mask scored on the network as it was initialised, then fixed.

    A continued run scores again and then loads its own mask over it.

    Raises:
        ValueError: an option out of range, or nothing prunable.
    """
    masks, images = _score(config, whole, train)
    method = methods.static(sparsity=config.sparse.sparsity, masks=masks)
    return SinglePlan(config, attach(config, model, optimizer, method), {"scored_images": images})


def _score(config: TrainConfig, model: nn.Module, train: Feed) -> tuple[Masks, int]:
    """The masks, and the number of images that they were found with."""
    options, sparsity = config.options, config.sparse.sparsity
    include, exclude = config.sparse.include or None, config.sparse.exclude
    if isinstance(options, SmartRatioOptions):
        return _tickets(config, options, model), 0
    if isinstance(options, SynflowOptions):
        first = next(train.batches(0))
        masks = saliency.synflow(
            model, None, [first], sparsity, rounds=options.rounds, include=include, exclude=exclude
        )
        return masks, 0
    images, labels = first_of_each_class(train, options.images_per_class)
    # In equal parts, because batch norm cannot score a last batch of one image.
    parts = -(-len(labels) // config.optim.batch_size)
    if isinstance(options, SnipOptions):
        batches = _split(images, labels, parts=parts)
        masks = saliency.snip(
            model,
            F.cross_entropy,
            batches,
            sparsity,
            mode=options.mode,
            include=include,
            exclude=exclude,
        )
        return masks, len(labels)
    masks = saliency.grasp(
        model,
        F.cross_entropy,
        _split(images, labels, parts=max(2, parts)),
        sparsity,
        temperature=options.temperature,
        mode=options.mode,
        include=include,
        exclude=exclude,
    )
    return masks, len(labels)


def _tickets(config: TrainConfig, options: SmartRatioOptions, model: nn.Module) -> Masks:
    """Random tickets, or hybrid ones: the counts of `distributions.smart_ratio`."""
    selected = select(model, config.sparse.include or None, config.sparse.exclude)
    counts = distributions.smart_ratio(
        {name: tuple(weight.shape) for name, weight in selected.items()},
        config.sparse.sparsity,
        network=options.network,
        compat="paper" if config.sparse.compat == "paper" else None,
    )
    weights = {name: weight.detach() for name, weight in selected.items()}
    view = View(0, weights, {}, {}, torch.Generator().manual_seed(config.run.seed))
    score = criteria.random if options.start_mask == "random" else criteria.magnitude
    return mask_algebra.keep_layerwise(score(view), counts)


def first_of_each_class(train: Feed, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images of each class in epoch 0, and their labels, in its order.

    Raises:
        ValueError: count below 1.
    """
    if count < 1:
        raise ValueError(f"images_per_class must be at least 1, got {count}.")
    seen: Counter[int] = Counter()
    images: list[Tensor] = []
    labels: list[Tensor] = []
    wanted = int(train.labels.bincount().clamp(max=count).sum())  # then the rest need no decoding
    for batch, classes in train.batches(0):
        chosen: list[int] = []
        for place, label in enumerate(classes.tolist()):
            seen[label] += 1
            if seen[label] <= count:
                chosen.append(place)
        if chosen:
            index = torch.tensor(chosen, device=batch.device)
            images.append(batch[index])
            labels.append(classes[index])
        if sum(map(len, labels)) == wanted:
            break
    return torch.cat(images), torch.cat(labels)


def _split(images: Tensor, labels: Tensor, *, parts: int) -> list[tuple[Tensor, Tensor]]:
    parts = max(1, min(parts, len(labels) // 2))
    return list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))
