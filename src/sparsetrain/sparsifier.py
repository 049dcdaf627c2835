"""Sparsifier: a method attached to a model and its optimizer; the model stays untouched."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import masks as mask_algebra
from . import sharded
from .agreement import check_ranks_agree
from .attachment import Attachment, check_free, check_kinds
from .emptiness import warn_of_empty_layers
from .finite import FiniteCheck
from .hooks import StepHooks
from .masking import Masking, check_masks, check_state
from .optimizers import SetAside, check_supported, first_moment
from .regularizers import Regularizer
from .selection import Patterns, select
from .table import mask_table
from .types import FreshStart, Masks, Method, Observer, View, observes
from .weight_norm import check_directions, directions

STATE = ("method", "step", "masks", "memory", "generator", "strength")


class Sparsifier:
    """Keeps a network sparse while any loop trains it.

    Attach it once, after model and optimizer exist; the loop stays as it is::

        sparsifier = st.Sparsifier(model, optimizer, method)

    After every optimizer step, pruned weights and their optimizer state are exactly zero; when
    the method says so, the masks are updated.

    With FSDP2, make it after `fully_shard` and the optimizer. `masks` are then DTensors placed like
    their parameters, not to be changed by hand, and reading `sparsity`, `summary`, `state_dict`
    and all that changes masks is collective: every rank must call it. `state_dict` is whole, and
    loads on any number of processes.

    Args:
        model: any module; its parameters are masked in place and nothing is added to it.
        optimizer: holds every selected parameter.
        method: decides the masks, e.g. `st.methods.static(sparsity=0.9)`.
        seed: of the engine's own generator, so that masks do not move when other code draws.
        include: patterns of `st.select`.
        exclude: patterns of `st.select`.
        regularizer: its gradient times `strength` is added to `p.grad` before each step.
        strength: factor of the regulariser; may be set at any time.

    Attributes:
        step: optimizer steps taken.
        updates: mask updates so far in this process.
        update_seconds: time that they have taken.

    Raises:
        TypeError: model, optimizer or method is something else.
        ValueError: nothing is prunable, a selected parameter is not in the optimizer, or the
            optimizer cannot be masked (LBFGS, SparseAdam), or a selected parameter is sharded
            otherwise than in whole rows, or a row under weight norm would lose all its weights,
            or another attached Sparsifier masks one of the parameters.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        method: Method,
        *,
        seed: int = 0,
        include: Patterns = None,
        exclude: Patterns = None,
        regularizer: Regularizer | None = None,
        strength: float = 0.0,
    ) -> None:
        check_kinds(model, optimizer, method)
        self.method = method
        self._observer: Observer | None = cast(Observer, method) if observes(method) else None
        self._skips = bool(getattr(method, "skip_weight_step", False))
        self.regularizer = regularizer
        self.strength = strength
        self.step = 0
        self.updates = 0
        self.update_seconds = 0.0
        self._generator = torch.Generator().manual_seed(seed)
        sharded.reshard_(model)
        self._parameters = select(model, include, exclude)
        sharded.check_layout(self._parameters)
        check_free(self._parameters)
        self._normed = directions(model, self._parameters)
        self._finite = FiniteCheck()
        self._grads: dict[str, Tensor] = {}
        self._hidden = SetAside()
        self._sparse_passes = False
        self._hooks: StepHooks | None = None
        self._attachment: Attachment | None = None
        self._hook(optimizer, model)
        try:
            masks, memory = method.init(self._view())
            check_masks(masks, self._parameters)
            check_ranks_agree(masks, self.step, generator=self._draws())
            check_directions(masks, self._normed)
        except BaseException:
            self.detach()
            raise
        self._memory = sharded.place_state(memory, self._parameters)
        self._masking = Masking(self._parameters, optimizer, masks)
        fresh = method.fresh(self._view(), self.masks) if isinstance(method, FreshStart) else {}
        self._masking.begin_(fresh)
        self._empty = warn_of_empty_layers(self.masks)

    @property
    def masks(self) -> Masks:
        """name -> bool tensor, True = active; changed in place, by hand too."""
        return self._masking.masks

    @property
    def sparsity(self) -> float:
        """The fraction of zeros achieved over all selected weights."""
        self._check_model()
        return mask_algebra.sparsity(self.masks)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """name -> the parameter that its mask prunes."""
        return dict(self._parameters)

    @property
    def needs_dense_gradients(self) -> bool:
        """Whether the coming step's method looks at gradients of pruned weights."""
        return self._observer is not None or self.method.when(self.step + 1)

    def note_sparse_passes(self) -> None:
        """The coming step's passes use kept weights alone; so may the optimizer's step, then."""
        self._sparse_passes = True

    def apply_(self) -> None:
        """Zero the pruned weights and their optimizer state now, by `masks` as they are."""
        self._masking.apply_()

    @torch.no_grad()
    def mask_grads_(self) -> None:
        """Zero the gradients of pruned weights, for gradient norms and the like."""
        for name, parameter in self._parameters.items():
            if parameter.grad is not None:
                pruned = ~sharded.local(self.masks[name])
                sharded.local(parameter.grad).masked_fill_(pruned, 0)

    def check_finite(self) -> None:
        """Raise if a selected weight is NaN or infinite; on CPU every step does this at once.

        Raises:
            FloatingPointError: names the first bad step and the layers that are bad now.
            ValueError: the model holds other parameters by now.
        """
        self._check_model()
        self._finite.check(self._parameters, self.step)

    def summary(self) -> str:
        """One line a layer (shape, kept, weights, sparsity) and the total, as aligned text."""
        self._check_model()
        return mask_table(self.masks)

    def state_dict(self) -> dict[str, Any]:
        """Everything resume needs, as tensors, numbers and strings (`weights_only` can load it)."""
        self.check_finite()
        return {
            "method": type(self.method).__name__,
            "step": self.step,
            "masks": sharded.full_state(self.masks),
            "memory": sharded.full_state(self._memory),
            "generator": self._generator.get_state(),
            "strength": self.strength,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken; model and optimizer may be loaded before or after.

        The state's masks and step replace this object's; the method's settings are those it was
        made with here, so that a run may be continued with more steps.

        Raises:
            ValueError: the state is of another method or of other layers, or no whole state;
                nothing is changed then.
            RuntimeError: the ranks were given different states.
        """
        check_state(state, STATE)
        name = type(self.method).__name__
        if state["method"] != name:
            raise ValueError(
                f"the state is of method {state['method']!r}, this Sparsifier's is {name!r}"
            )
        check_masks(state["masks"], self._parameters)
        check_ranks_agree(state["masks"], int(state["step"]))
        self._masking.undo_()
        self.step = int(state["step"])
        self.strength = float(state["strength"])
        self._memory = sharded.place_state(sharded.full_state(state["memory"]), self._parameters)
        self._generator.set_state(state["generator"].cpu())
        self._finite = FiniteCheck()
        self._masking.install_(state["masks"])

    def attach(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Move to a copy of model and optimizer, or onto an optimizer that lost its hooks.

        Copying or unpickling an optimizer drops its hooks. Masks, step and memory stay.

        Raises:
            ValueError: the model lacks a selected parameter or has it in another shape, the
                optimizer lacks it, or another Sparsifier masks it; nothing is changed then.
        """
        sharded.reshard_(model)
        parameters = select(model, include=list(self._parameters))
        parameters = {name: parameters[name] for name in self._parameters}
        check_masks(self.masks, parameters)
        sharded.check_layout(parameters)
        check_free(parameters, besides=self._attachment)
        old, self._parameters = self._parameters, parameters
        try:
            self._hook(optimizer, model)
        except ValueError:
            self._parameters = old
            raise
        self._masking.move(parameters, optimizer)

    def finalize(self) -> None:
        """Take the hooks off; the zeros stay, the model is an ordinary one."""
        self.check_finite()
        self.apply_()
        self._masking.forget()
        self.detach()

    def detach(self) -> None:
        """Take the hooks off and do nothing else; `attach` puts them on again."""
        if self._hooks is not None:
            self._hooks.remove()
            self._hooks = None
        self._attachment = None

    def __getstate__(self) -> dict[str, Any]:
        # Copies of the optimizer lose their hooks, so they cannot go along; see __setstate__.
        return {**vars(self), "_hooks": None, "_attachment": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._hook(self._optimizer)

    def __enter__(self) -> Sparsifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finalize()
        else:
            self.detach()

    def _check_model(self) -> None:
        if self._attachment is not None:
            self._attachment.check()

    def _hook(self, optimizer: Optimizer, model: nn.Module | None = None) -> None:
        check_supported(optimizer, self._parameters)
        self.detach()
        self._optimizer = optimizer
        self._hooks = StepHooks(optimizer, self._before_step, self._after_step)
        self._attachment = Attachment(self._parameters, model)

    @torch.no_grad()
    def _before_step(self, scale: float) -> None:
        self._hidden.give_back()  # of a step that failed
        if self._observer is not None or self.method.when(self.step + 1):
            # Now, because a foreach optimizer with Nesterov momentum overwrites p.grad.
            self._grads = {
                name: p.grad.detach() / scale
                for name, p in self._parameters.items()
                if p.grad is not None
            }
        if self._skips and self.method.when(self.step + 1):
            self._hide_grads()
            return
        if self.regularizer is not None and self.strength != 0.0:
            self._regularize_(self.regularizer, scale)
        # Other hooks there are to find gradients before the step and moved weights after it.
        if (
            self._sparse_passes
            and scale == 1.0
            and self._hooks is not None
            and self._hooks.adjacent
        ):
            self._masking.take_steps()

    def _regularize_(self, regularizer: Regularizer, scale: float) -> None:
        weights, grads = [], []
        for parameter in self._parameters.values():
            if parameter.grad is None and parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
            weights.append(parameter.detach())
            # A weight frozen later is still ranked with the others, but not moved.
            grads.append(parameter.grad if parameter.requires_grad else None)
        regularizer.add_grad_(weights, grads, self.strength * scale)

    @torch.no_grad()
    def _after_step(self) -> None:
        self.step += 1
        self._sparse_passes = False
        self._masking.forget()
        self._hidden.give_back()
        if self._observer is not None:
            self._memory = self._observer.observe(self._view(), self._memory)
        if not self._masking.apply_():
            self._finite.note(self._parameters, self.step)
        if self.method.when(self.step):
            started = time.perf_counter()
            self.check_finite()
            check_ranks_agree(self.masks, self.step, noted=self._masking.noted)
            masks, memory = self.method.update(self._view(), self.masks, self._memory)
            check_masks(masks, self._parameters)
            check_ranks_agree(masks, self.step, generator=self._draws())
            check_directions(masks, self._normed)
            masks = {name: sharded.place(masks[name], p) for name, p in self._parameters.items()}
            self._memory = sharded.place_state(memory, self._parameters)
            self._masking.refresh_grown_state_(masks)
            self._masking.install_(masks)
            self._empty = warn_of_empty_layers(self.masks, self._empty)
            self.updates += 1
            self.update_seconds += time.perf_counter() - started
        self._grads = {}

    def _hide_grads(self) -> None:
        """Let the optimizer pass over every parameter this once: one without gradient is left."""
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                self._hidden.take(parameter)

    def _draws(self) -> torch.Generator | None:
        """What sharded masks are compared by besides their rows; whole ones show it themselves."""
        return self._generator if sharded.any_sharded(self._parameters.values()) else None

    def _view(self) -> View:
        parameters = self._parameters
        momenta = {name: first_moment(self._optimizer, p) for name, p in parameters.items()}
        return View(
            step=self.step,
            weights={name: p.detach() for name, p in parameters.items()},
            grads=self._grads or {n: p.grad for n, p in parameters.items() if p.grad is not None},
            momenta={name: moment for name, moment in momenta.items() if moment is not None},
            generator=self._generator,
        )
