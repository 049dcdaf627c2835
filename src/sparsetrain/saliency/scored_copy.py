"""What the scorers share: a network run on copies of its tensors, batches, and the final cut."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .. import masks as mask_algebra
from ..emptiness import warn_of_empty_layers
from ..selection import Patterns, select, unwrap
from ..sharded import any_sharded
from ..types import Masks, Tensors

_log = logging.getLogger(__name__)

LossFn: TypeAlias = Callable[[Any, Any], Tensor]
"""(what the network returns, targets) -> 0-d loss, for example `F.cross_entropy`."""

Batches: TypeAlias = Iterable[tuple[Any, Any]]
"""(inputs, targets) pairs on the network's device; few, for they are all held in memory."""

Mode: TypeAlias = Literal["train", "eval"]


@dataclass(frozen=True)
class ScoredCopy:
    """A network's tensors copied, and what is needed to run it on the copies.

    Attributes:
        network: the module itself; only its code is used.
        tensors: the module's own names -> copies.
        weights: selected name -> copy that takes gradients.
    """

    network: nn.Module
    tensors: Mapping[str, Tensor]
    weights: Mapping[str, Tensor]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        include: Patterns,
        exclude: Patterns,
        *,
        change: Callable[[Tensor], Tensor] = torch.Tensor.clone,
        masks: Tensors | None = None,
    ) -> ScoredCopy:
        """Copy a network's tensors.

        Args:
            model: any module; wrappers are looked through.
            include: patterns of `st.select`.
            exclude: patterns of `st.select`.
            change: tensor -> its copy, changed as the score wants it.
            masks: name -> bool mask of the selected weights; None prunes nothing.
        Raises:
            ValueError: the model is sharded.
        """
        network, selected = unwrap(model), select(model, include, exclude)
        if any_sharded(selected.values()):
            raise ValueError(
                "scores at initialisation need the whole model: score it on every rank before "
                "fully_shard, with the same batches, and train under st.methods.static(masks=…)"
            )
        names = {id(p): name for name, p in selected.items()}
        tensors: dict[str, Tensor] = {}
        weights: dict[str, Tensor] = {}
        for own, tensor in chain(network.named_parameters(), network.named_buffers()):
            tensors[own] = change(tensor.detach())
            if (name := names.get(id(tensor))) is not None:
                if masks is not None:
                    tensors[own] = tensors[own] * masks[name]
                weights[name] = tensors[own].requires_grad_(True)
        return cls(network, tensors, {name: weights[name] for name in selected})

    def call(self, inputs: Any) -> Tensor:
        """What the network returns under the copies."""
        return functional_call(self.network, dict(self.tensors), (inputs,))

    def gradient(self, of: Tensor, *, create_graph: bool = False) -> dict[str, Tensor]:
        """By the selected weights; zero where they have no part in it."""
        found = torch.autograd.grad(
            of,
            list(self.weights.values()),
            create_graph=create_graph,
            allow_unused=True,
            materialize_grads=True,
        )
        return dict(zip(self.weights, found, strict=True))


def loss_of(copy: ScoredCopy, loss_fn: LossFn, inputs: Any, targets: Any) -> Tensor:
    """The loss of one batch under the copies.

    Raises:
        ValueError: it is not a single number.
    """
    loss = loss_fn(copy.call(inputs), targets)
    if loss.ndim:
        raise ValueError(f"loss_fn must return a 0-d loss, got shape {tuple(loss.shape)}.")
    return loss


def summed_gradient(
    copy: ScoredCopy, loss_fn: LossFn, batches: list[tuple[Any, Any]]
) -> dict[str, Tensor]:
    """dL/dw of the selected weights, summed over the batches."""
    total = {name: torch.zeros_like(w) for name, w in copy.weights.items()}
    for inputs, targets in batches:
        for name, g in copy.gradient(loss_of(copy, loss_fn, inputs, targets)).items():
            total[name] += g
    return total


@contextmanager
def scoring(model: nn.Module, mode: Mode) -> Iterator[None]:
    """The mode asked for, with gradients; flags and random state are put back, whatever happens.

    Raises:
        ValueError: a mode other than "train" and "eval".
    """
    if mode not in ("train", "eval"):
        raise ValueError(f"mode must be 'train' or 'eval', got {mode!r}.")
    training = {module: module.training for module in model.modules()}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        model.train(mode == "train")
        # Dropout draws from the global generator, and the run's own draws come after.
        with torch.enable_grad(), torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        for module, flag in training.items():
            module.training = flag


def listed(batches: Batches) -> list[tuple[Any, Any]]:
    """The batches in a list.

    Raises:
        ValueError: there is none, or they are not pairs.
    """
    held = list(batches)
    if not held:
        raise ValueError("batches is empty; give at least one pair (inputs, targets).")
    if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in held):
        raise ValueError("batches must hold pairs (inputs, targets); a single one is [(x, y)].")
    return [(pair[0], pair[1]) for pair in held]


def keep(scores: Mapping[str, Tensor], sparsity: float) -> Masks:
    """Masks of the `kept(N, sparsity)` largest scores; a layer without any is warned of."""
    count = mask_algebra.kept(mask_algebra.total(scores), sparsity)
    masks = mask_algebra.keep_global(scores, count)
    warn_of_empty_layers(masks)
    return masks
