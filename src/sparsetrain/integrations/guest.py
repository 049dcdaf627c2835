"""An engine in somebody else's loop: made late, resumed, and told of each epoch exactly once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.optim import Optimizer

from ..art import ART
from ..imp import IMP
from ..sparsifier import Sparsifier

Engine: TypeAlias = Sparsifier | ART | IMP

Attach: TypeAlias = Callable[[nn.Module, Optimizer, int], Engine]
"""(model, optimizer, optimizer steps of the whole run) -> the engine, attached."""

Accuracy: TypeAlias = Callable[[nn.Module], float]
"""model -> accuracy on the training data; called in eval mode and without gradients."""


class Guest:
    """What a callback keeps; libraries make the optimizer late, so the engine comes late too.

    Args:
        attach: makes the engine once model and optimizer exist.
        accuracy: needed by ART, which compares the network with its pruned copy; both are
            evaluated in the same way, in eval mode. (The paper takes the running accuracy of the
            epoch for the whole network, which most loops do not compute.)
    """

    def __init__(self, attach: Attach, accuracy: Accuracy | None = None) -> None:
        self._attach = attach
        self._accuracy = accuracy
        self._engine: Engine | None = None
        self._model: nn.Module | None = None
        self._told = 0  # epochs that the engine knows to be over

    @property
    def engine(self) -> Engine:
        """The engine, from the start of the training on.

        Raises:
            RuntimeError: the training has not begun.
        """
        if self._engine is None:
            raise RuntimeError("there is no engine before the training has begun; read it later")
        return self._engine

    @property
    def started(self) -> bool:
        """Whether there is an engine."""
        return self._engine is not None

    @property
    def done(self) -> bool:
        """Whether a phase method has reached its end; the library's loop should stop then."""
        engine = self._engine
        return isinstance(engine, ART | IMP) and engine.phase == "done"

    def start(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        steps: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        """Attach, and continue from `state` if there is one.

        Args:
            model: the plain network, with its loaded weights if a run is continued.
            optimizer: the `torch.optim` optimizer itself, no wrapper, with its loaded state.
            steps: optimizer steps of the whole run.
            state: of `state_dict`.
        Raises:
            TypeError: `attach` returned something else than an engine.
            ValueError: ART without `accuracy`, or a state that does not fit.
        """
        if self._engine is not None:
            self._hooks_of(self._engine).detach()
        engine = self._attach(model, optimizer, steps)
        if not isinstance(engine, Engine):
            raise TypeError(
                "attach must return a Sparsifier, an ART or an IMP, got "
                f"{type(engine).__name__}; write lambda model, optimizer, steps: st.Sparsifier(…)"
            )
        if isinstance(engine, ART) and self._accuracy is None:
            engine.finalize()
            raise ValueError(
                "ART compares accuracies; pass accuracy=f where f(model) is the accuracy on the "
                "training data"
            )
        self._engine, self._model, self._told = engine, model, 0
        if state is not None:
            self.load_state_dict(state)

    def epochs_over(self, count: int) -> None:
        """Tell the engine of each epoch up to `count` that it has not heard of.

        A library may save after an epoch's last step and, continued from there, not announce the
        end of that epoch again; therefore this is also called when an epoch begins.
        """
        engine, model = self.engine, self._model
        assert model is not None
        while self._told < count:
            self._told += 1
            if isinstance(engine, Sparsifier) or self.done:
                continue
            evaluate = self._accuracy or _no_accuracy
            dense = _evaluated(model, evaluate) if _compares(engine) else 0.0
            engine.epoch_end(dense, evaluate)

    def state_dict(self) -> dict[str, Any]:
        """The engine's state and the epochs told, as tensors, numbers and strings."""
        return {"engine": self.engine.state_dict(), "epochs": self._told}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self.engine.load_state_dict(state["engine"])
        self._told = int(state["epochs"])

    def finish(self) -> None:
        """Take the hooks off; masks can still be read and the zeros stay."""
        self.engine.finalize()

    def _hooks_of(self, engine: Engine) -> Sparsifier:
        return engine if isinstance(engine, Sparsifier) else engine.sparsifier


def _compares(engine: ART | IMP) -> bool:
    """Whether ART needs the accuracy of this epoch: while regularising, and just before it."""
    if isinstance(engine, IMP):
        return False
    last_dense = engine.state.epoch + 1 == engine.rule.dense_epochs
    return engine.phase == "regularize" or (engine.phase == "dense" and last_dense)


def _evaluated(model: nn.Module, accuracy: Accuracy) -> float:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            return float(accuracy(model))
    finally:
        for module, mode in modes.items():
            module.training = mode


def _no_accuracy(model: nn.Module) -> float:
    raise AssertionError("only ART evaluates, and it is refused without accuracy")
