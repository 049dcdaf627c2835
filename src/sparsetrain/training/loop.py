"""One epoch of training and one of evaluation: the only places where images meet the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
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
    part_size: int | None = None,
    took: Callable[[], None] = lambda: None,
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
        part_size: images that go through the network together, at least; a batch of twice as many
            or more is taken in parts, whose gradients add up. None: the batch as a whole.
        took: called after each step that was taken, before `after`.
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
        optimizer.zero_grad(set_to_none=True)
        passes = _Passes(model, place, label_smoothing, compute)
        for part in _parts(images, labels, part_size, _counts(counted, index, place)):
            passes.add(part)
        loss, logits, labels = passes.found()
        if guard.step(optimizer, loss, images):
            sums.add(loss, logits, labels)
            took()
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


def part_sizes(batch: int, accumulate: int) -> set[int]:
    """How many images go through the network together in a batch of so many."""
    parts = max(1, batch // max(1, batch // accumulate))
    return {batch // parts, -(-batch // parts)}


class _Part(NamedTuple):
    """Some images of a batch.

    Attributes:
        kept: images that count, where they come first; the others are repeats.
        weight: of their mean loss in that of the batch.
        last: whether no other follows.
    """

    images: Tensor
    labels: Tensor
    kept: int
    weight: float
    last: bool


class _Passes:
    """Forward and backward passes over the parts of one batch; gradients add up in `p.grad`."""

    def __init__(
        self, model: nn.Module, place: Place, smoothing: float, compute: SparseCompute | None
    ) -> None:
        self._model, self._place, self._smoothing = model, place, smoothing
        self._compute = compute
        self._losses: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._labels: list[Tensor] = []

    def add(self, part: _Part) -> None:
        """One part; DDP's processes share their gradients after the last one alone."""
        with nullcontext() if part.last else _unshared(self._model):
            with nullcontext() if self._compute is None else self._compute:
                logits = self._place.forward(self._model, part.images).float()
            logits, labels = logits[: part.kept], part.labels[: part.kept]
            loss = _mean_loss(logits, labels, self._smoothing)
            (loss if part.weight == 1.0 else loss * part.weight).backward()
        self._losses.append(loss.detach())
        self._logits.append(logits.detach())
        self._labels.append(labels)

    def found(self) -> tuple[Tensor, Tensor, Tensor]:
        """This process's mean loss, and logits and labels of its images that count."""
        if len(self._losses) == 1:
            return self._losses[0], self._logits[0], self._labels[0]
        sizes = [len(labels) for labels in self._labels]
        pairs = zip(self._losses, sizes, strict=True)
        loss = torch.stack([loss * size for loss, size in pairs]).sum() / max(1, sum(sizes))
        return loss, torch.cat(self._logits), torch.cat(self._labels)


def _unshared(model: nn.Module) -> AbstractContextManager[None]:
    # FSDP2 adds each part's gradients to its rows: a message more, and no second copy of them.
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()


def _counts(counted: Counted | None, index: int, place: Place) -> tuple[int, float] | None:
    """Images that count here, and the share of each in the loss; None: all, evenly."""
    if counted is None or place.world.size == 1:
        return None
    here, everywhere = counted(index)
    return here, place.world.size / everywhere


def _parts(
    images: Tensor, labels: Tensor, part_size: int | None, counts: tuple[int, float] | None
) -> Iterator[_Part]:
    here, share = (len(images), 1 / max(1, len(images))) if counts is None else counts
    parts = 1 if part_size is None else max(1, len(images) // part_size)
    if counts is None and parts == 1:
        yield _Part(images, labels, here, 1.0, last=True)
        return
    low = 0
    pieces = zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True)
    for number, (some, their) in enumerate(pieces, 1):
        kept = max(0, min(len(some), here - low))
        yield _Part(some, their, kept, kept * share, last=number == parts)
        low += len(some)


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
