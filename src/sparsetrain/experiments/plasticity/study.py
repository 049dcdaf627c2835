"""One pruning of a dense training, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ... import methods
from ...data.catalog import AnyDataset
from ...optimizers import initial_state, same_shaped_state
from ...training.checkpoint import of_epoch
from ...training.config import TrainConfig
from ...training.loop import evaluate, train_epoch
from ...training.plans.single import attach
from ...training.schedule import rate, warmed
from ...training.session import Session, build_session
from ...training.state import RunState
from ...types import Masks
from .variants import Variant, masks_for


@dataclass(frozen=True)
class Study:
    """A finished dense training, with a checkpoint of every epoch.

    Attributes:
        config: resolved, of the dense run.
        checkpoints: folder of its checkpoints.
        recover: epochs of training at the frozen learning rate after a pruning.
        to_end: whether training also goes on to the dense run's end, on its own schedule.
        share: of the weights left, exchanged by regrowth.
    """

    config: TrainConfig
    checkpoints: Path
    dataset: AnyDataset
    recover: int
    to_end: bool
    share: float

    def measure(
        self, variant: Variant, *, check: Callable[[], None] = lambda: None
    ) -> dict[str, Any]:
        """Prune, train on, and compare accuracies on held-out images.

        Args:
            check: called after each batch; what it raises ends the measurement.
        Returns:
            accuracies as fractions: before, pruned, recovered, and end where asked for; and
            `plasticity`, recovered - before.
        """
        found: dict[str, Any] = dict(variant.about())
        session, lr = self._pruned(variant, found, check)
        last = variant.epoch + self.recover
        self._train(session, variant.epoch, last, lambda *_: lr, check)
        found["recovered"] = _accuracy(session, check)
        found["plasticity"] = found["recovered"] - found["before"]
        if self.to_end:
            session, _ = self._pruned(variant, {}, check)
            last = self.config.optim.epochs
            self._train(session, variant.epoch, last, self._scheduled(session), check)
            found["end"] = _accuracy(session, check)
        return found

    def _pruned(
        self, variant: Variant, found: dict[str, Any], check: Callable[[], None]
    ) -> tuple[Session, float]:
        """The dense run at the variant's epoch, pruned, and the rate of the step before."""
        session = build_session(self.config, dataset=self.dataset)
        path = of_epoch(self.checkpoints, variant.epoch)
        saved = torch.load(path, map_location="cpu", weights_only=True)
        RunState.fresh(self.config, session).load_state_dict(saved)
        session.plan.finalize()
        found["before"] = _accuracy(session, check)
        seed = self.config.run.seed
        masks, grown = masks_for(
            variant,
            session.model,
            _gradients(session, variant.epoch),
            share=self.share,
            seed=seed,
            include=self.config.sparse.include or None,
            exclude=self.config.sparse.exclude,
        )
        _forget_(session, grown)
        kept = sum(int(mask.sum()) for mask in masks.values())
        total = sum(mask.numel() for mask in masks.values())
        found["sparsity"] = 1 - kept / total
        method = methods.static(sparsity=variant.fraction, masks=masks)
        attach(self.config, session.model, session.optimizer, method)
        found["pruned"] = _accuracy(session, check)
        found["lr"] = self._scheduled(session)(variant.epoch - 1, len(session.train) - 1)
        return session, found["lr"]

    def _scheduled(self, session: Session) -> Callable[[int, int], float]:
        """(epoch, batch) -> the dense run's learning rate."""
        optim, steps = self.config.optim, len(session.train)

        def lr(epoch: int, batch: int) -> float:
            step = min(epoch * steps + batch, optim.epochs * steps - 1)
            return warmed(optim, step, steps) * rate(optim, step, optim.epochs * steps)

        return lr

    def _train(
        self,
        session: Session,
        first: int,
        last: int,
        lr: Callable[[int, int], float],
        check: Callable[[], None],
    ) -> None:
        for epoch in range(first, last):
            train_epoch(
                session.network,
                session.optimizer,
                session.train.batches(epoch),
                place=session.place,
                lr=lambda batch, epoch=epoch: lr(epoch, batch),
                label_smoothing=self.config.optim.label_smoothing,
                part_size=max(1, session.train.full // self.config.optim.accumulate),
                after=check,
            )


def _gradients(session: Session, epoch: int) -> Mapping[str, Tensor]:
    """The dense gradient of the next batch; batch norm's running statistics stay."""
    images, labels = next(session.train.batches(epoch))
    session.model.eval()
    session.optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(session.place.forward(session.model, images).float(), labels).backward()
    found = {n: p.grad.clone() for n, p in session.model.named_parameters() if p.grad is not None}
    session.optimizer.zero_grad(set_to_none=True)
    session.model.train()
    return found


@torch.no_grad()
def _forget_(session: Session, grown: Masks) -> None:
    """Grown weights have the optimizer state of new ones, not that of the weights before them."""
    for name, parameter in session.model.named_parameters():
        if name in grown:
            initial = initial_state(session.optimizer, parameter)
            for key, state in same_shaped_state(session.optimizer, parameter).items():
                state.masked_fill_(grown[name], initial.get(key, 0.0))


def _accuracy(session: Session, check: Callable[[], None]) -> float:
    assert session.held_out is not None  # `command` sees to it
    batches = session.held_out.batches(0)
    return evaluate(session.model, batches, place=session.place, after=check).accuracy
