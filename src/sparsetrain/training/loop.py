"""One epoch of training and one of evaluation: the only places where images meet the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from ..compute import SparseCompute
from .device import Place
from .nonfinite import Guard
from .sums import Result as Result
from .sums import Sums

Batch = tuple[Tensor, Tensor]
Counted = Callable[[int], tuple[int, int]]
"""Batch index -> images that count here, and on all processes together: `Loader.counted`."""


def ignore(logits: Tensor, labels: Tensor) -> None:
    """Count nothing."""


def train_epoch(
    model: nn.Module,
    optimizer: Optimizer,
    batches: Iterable[Batch],
    *,
    place: Place,
    lr: Callable[[int], float],
    label_smoothing: float = 0.0,
    start: int = 0,
    sums: Sums | None = None,
    guard: Guard | None = None,
    counted: Counted | None = None,
    compute: SparseCompute | None = None,
    after: Callable[[], None] = lambda: None,
) -> Result:
    """Train on every batch once.

    Nothing is read back from the device before the end, so that a GPU never waits. On several
    processes each has its part of every batch, and what is returned is over all of them.

    Args:
        batches: (images, labels) on the device, from batch `start` on.
        lr: batch index in this epoch -> learning rate.
        start: batches of the epoch that were trained on before.
        sums: of those; None for a new epoch.
        guard: of NaN and infinity; None stops at the first.
        counted: where several processes have unequal parts of a batch; None: they are equal.
        compute: lets forward and backward passes run sparse; None: they are dense.
        after: called after each batch, when model, optimizer and sums are whole; what it raises
            ends the epoch there.
    Returns:
        Mean loss, and the accuracy on the fly: of each batch just before it was learned.
    Raises:
        RunFailed: loss or weights are not finite.
    """
    model.train()
    sums = Sums(place.device) if sums is None else sums
    guard = Guard(model, world=place.world) if guard is None else guard
    rate = math.nan
    for index, (images, labels) in enumerate(batches, start):
        if rate != (rate := lr(index)):
            for group in optimizer.param_groups:
                group["lr"] = rate
        guard.begin(index)
        if place.world.mode == "fsdp":  # DDP does it by itself
            place.world.share_buffers_(model)
        with nullcontext() if compute is None else compute:
            logits = place.forward(model, images).float()
        weight = 1.0
        if counted is not None and place.world.size > 1:
            logits, labels, weight = _own_part(logits, labels, counted(index), place.world.size)
        loss = _mean_loss(logits, labels, label_smoothing)
        optimizer.zero_grad(set_to_none=True)
        (loss if weight == 1.0 else loss * weight).backward()
        if guard.step(optimizer, loss, images):
            sums.add(loss.detach(), logits.detach(), labels)
        else:
            sums.skip()
            guard.too_many(sums.in_a_row)
        after()
    guard.check()
    return sums.result(place.world)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    *,
    place: Place,
    call: Callable[[Tensor], Tensor] | None = None,
    counted: Counted | None = None,
    tally: Callable[[Tensor, Tensor], None] = ignore,
    after: Callable[[], None] = lambda: None,
) -> Result:
    """Mean loss and accuracy in evaluation mode; the model's mode is restored.

    Args:
        call: images -> logits, in place of the model's own forward pass.
        counted: as for `train_epoch`.
        tally: called with the float logits and labels of each batch.
        after: called after each batch; what it raises ends the evaluation.
    """
    training = model.training
    model.eval()
    place.world.share_buffers_(model)
    sums = Sums(place.device)
    try:
        for index, (images, labels) in enumerate(batches):
            logits = (place.forward(model, images) if call is None else call(images)).float()
            if counted is not None and place.world.size > 1:
                logits, labels, _ = _own_part(logits, labels, counted(index), place.world.size)
            sums.add(_mean_loss(logits, labels), logits, labels)
            tally(logits, labels)
            after()
    finally:
        model.train(training)
    return sums.result(place.world)


def _own_part(
    logits: Tensor, labels: Tensor, counted: tuple[int, int], processes: int
) -> tuple[Tensor, Tensor, float]:
    """Without repeated images, and the weight that makes the mean over processes that of images."""
    here, everywhere = counted
    return logits[:here], labels[:here], here * processes / everywhere


def _mean_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    if len(labels) == 0:
        return logits.sum()  # of nothing: zero, with a gradient of zeros
    return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
