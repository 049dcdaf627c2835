"""ART as a plan: three phases, the second of which ends by ART's rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ...art import ART
from ...art_strengths import art_strengths
from ...batchnorm import recalibrate_batchnorm_
from ...data.deal import Feed
from ...regularizers import L1, L2, HyperSparse, Regularizer
from ...sparsifier import Sparsifier
from ..config import ArtOptions, TrainConfig
from .base import Phase

_RECALIBRATION_IMAGES = 2048


class ArtPlan:
    """ART: dense, regularize, finetune; the second phase ends by ART's rule."""

    def __init__(
        self, config: TrainConfig, model: nn.Module, optimizer: Optimizer, train: Feed
    ) -> None:
        options: ArtOptions = config.options
        self._options, self._total = options, config.optim.epochs
        self._dense, self._most = options.dense_epochs or 0, options.max_regularize_epochs or 1
        self._ends: dict[str, int] = {}
        self._strength, self._factor = art_strengths(
            config.sparse.sparsity,
            epochs=self._most,
            steps_per_epoch=len(train),
            strength=options.strength,
            strength_factor=options.strength_factor,
        )
        finetune = options.finetune_epochs
        if finetune is None:  # the most that can be left; `end_after` cuts it
            finetune = self._total - self._dense - 1
        self._art = ART(
            model,
            optimizer,
            sparsity=config.sparse.sparsity,
            regularizer=_regularizer(options.regularizer, config.sparse.sparsity),
            dense_epochs=self._dense,
            finetune_epochs=finetune,
            max_regularize_epochs=self._most,
            strength=self._strength,
            strength_factor=self._factor,
            window=options.window,
            include=config.sparse.include or None,
            exclude=config.sparse.exclude,
            compat="paper" if config.sparse.compat == "paper" else None,
            recalibrate=_Recalibration(train) if options.recalibrate else None,
        )

    @property
    def phase(self) -> Phase:
        """ART's phase, with its length where known."""
        name = self._art.phase
        if name == "dense":
            return Phase(name, 0, self._dense, scheduled=False)
        if name == "regularize":
            return Phase(name, self._dense, self._most, scheduled=False)
        first = self._ends["regularize"]
        return Phase(name, first, self.end_after(first) - first, scheduled=True)

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """ART's masks, all active before fine-tuning."""
        return self._art.masks

    @property
    def engine(self) -> ART:
        """What keeps the masks."""
        return self._art

    @property
    def sparsity(self) -> float:
        """ART's sparsity, 0 before fine-tuning."""
        return self._art.sparsity

    @property
    def sparsifier(self) -> Sparsifier:
        """ART's engine of the phase."""
        return self._art.sparsifier

    def end_epoch(
        self, epoch: int, accuracy: float, evaluate: Callable[[nn.Module], float]
    ) -> dict[str, float]:
        """Let ART judge the epoch."""
        before = self._art.phase
        self._art.epoch_end(accuracy, evaluate)
        if self._art.phase_changed:
            self._ends[before] = epoch + 1
        if before != "regularize":
            return {}
        last = self._art.last
        return {
            "pruned_train_accuracy": last["pruned_accuracy"],
            "pruned_window_mean": last["window_mean"],
            "strength": last["strength"],
        }

    def end_after(self, epoch: int) -> int:
        """All phases together; known once regularising has ended, an upper bound before."""
        finetune = self._options.finetune_epochs
        if finetune is None or "regularize" not in self._ends:
            return self._total
        return self._ends["regularize"] + finetune

    def facts(self) -> dict[str, Any]:
        """How regularising ended, and its last comparison."""
        last = self._art.last
        return {
            "outcome": self._art.outcome,
            "dense_epochs": self._dense,
            "regularize_epochs": self._ends["regularize"] - self._dense,
            "chosen_regularize_epoch": self._art.state.chosen,
            "first_strength": self._strength,
            "strength_factor": self._factor,
            "last_strength": last["strength"],
            "dense_train_accuracy": last["dense_accuracy"],
            "pruned_train_accuracy": last["pruned_accuracy"],
        }

    @property
    def update_seconds(self) -> float:
        """None: ART decides between epochs."""
        return 0.0

    def state_dict(self) -> dict[str, Any]:
        """ART's, and the ends of the phases."""
        return {"art": self._art.state_dict(), "ends": dict(self._ends)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """ART's, and the ends of the phases."""
        self._art.load_state_dict(state["art"])
        self._ends = dict(state["ends"])

    def finalize(self) -> None:
        """Take the hooks off; the zeros stay."""
        self._art.finalize()


class _Recalibration:
    """Batch-norm statistics from the first batches of epoch 0."""

    def __init__(self, train: Feed) -> None:
        self._train = train

    def __call__(self, model: nn.Module) -> None:
        images = (images for images, _ in self._train.batches(0))
        first = next(images)
        count = max(1, _RECALIBRATION_IMAGES // len(first))
        with torch.no_grad():
            recalibrate_batchnorm_(model, [first, *islice(images, count - 1)])


def _regularizer(name: str, sparsity: float) -> Regularizer:
    kinds: dict[str, Callable[[], Regularizer]] = {
        "hypersparse": lambda: HyperSparse(sparsity),
        "l1": L1,
        "l2": L2,
    }
    return kinds[name]()
