"""The moving average of a network's weights, as sparse as the network, and how it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from .. import sharded
from ..types import Masks


class Average:
    """After step t since its start, a = d a + (1 - d) w with d = min(decay, (1 + t) / (10 + t)).

    Of parameters and running statistics, in their own precision; a pruned weight's is zero at once,
    so that one which grows again starts there as in the network. Sharded like the network.

    Args:
        model: the plain network, sharded or not; what is averaged are its tensors of now on.
        decay: 0 <= decay < 1.

    Source: Polyak & Juditsky 1992; the rise of d: TensorFlow's ExponentialMovingAverage.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._model, self._decay, self._steps = model, decay, 0
        sharded.reshard_(model)
        named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._live = {name: t for name, t in named.items() if t.is_floating_point()}
        self._held = {name: sharded.local(t).clone() for name, t in self._live.items()}
        every = model.named_parameters(remove_duplicate=False)
        first = {id(tensor): name for name, tensor in self._live.items()}
        self._names = {name: first[id(parameter)] for name, parameter in every}

    @torch.no_grad()
    def update(self, masks: Masks) -> None:
        """Take in the weights after an optimizer step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        live = [sharded.local(tensor) for tensor in self._live.values()]
        torch._foreach_lerp_(list(self._held.values()), live, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]
        for name, mask in masks.items():
            self._held[self._names[name]].mul_(sharded.local(mask))

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew with the weights of now, as where a phase begins with others."""
        self._steps = 0
        for name, tensor in self._live.items():
            self._held[name].copy_(sharded.local(tensor))

    @contextmanager
    def shown(self) -> Iterator[None]:
        """For the while, the network has the averaged weights; then its own again, to the bit."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        sharded.reshard_(self._model)
        for name, tensor in self._live.items():
            rows = sharded.local(tensor)
            own = rows.clone()
            rows.copy_(self._held[name])
            self._held[name].copy_(own)

    def state_dict(self) -> dict[str, Any]:
        """Whole tensors and the number of steps; collective."""
        with self.shown():
            state = sharded.model_state(self._model)
            weights = {name: state[name].clone() for name in self._live if name in state}
        return {"steps": self._steps, "weights": weights}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken, on any number of processes."""
        self._steps = int(state["steps"])
        for name, tensor in state["weights"].items():
            held, live = self._held[name], self._live[name]
            placed = sharded.place(tensor, live) if sharded.is_sharded(live) else tensor
            held.copy_(sharded.local(placed))
