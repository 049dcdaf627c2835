"""Iterative magnitude pruning: train, prune the smallest, rewind, again; the lottery ticket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import masks as mask_algebra
from . import sharded
from .hooks import StepHooks
from .imp_rule import ImpRule, ImpState, Phase, Rewind, transition
from .masking import check_state
from .methods.dense import Dense
from .methods.static import Static
from .optimizers import first_learning_rates, restart_
from .phases import PhaseDriver
from .selection import Patterns, named_tensors, select
from .sparsifier import Sparsifier
from .types import Masks


class IMP(PhaseDriver):
    """Iterative magnitude pruning in any loop; call `epoch_end` once an epoch::

        imp = st.IMP(model, optimizer, sparsity=0.9, epochs_per_round=160)
        while imp.phase != "done":
            train_one_epoch()
            imp.epoch_end()

    After the dense training, and again after each but the last, the smallest weights of those
    left are pruned over all layers together, the others go back to where `rewind` says (with them
    every other parameter and buffer), `optimizer.state` is cleared and the first learning rates
    are set again; a learning rate scheduler must be made anew then (`phase_changed`). One-shot
    pruning and fine-tuning is `rounds=1, rewind="learning-rate"`.

    Args:
        model: any module; nothing is added to it.
        optimizer: holds every selected parameter.
        sparsity: fraction of zeros over all selected weights at the end, 0 <= sparsity < 1.
        epochs_per_round: epochs of each training, the dense one too.
        final_epochs: epochs of the last training; None is `epochs_per_round`.
        rounds: prunings, in equal shares; None is as many as `fraction` needs.
        fraction: of the weights that are left, removed each round.
        rewind: "start"; k, the weights after optimizer step k of the dense training; or
            "learning-rate", where the weights stay.
        include: patterns of `st.select`.
        exclude: patterns of `st.select`.

    Attributes:
        phase_changed: whether the last `epoch_end` pruned, or ended the run.
        rule: the run's constants.
        state: where the run stands.
    Raises:
        ValueError: a value out of range, nothing prunable, or parameters not in the optimizer.
    Source: arXiv 1803.03635 (start), 1912.05671 (step k), 2003.02389 (learning rate). Deviates:
        each training has its whole length, also after step k.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        sparsity: float,
        epochs_per_round: int,
        final_epochs: int | None = None,
        rounds: int | None = None,
        fraction: float = 0.2,
        rewind: Rewind = "start",
        include: Patterns = None,
        exclude: Patterns = None,
    ) -> None:
        self.rule = ImpRule(
            sparsity=mask_algebra.check_sparsity(sparsity),
            epochs_per_round=epochs_per_round,
            final_epochs=final_epochs,
            rounds=rounds,
            fraction=fraction,
            rewind=rewind,
        )
        self.state = ImpState()
        self.phase_changed = False
        self._model, self._optimizer = model, optimizer
        sharded.reshard_(model)
        self._parameters = select(model, include, exclude)
        self._first_lrs = first_learning_rates(optimizer)
        self._sparsifier = self._make_sparsifier(None)
        self._rewind = _copied(model) if rewind in ("start", 0) else {}
        self._hooks: StepHooks | None = None
        self._watch()

    @property
    def phase(self) -> Phase:
        """What the next epoch belongs to: the dense training, a sparse one, or none."""
        if self.state.done:
            return "done"
        return "sparse" if self.state.round else "dense"

    @property
    def round(self) -> int:
        """Prunings so far; `rule.total_rounds` at the end."""
        return self.state.round

    def epoch_end(
        self,
        train_accuracy: float | None = None,
        evaluate: Callable[[nn.Module], float] | None = None,
    ) -> None:
        """Tell IMP that an epoch is over; prunes and rewinds where a round ends.

        Args:
            train_accuracy: not used; here so that one loop serves ART and IMP.
            evaluate: not used.
        Raises:
            ValueError: the run is done, or the step to rewind to was never reached.
            FloatingPointError: a weight is NaN or infinite.
        """
        self._sparsifier.check_finite()
        state = transition(self.rule, self.state)
        if state.round != self.state.round:
            self._next_round(state.round)
        self.phase_changed = state.done or state.round != self.state.round
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        """Everything resume needs, as tensors, numbers and strings."""
        return {
            "plan": self._plan(),
            "state": asdict(self.state),
            "first_lrs": list(self._first_lrs),
            "rewind": sharded.full_state(self._rewind),
            "sparsifier": self._sparsifier.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; load model and optimizer by their own calls.

        Raises:
            ValueError: the state is of another plan or of other layers, or no whole state; nothing
                is changed.
        """
        check_state(state, ("plan", "state", "first_lrs", "rewind", "sparsifier"))
        for name, value in self._plan().items():
            if state["plan"][name] != value:
                raise ValueError(
                    f"the state is of {name}={state['plan'][name]!r}, this run's is {value!r}"
                )
        self._load_sparsifier(state["sparsifier"])
        self.state = ImpState(**state["state"])
        self._first_lrs = list(state["first_lrs"])
        rewind = sharded.full_state(state["rewind"])
        self._rewind = sharded.place_state(rewind, named_tensors(self._model))
        self._watch()

    def finalize(self) -> None:
        """Take the hooks off; the zeros stay."""
        self._unhook()
        self._sparsifier.finalize()

    def _next_round(self, number: int) -> None:
        if self.rule.rewind != "learning-rate" and not self._rewind:
            raise ValueError(
                f"rewind={self.rule.rewind} was not reached: the dense training took "
                f"{self._sparsifier.step} steps; rewind to an earlier one"
            )
        self._unhook()
        masks = self._smallest_off(number)
        self._restore_()
        restart_(self._optimizer, self._first_lrs)
        self._replace_sparsifier(masks)

    def _plan(self) -> dict[str, Any]:
        """What decides the counts of all rounds, and where the weights go back to."""
        rule = self.rule
        return {"sparsity": rule.sparsity, "rounds": rule.total_rounds, "rewind": rule.rewind}

    def _smallest_off(self, number: int) -> Masks:
        """The masks after `number` prunings; a pruned weight never comes back."""
        scores = {
            name: p.detach().abs().masked_fill(~self.masks[name], -torch.inf)
            for name, p in self._parameters.items()
        }
        return mask_algebra.keep_global(scores, self.rule.kept(mask_algebra.total(scores), number))

    @torch.no_grad()
    def _restore_(self) -> None:
        for name, tensor in named_tensors(self._model).items():
            if name in self._rewind:
                tensor.copy_(self._rewind[name])

    def _make_sparsifier(self, masks: Mapping[str, Tensor] | None) -> Sparsifier:
        method = Dense() if masks is None else Static(masks=masks)
        names = list(self._parameters)
        return Sparsifier(self._model, self._optimizer, method, include=names)

    def _watch(self) -> None:
        """Look out for the step to rewind to, if it is still to come."""
        self._unhook()
        if self.state.round == 0 and not self._rewind and self.rule.rewind != "learning-rate":
            # Behind the Sparsifier's own hooks, so that its count has the step.
            self._hooks = StepHooks(self._optimizer, lambda _: None, self._note_step)

    def _note_step(self) -> None:
        if self._sparsifier.step == self.rule.rewind:
            self._rewind = _copied(self._model)

    def _unhook(self) -> None:
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in named_tensors(model).items()}
