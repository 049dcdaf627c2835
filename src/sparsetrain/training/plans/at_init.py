"""A mask scored before the first step, then fixed: SNIP, GraSP, SynFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from ... import methods, saliency
from ...data.loader import Loader
from ...sparsifier import Sparsifier
from ...types import Masks
from ..config import TrainConfig
from ..options import SnipOptions, SynflowOptions
from .base import Phase


class AtInitPlan:
    """A mask scored on the network as it was initialised: one phase.

    A continued run scores again and then loads its own mask over it.
    """

    def __init__(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer, train: Loader
    ) -> None:
        masks, self._images = _score(config, model, train)
        self.phase = Phase("train", first=0, epochs=config.optim.epochs, scheduled=True)
        self._sparsifier = Sparsifier(
            model, optimizer, methods.static(sparsity=config.sparse.sparsity, masks=masks)
        )

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """The masks that were found."""
        return self._sparsifier.masks

    @property
    def sparsity(self) -> float:
        """Their sparsity."""
        return self._sparsifier.sparsity

    def end_epoch(
        self, epoch: int, accuracy: float, evaluate: Callable[[nn.Module], float]
    ) -> dict[str, float]:
        """Nothing to decide."""
        return {}

    def end_after(self, epoch: int) -> int:
        """As many as asked for."""
        return self.phase.epochs

    def facts(self) -> dict[str, Any]:
        """How many images the scores took."""
        return {"scored_images": self._images}

    def state_dict(self) -> dict[str, Any]:
        """The engine's."""
        return self._sparsifier.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The engine's."""
        self._sparsifier.load_state_dict(state)

    def finalize(self) -> None:
        """The engine's."""
        self._sparsifier.finalize()


def _score(config: TrainConfig, model: nn.Module, train: Loader) -> tuple[Masks, int]:
    """The masks, and the number of images that they were found with."""
    options, sparsity = config.options, config.sparse.sparsity
    if isinstance(options, SynflowOptions):
        first = next(train.batches(0))
        return saliency.synflow(model, None, [first], sparsity, rounds=options.rounds), 0
    images, labels = first_of_each_class(train, options.images_per_class)
    # In equal parts, because batch norm cannot score a last batch of one image.
    parts = -(-len(labels) // config.optim.batch_size)
    if isinstance(options, SnipOptions):
        batches = _split(images, labels, parts=parts)
        masks = saliency.snip(model, F.cross_entropy, batches, sparsity, mode=options.mode)
        return masks, len(labels)
    masks = saliency.grasp(
        model,
        F.cross_entropy,
        _split(images, labels, parts=max(2, parts)),
        sparsity,
        temperature=options.temperature,
        mode=options.mode,
    )
    return masks, len(labels)


def first_of_each_class(train: Loader, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` images of each class in epoch 0, and their labels, in its order.

    Raises:
        ValueError: count below 1.
    """
    if count < 1:
        raise ValueError(f"images_per_class must be at least 1, got {count}.")
    seen: Counter[int] = Counter()
    images: list[Tensor] = []
    labels: list[Tensor] = []
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
    return torch.cat(images), torch.cat(labels)


def _split(images: Tensor, labels: Tensor, *, parts: int) -> list[tuple[Tensor, Tensor]]:
    parts = max(1, min(parts, len(labels) // 2))
    return list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))
