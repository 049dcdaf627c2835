"""Masks in force: on the weights of a model and on the optimizer's state, in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import sharded
from .agreement import digests
from .finite import is_finite_on_cpu
from .kept_steps import KeptSteps
from .kernels.masking import Masked, multiplier_dtype, zero_pruned_
from .optimizers import initial_state, same_shaped_state
from .rollback import Rollback
from .types import Masks


class Masking:
    """The masks of some parameters, and what they do to weights and optimizer state.

    Args:
        parameters: name -> parameter.
        optimizer: holds them.
        masks: name -> bool mask of the parameter's shape; copied.

    Attributes:
        masks: True = active, in place all along, so that nothing recompiles; a change by hand is
            noticed at the next `apply_`.
        noted: digests of the masks as they were last installed.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer, masks: Masks
    ) -> None:
        self._parameters, self._optimizer = parameters, optimizer
        self.masks: Masks = {
            name: sharded.place(masks[name], p).clone() for name, p in parameters.items()
        }
        self._multipliers = {name: _multiplier(p) for name, p in parameters.items()}
        self._versions: list[int] = []
        self._kept: dict[str, int] = {}
        self._dense = False
        self._steps = KeptSteps(optimizer)
        self._refresh_multipliers_()
        self.noted = digests(self.masks)
        self._rollback = Rollback([])

    @torch.no_grad()
    def begin_(self, fresh: Mapping[str, Tensor]) -> None:
        """Apply the masks for the first time, in a way that `undo_` can take back.

        Args:
            fresh: name -> bool, True where an active weight is to start at 0; may lack names.
        """
        for name, places in fresh.items():
            places = sharded.place(places, self._parameters[name])
            self._multipliers[name].masked_fill_(sharded.local(places), 0)
        # A checkpoint may be loaded into the model before the Sparsifier and its state after it.
        self._rollback = Rollback(self._tensors())
        self._multiply_()
        if fresh:
            self._versions = []

    def take_steps(self) -> None:
        """Before an optimizer's step whose gradients are zero where weights are pruned.

        `apply_` then moves what the optimizer is kept from moving.
        """
        if self._mask_versions() == self._versions:
            named = zip(self._parameters.items(), self._rows(), strict=True)
            self._steps.take((p, row, self._kept[name]) for (name, p), row in named)

    @torch.no_grad()
    def apply_(self) -> bool:
        """Zero what the masks prune; whether every weight was seen to be finite on the way."""
        moved = self._steps.finish()
        if self._refresh_multipliers_():
            moved = {}
        return False if self._dense else self._multiply_(moved)

    def install_(self, masks: Mapping[str, Tensor]) -> None:
        """Take over other masks, in place, and zero what they drop."""
        for name, parameter in self._parameters.items():
            new = sharded.local(sharded.place(masks[name], parameter))
            sharded.local(self.masks[name]).copy_(new)
        self.noted = digests(self.masks)
        self.apply_()

    def refresh_grown_state_(self, masks: Mapping[str, Tensor]) -> None:
        """Give links that `masks` add the optimizer's initial state; all of them is zero so far."""
        for name, parameter in self._parameters.items():
            state = self._optimizer.state.get(parameter, {})
            for key, initial in initial_state(self._optimizer, parameter).items():
                if key in state:
                    grown = sharded.local(masks[name]) & ~sharded.local(self.masks[name])
                    sharded.local(state[key]).masked_fill_(grown, initial)

    def move(self, parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> None:
        """Go on with the same masks on other parameters of the same names and shapes."""
        self._parameters, self._optimizer = parameters, optimizer
        self._steps = KeptSteps(optimizer)
        for name, p in parameters.items():
            self.masks[name] = sharded.place(self.masks[name], p)
            self._multipliers[name] = _multiplier(p)
        self._versions = []
        self.forget()
        self.apply_()

    def undo_(self) -> None:
        """Take back what `begin_` did to tensors that nobody has touched since."""
        self._rollback.undo_(self._tensors())

    def forget(self) -> None:
        """Free what `undo_` needs."""
        self._rollback.forget()

    def _multiply_(self, moved: Mapping[nn.Parameter, bool] = MappingProxyType({})) -> bool:
        """Zero what is pruned, but for the weights whose kept entries alone were moved."""
        rows = dict(zip(self._parameters.values(), self._rows(), strict=True))
        if all(row.mask.dtype is torch.bool for row in rows.values()):
            finite = zero_pruned_([row for p, row in rows.items() if p not in moved])
            for parameter, row in rows.items():
                self._steps.note_clean(parameter, row)
            return all(finite) and all(moved.values())
        tensors, multipliers = zip(*self._tensors(), strict=True)
        # Float multipliers: 3-5x faster than bool ones on CPU.
        torch._foreach_mul_(tensors, multipliers)  # pyright: ignore[reportPrivateImportUsage]
        for tensor, multiplier in zip(tensors, multipliers, strict=True):
            # Infinity times 0 is NaN: an overflowed second moment must not stay where it is pruned.
            if tensor.device.type == "cpu" and not is_finite_on_cpu(tensor):
                tensor.masked_fill_(multiplier == 0, 0)
        return False

    def _refresh_multipliers_(self) -> bool:
        """Follow the masks where they were changed since, by an update or by the user; whether."""
        versions = self._mask_versions()
        if versions == self._versions:
            return False
        self._versions = versions
        for name, multiplier in self._multipliers.items():
            mask = sharded.local(self.masks[name])
            multiplier.copy_(mask)
            self._kept[name] = int(mask.count_nonzero())
        sizes = (multiplier.numel() for multiplier in self._multipliers.values())
        self._dense = sum(self._kept.values()) == sum(sizes)
        return True

    def _mask_versions(self) -> list[int]:
        return [sharded.local(self.masks[name])._version for name in self._parameters]

    def _rows(self) -> Iterator[Masked]:
        """Each multiplier, with its weight and the optimizer states of the weight's shape."""
        for name, parameter in self._parameters.items():
            states = same_shaped_state(self._optimizer, parameter).values()
            yield Masked(self._multipliers[name], [sharded.local(t) for t in (parameter, *states)])

    def _tensors(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each weight and each optimizer state of its shape, with its multiplier."""
        return ((tensor, row.mask) for row in self._rows() for tensor in row.tensors)


def check_state(state: Mapping[str, Any], parts: Sequence[str]) -> None:
    """Whether an engine's or a driver's state has all its parts.

    Raises:
        ValueError: names the parts that are missing.
    """
    if missing := [part for part in parts if part not in state]:
        raise ValueError(
            f"the state lacks {', '.join(missing)}: give what `state_dict()` of the same kind of "
            "object returned, not the model's or a part of it"
        )


def check_masks(masks: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    """Whether there is a bool mask of the right shape for each parameter, and no other.

    Raises:
        ValueError: names the first layer that does not fit.
    """
    for name, parameter in parameters.items():
        if name not in masks:
            raise ValueError(f"there is no mask for the selected layer {name!r}")
        mask = masks[name]
        if mask.dtype != torch.bool or mask.shape != parameter.shape:
            raise ValueError(
                f"the mask of {name!r} must be bool of shape {tuple(parameter.shape)}, "
                f"got {mask.dtype} of shape {tuple(mask.shape)}"
            )
    if extra := [name for name in masks if name not in parameters]:
        raise ValueError(f"there is a mask for {extra[0]!r}, which is not a selected layer")


def _multiplier(parameter: nn.Parameter) -> Tensor:
    weight = sharded.local(parameter)
    return torch.zeros_like(weight, dtype=multiplier_dtype(weight))  # in its memory order
