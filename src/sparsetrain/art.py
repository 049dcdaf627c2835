"""ART: train dense, regularise until the pruned copy is as accurate, prune, fine-tune."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from . import masks as mask_algebra
from . import sharded
from .art_rule import ArtRule, ArtState, Candidate, Compat, Outcome, Phase, start, transition
from .masking import check_state
from .methods.dense import Dense
from .methods.static import Static
from .optimizers import first_learning_rates, restart_
from .phases import PhaseDriver
from .regularizers import HyperSparse, Regularizer
from .selection import Patterns, select
from .snapshot import Snapshot
from .sparsifier import Sparsifier
from .types import Masks

_log = logging.getLogger(__name__)
_STATE = ("sparsity", "state", "last", "first_lrs", "snapshots", "sparsifier")


class ART(PhaseDriver):
    """Automatic regularised training in any loop; call `epoch_end` once an epoch::

        art = st.ART(model, optimizer, sparsity=0.9, dense_epochs=60, finetune_epochs=160,
                     max_regularize_epochs=150)
        while art.phase != "done":
            accuracy = train_one_epoch()
            art.epoch_end(accuracy, evaluate=lambda model: accuracy_on_training_set(model))

    While regularising, the regulariser's gradient is added before each optimizer step, its
    strength growing by `strength_factor` an epoch; after each epoch the weights are pruned for
    the time of one `evaluate` and put back. On the way into fine-tuning the chosen pruned copy is
    restored, `optimizer.state` is cleared and the first learning rates are set again; a learning
    rate scheduler must be made anew then (`phase_changed`).

    Args:
        model: any module; nothing is added to it.
        optimizer: holds every selected parameter.
        sparsity: fraction of zeros over all selected weights, 0 <= sparsity < 1.
        regularizer: None is `HyperSparse(sparsity)`.
        dense_epochs: epochs before regularising.
        finetune_epochs: epochs after pruning.
        max_regularize_epochs: cap; when it is reached the best pruned copy so far is taken.
        strength: factor of the regulariser in its first epoch; the defaults are the source's, for
            64 epochs of 782 steps at 99 % zeros. `art_strengths` gives those of another budget.
        strength_factor: growth of the strength an epoch.
        window: pruned accuracies that are averaged, odd.
        include: patterns of `st.select`.
        exclude: patterns of `st.select`.
        compat: "paper" takes the published decisions: the stored best against the current dense
            accuracy, and the border weight pruned too.
        recalibrate: called with the pruned network before `evaluate`, for example with
            `st.recalibrate_batchnorm_`; buffers are put back afterwards.

    Attributes:
        phase_changed: whether the last `epoch_end` began another phase.
        last: numbers of the last regularising epoch: dense_accuracy, pruned_accuracy, window_mean
            and strength; empty before the first.
        rule: the run's constants.
        state: where the run stands.
    Raises:
        ValueError: a value out of range, nothing prunable, or parameters not in the optimizer.
    Source: arXiv 2308.07163.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        sparsity: float,
        regularizer: Regularizer | None = None,
        dense_epochs: int,
        finetune_epochs: int,
        max_regularize_epochs: int,
        strength: float = 5e-6,
        strength_factor: float = 1.05,
        window: int = 3,
        include: Patterns = None,
        exclude: Patterns = None,
        compat: Compat = None,
        recalibrate: Callable[[nn.Module], None] | None = None,
    ) -> None:
        self._target = mask_algebra.check_sparsity(sparsity)
        if not strength >= 0 or not strength_factor > 0:
            raise ValueError(
                "strength must be at least 0 and strength_factor above 0, "
                f"got {strength} and {strength_factor}"
            )
        self.rule = ArtRule(
            dense_epochs=dense_epochs,
            finetune_epochs=finetune_epochs,
            max_regularize_epochs=max_regularize_epochs,
            window=window,
            compat=compat,
        )
        self.state: ArtState = start(self.rule)
        self.phase_changed = False
        self.last: dict[str, float] = {}
        self._strength, self._factor = strength, strength_factor
        self._recalibrate = recalibrate
        self._regularizer = HyperSparse(self._target) if regularizer is None else regularizer
        self._snapshots: dict[int, Snapshot] = {}
        self._model, self._optimizer = model, optimizer
        sharded.reshard_(model)
        self._parameters = select(model, include, exclude)
        self._first_lrs = first_learning_rates(optimizer)
        self._sparsifier = self._make_sparsifier(None)

    @property
    def phase(self) -> Phase:
        """The phase that the next epoch belongs to."""
        return self.state.phase

    @property
    def outcome(self) -> Outcome | None:
        """Why regularising ended: converged, cap or collapsed; None before that."""
        return self.state.outcome

    @property
    def strength(self) -> float:
        """The regulariser's factor in the coming epoch, 0 outside the regularising phase."""
        if self.phase != "regularize":
            return 0.0
        return self._strength * self._factor**self.state.epoch

    def epoch_end(self, train_accuracy: float, evaluate: Callable[[nn.Module], float]) -> None:
        """Tell ART that an epoch is over.

        Args:
            train_accuracy: of the network over this epoch; averaged over ranks. Any number of at
                least 0 does of which more is better and which `evaluate` gives alike: IoU, R² held
                at 0, exp(-loss). A loss does not.
            evaluate: model -> accuracy on the training data; called only while regularising, in
                eval mode and without gradients, with the weights pruned for that time.
        Raises:
            ValueError: an accuracy is not a finite number of at least 0, or the run is done.
            FloatingPointError: a weight is NaN or infinite.
        """
        self._sparsifier.check_finite()
        dense, pruned, before = _mean_over_ranks(train_accuracy), None, self.phase
        strength = self.strength
        snapshot: Snapshot | None = None
        if before == "regularize":
            snapshot, accuracy = self._evaluate_pruned(evaluate)
            pruned = _mean_over_ranks(accuracy)
        state = transition(self.rule, self.state, dense, pruned)
        if snapshot is not None and pruned is not None:
            self._remember(snapshot, state)
            self.last = {
                "dense_accuracy": dense,
                "pruned_accuracy": pruned,
                "window_mean": state.window_mean,
                "strength": strength,
            }
        if before == "regularize" and state.phase != before:
            self._start_finetuning(state)
        self.state = state
        self.phase_changed = state.phase != before
        self._sparsifier.strength = self.strength

    def state_dict(self) -> dict[str, Any]:
        """Everything resume needs, as tensors, numbers and strings."""
        return {
            "sparsity": self._target,
            "state": asdict(self.state),
            "last": dict(self.last),
            "first_lrs": list(self._first_lrs),
            "snapshots": {
                epoch: s.state_dict(self._parameters) for epoch, s in self._snapshots.items()
            },
            "sparsifier": self._sparsifier.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; load model and optimizer by their own calls.

        Raises:
            ValueError: the state is of another sparsity or of other layers, or no whole state;
                nothing is changed.
        """
        check_state(state, _STATE)
        if state["sparsity"] != self._target:
            raise ValueError(
                f"the state is of sparsity {state['sparsity']}, this run's is {self._target}"
            )
        fields = dict(state["state"])
        fields["window"] = tuple((int(e), float(a)) for e, a in fields["window"])
        fields["best"] = Candidate(**fields["best"]) if fields["best"] else None
        snapshots = {
            int(epoch): Snapshot.of_state(copy, self._model, self._parameters)
            for epoch, copy in state["snapshots"].items()
        }
        self._load_sparsifier(state["sparsifier"])
        self.state = ArtState(**fields)
        self.last = dict(state["last"])
        self._first_lrs = list(state["first_lrs"])
        self._snapshots = snapshots

    def finalize(self) -> None:
        """Take the hooks off; the zeros stay."""
        self._sparsifier.finalize()

    def _make_sparsifier(self, masks: Mapping[str, Tensor] | None) -> Sparsifier:
        names = list(self._parameters)
        if masks is not None:
            return Sparsifier(self._model, self._optimizer, Static(masks=masks), include=names)
        return Sparsifier(
            self._model,
            self._optimizer,
            Dense(),
            include=names,
            regularizer=self._regularizer,
            strength=self.strength,
        )

    def _evaluate_pruned(self, evaluate: Callable[[nn.Module], float]) -> tuple[Snapshot, float]:
        masks = self._border_masks()
        with _pruned(self._model, self._parameters, masks):
            if self._recalibrate is not None:
                self._recalibrate(self._model)
            snapshot = Snapshot.take(self._model, self._parameters, masks)
            with torch.no_grad():
                return snapshot, float(evaluate(self._model))

    def _border_masks(self) -> Masks:
        scores = {name: p.detach().abs() for name, p in self._parameters.items()}
        total = sum(score.numel() for score in scores.values())
        keep = mask_algebra.kept(total, self._target)
        if self.rule.compat == "paper":
            # In binary floating point, as the published code has it: 0.29 of 100 is 28.
            return mask_algebra.keep_global_strict(scores, int(self._target * total))
        return mask_algebra.keep_global(scores, keep)

    def _remember(self, snapshot: Snapshot, state: ArtState) -> None:
        """Hold the copies of the window and the best, and no other."""
        self._snapshots[self.state.epoch + 1] = snapshot
        needed = {epoch for epoch, _ in state.window}
        needed |= {state.best.epoch} if state.best else set()
        self._snapshots = {e: s for e, s in self._snapshots.items() if e in needed}

    def _start_finetuning(self, state: ArtState) -> None:
        if state.outcome != "converged":
            capped = state.outcome == "cap"
            _log.warning(
                "ART %s after %d regularising epochs; pruning the best copy so far, of epoch %s",
                "reached its cap" if capped else "saw the dense network collapse",
                max(epoch for epoch, _ in state.window),
                state.chosen,
            )
        assert state.chosen is not None
        chosen = self._snapshots[state.chosen]
        chosen.restore_(self._model, self._parameters)
        restart_(self._optimizer, self._first_lrs)
        self._replace_sparsifier(chosen.masks(self._parameters))
        self._snapshots.clear()


@contextmanager
def _pruned(
    model: nn.Module, parameters: Mapping[str, nn.Parameter], masks: Masks
) -> Iterator[None]:
    """The model in eval mode with its weights pruned; everything is put back, whatever happens."""
    sharded.reshard_(model)
    weights = {name: sharded.local(p).clone() for name, p in parameters.items()}
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    training = {module: module.training for module in model.modules()}
    try:
        for name, parameter in parameters.items():
            sharded.local(parameter).masked_fill_(~sharded.local(masks[name]), 0)
        model.eval()
        yield
    finally:
        sharded.reshard_(model)
        for name, parameter in parameters.items():
            sharded.local(parameter).copy_(weights[name])
        for module, name, buffer, before in buffers:
            buffer.copy_(before)
            setattr(module, name, buffer)  # in case someone put another tensor in its place
        for module, flag in training.items():
            module.training = flag


def _mean_over_ranks(value: float) -> float:
    value = float(value)
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return value
    device = "cuda" if "nccl" in dist.get_backend() else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total.item()) / dist.get_world_size()
