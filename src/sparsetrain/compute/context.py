"""Sparse forward and backward passes in any loop: a context around forward pass and loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..kernels import native
from ..phases import PhaseDriver
from ..sparsifier import Sparsifier
from .choice import ALONE, Choices, Mode, step_of
from .layers import Layer, is_gapless
from .network import Network
from .pace import Pace


class SparseCompute:
    """Lets masked convolutions and linear layers compute with their kept weights alone, on a CPU.

    Make it once, and put forward pass and loss of each training step into it::

        compute = st.SparseCompute(sparsifier)
        for images, labels in loader:
            with compute:
                loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()

    The model stays as it is. Between the layers that run sparse, activations travel in a packed
    layout, in which batch norm, ReLU, sums and pooling work too; any other function gets the
    ordinary tensor. Losses and gradients are those of the dense masked network to rounding, but
    gradients of pruned weights are zero. So a step after which the method updates its masks, and
    every step of a method that observes gradients, runs dense.

    Args:
        engine: whose masks and weights these are; of `st.ART` and `st.IMP` that of the phase.
        mode: "measured" times each layer once, dense and sparse, and takes the faster, then twelve
            whole steps with these layers sparse and with none, in turn; "fixed" goes by density
            alone, so that a repeated run computes the same; "sparse" runs all sparse.
        known: `choices` of an earlier process, so that it continues with the same kernels.

    Raises:
        TypeError: engine is something else.
        ValueError: no such mode.
    """

    def __init__(
        self,
        engine: Sparsifier | PhaseDriver,
        *,
        mode: Mode = "measured",
        known: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(engine, (Sparsifier, PhaseDriver)):
            raise TypeError(
                f"engine must be a Sparsifier, st.ART or st.IMP, got {type(engine).__name__}."
            )
        self._engine, self._choices = engine, Choices(mode, known)
        self._pace = Pace(self._choices.known)
        self._owner: Sparsifier | None = None
        self._network: Network | None = None
        self._entries: list[_Entry | None] = []

    @property
    def choices(self) -> dict[str, str]:
        """What was chosen so far: layer, size of image and density, or "step" and density ->
        "sparse" or "dense"."""
        return dict(self._choices.known)

    def adopt(self, choices: Mapping[str, str]) -> None:
        """Go on with what an earlier process chose."""
        self._choices.known.update(choices)

    @property
    def runs_sparse(self) -> bool:
        """Whether the next step may: masks with zeros that stay, plain weights, a CPU."""
        engine = self._sparsifier
        plain = all(_is_plain(weight) for weight in engine.weights.values())
        built = self._choices.mode == "sparse" or native.library() is not None
        return plain and built and engine.sparsity > 0 and not engine.needs_dense_gradients

    def __enter__(self) -> SparseCompute:
        # Where the context itself is compiled the network runs dense: choices need real weights.
        apart = torch.compiler.is_compiling()
        if not apart:
            self._pace.end()
        sparse = not apart and self.runs_sparse and self._pays()
        entry = _Entry(self._current()) if sparse else None
        self._entries.append(entry)
        if entry is not None:
            self._sparsifier.note_sparse_passes()
            entry.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        entry = self._entries.pop()
        if error is not None:
            self._pace.drop()
        if entry is not None:
            entry.__exit__(kind, error, at)

    def _pays(self) -> bool:
        """Whether the step that begins is to run sparse, where it may."""
        known = self._choices.known
        if self._choices.mode != "measured" or not torch.is_grad_enabled():
            return True
        kind = f"step {step_of(1 - self._sparsifier.sparsity)}"
        if kind not in known and any(key.endswith(ALONE) for key in known):
            return True  # compiled: a dense step would take a graph of its own
        return self._pace.begin(kind) == "sparse"

    @property
    def _sparsifier(self) -> Sparsifier:
        engine = self._engine
        return engine if isinstance(engine, Sparsifier) else engine.sparsifier

    def _current(self) -> Network:
        """The network of the engine's weights, made anew where they are others."""
        engine, network = self._sparsifier, self._network
        weights = engine.weights
        if network is None or engine is not self._owner or not network.holds(weights.values()):
            layers = [
                Layer(name, weight, engine.masks[name])
                for name, weight in weights.items()
                if weight.dim() in (2, 4)
            ]
            network = self._network = Network(layers, self._choices)
            self._owner = engine
        return network


class _Entry(TorchFunctionMode):
    """Where ordinary tensors meet a masked weight."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._network, self._traced = network, network.traced

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.conv2d or func is F.linear:
            if torch.compiler.is_compiling():
                return self._traced.run(func, args, kwargs or {})
            return self._network.run(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))


def _is_plain(weight: nn.Parameter) -> bool:
    """An ordinary parameter in memory without gaps, such as the kernels read."""
    plain = type(weight) is nn.Parameter and weight.device.type == "cpu"
    return plain and weight.dtype is torch.float32 and is_gapless(weight)
