"""Steps of SGD over kept weights alone: update, masks and the look for NaN in one pass.

An optimizer reads and writes every weight, gradient and momentum, and masking reads them again: of
a large layer with few weights left that is most of a step besides the passes through the network.
Here the optimizer passes over such layers, as it does where there is no gradient, and what it would
have done is done in C++ for the kept weights, to rounding. Pruned weights and their momentum are
zero before, and so they are after.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from .kernels import native
from .kernels.masking import Masked, zero_pruned_
from .kernels.native import Step
from .optimizers import SetAside

MOST_KEPT = 0.5
"""Above this share of kept weights the optimizer's own pass is about as quick."""
FEWEST = 1 << 16
"""Smaller layers take no time worth saving."""


class KeptSteps:
    """Takes layers out of an optimizer's hands for one step, and gives them back moved.

    Of plain `torch.optim.SGD`, undamped. Where a GradScaler unscales inside the optimizer, or a
    tensor is of a kind that the kernels do not take, all is left to the optimizer.

    Args:
        optimizer: holds the parameters.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._taken: dict[nn.Parameter, Step] = {}
        self._grads = SetAside()
        self._clean: dict[nn.Parameter, list[int]] = {}

    def note_clean(self, parameter: nn.Parameter, row: Masked) -> None:
        """Remember that the pruned entries of these tensors are zero now."""
        self._clean[parameter] = [tensor._version for tensor in row.tensors]

    def take(self, rows: Iterable[tuple[nn.Parameter, Masked, int]]) -> None:
        """Before the optimizer's step; `finish` follows, unless that step fails.

        Args:
            rows: each parameter with its mask, its tensors, and how many weights it keeps.
        """
        self._drop()
        if not _is_plain_sgd(self._optimizer):
            return
        groups = {id(p): group for group in self._optimizer.param_groups for p in group["params"]}
        for parameter, row, kept in rows:
            size = parameter.numel()
            if size >= FEWEST and kept <= MOST_KEPT * size:
                self._take(parameter, row, groups[id(parameter)])

    def finish(self) -> dict[nn.Parameter, bool]:
        """After the optimizer's step: move what was taken; whether each weight is finite then."""
        taken = dict(self._taken)
        self._drop()
        return dict(zip(taken, native.sgd_(list(taken.values())), strict=True)) if taken else {}

    def _take(self, parameter: nn.Parameter, row: Masked, group: dict[str, Any]) -> None:
        buffer, grad, momentum = None, parameter.grad, float(group["momentum"])
        if grad is None or group["dampening"] or group.get("differentiable"):
            return
        if momentum:
            state = self._optimizer.state[parameter]
            if state.get("momentum_buffer") is None:
                return  # the first step: the optimizer makes the buffer
            buffer = state["momentum_buffer"]
        rates = float(group["lr"]), momentum, float(group["weight_decay"])
        nesterov, uphill = bool(group["nesterov"]), bool(group["maximize"])
        step = Step(row.mask, parameter.detach(), grad, buffer, rates, nesterov, uphill)
        if native.takes_step(step):
            # Written by others since, as a loaded checkpoint does: not a reason for another pass,
            # which would round otherwise than the run that was not interrupted.
            if self._clean.get(parameter) != [tensor._version for tensor in row.tensors]:
                zero_pruned_([row])
            self._taken[parameter] = step
            self._grads.take(parameter)

    def _drop(self) -> None:
        self._grads.give_back()
        self._taken.clear()


def _is_plain_sgd(optimizer: Optimizer) -> bool:
    scaled = any(getattr(optimizer, key, None) is not None for key in ("grad_scale", "found_inf"))
    # A subclass may do more than SGD does, unless it says that it does not.
    plain = type(optimizer) is SGD or getattr(optimizer, "is_plain_sgd", False)
    return plain and not scaled and not torch.compiler.is_compiling()
