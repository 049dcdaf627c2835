"""One epoch of training and one of evaluation: the only places where images meet the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from .device import Place
from .errors import RunFailed

Batch = tuple[Tensor, Tensor]


class Result(NamedTuple):
    """Means over the images of one epoch; accuracy is a fraction."""

    loss: float
    accuracy: float


def train_epoch(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[Batch],
    *,
    place: Place,
    lr: Callable[[int], float],
    label_smoothing: float = 0.0,
    advance: Callable[[], None] = lambda: None,
) -> Result:
    """Train on every batch once.

    Nothing is read back from the device before the end, so that a GPU never waits.

    Args:
        batches: (images, labels) on the device.
        lr: batch index in this epoch -> learning rate.
        advance: called after each batch.
    Returns:
        Mean loss, and the accuracy on the fly: of each batch just before it was learned.
    Raises:
        RunFailed: the loss is not finite.
    """
    model.train()
    sums = _Sums(place.device)
    rate = math.nan
    for index, (images, labels) in enumerate(batches):
        if rate != (rate := lr(index)):
            for group in optimizer.param_groups:
                group["lr"] = rate
        with place.autocast():
            logits = model(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        sums.add(loss.detach(), logits.detach(), labels)
        advance()
    result = sums.result()
    if not math.isfinite(result.loss):
        raise RunFailed(f"the loss became {result.loss} at learning rate {rate:g}; try a lower lr.")
    return result


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch], *, place: Place) -> Result:
    """Mean loss and accuracy in evaluation mode; the model's mode is restored."""
    training = model.training
    model.eval()
    sums = _Sums(place.device)
    for images, labels in batches:
        with place.autocast():
            logits = model(images)
        logits = logits.float()
        sums.add(F.cross_entropy(logits, labels), logits, labels)
    model.train(training)
    return sums.result()


class _Sums:
    """Sums of loss and correct answers, on the device."""

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._correct = torch.zeros((), dtype=torch.int64, device=device)
        self._count = 0

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self._loss += loss * len(labels)
        self._correct += (logits.argmax(dim=1) == labels).sum()
        self._count += len(labels)

    def result(self) -> Result:
        count = max(self._count, 1)
        return Result(float(self._loss) / count, int(self._correct) / count)
