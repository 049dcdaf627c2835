"""torch's fused optimizers, given each tensor in the order in which it lies in memory.

The CPU's fused kernels take row-major tensors alone: of a channels-last weight they copy parameter,
gradient and momentum, and copy two of them back: of 20 M weights a step takes 21 ms then, not 8. A
permuted view of such a weight is row-major, and an optimizer's step does not ask for the shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer


def as_it_lies(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A view whose channels are last, where a parameter lies so; any other tensor itself.

    Args:
        tensor: the parameter, or one number for each of its: as long as it lies alike, the view
            is row-major. Anything of another shape is returned.
        parameter: decides.
    """
    row_major = parameter.is_contiguous()
    if row_major or not parameter.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.permute(0, 2, 3, 1) if tensor.shape == parameter.shape else tensor


class _Fused(Optimizer):
    def __init__(self, params: Any, **options: Any) -> None:
        super().__init__(params, fused=True, **options)  # pyright: ignore[reportCallIssue]

    # A state may come from an optimizer whose buffers lay as its first gradients did.
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for p, state in self.state.items():
            for key, value in state.items():
                of_entries = isinstance(value, Tensor) and value.shape == p.shape
                if of_entries and value.stride() != p.stride():
                    state[key] = torch.empty_like(p, dtype=value.dtype).copy_(value)


def _gradients(grads: Sequence[Tensor | None], used: Sequence[Tensor]) -> list[Tensor]:
    # Of a gradient that lies otherwise than its parameter torch's kernels make wrong steps.
    pairs = zip(grads, used, strict=True)
    return [as_it_lies(grad, p).contiguous() for grad, p in pairs if grad is not None]


class FusedSGD(_Fused, SGD):
    """`torch.optim.SGD(fused=True)` of dense float gradients; its state is torch's own."""

    is_plain_sgd = True

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            if used:
                self._step(group, used)
        return loss

    def _step(self, group: dict[str, Any], used: list[Tensor]) -> None:
        buffers = self._buffers(used) if group["momentum"] else []
        torch._fused_sgd_(  # pyright: ignore[reportPrivateImportUsage]
            [as_it_lies(p.detach(), p) for p in used],
            _gradients([p.grad for p in used], used),
            [as_it_lies(buffer, p) for buffer, p in zip(buffers, used, strict=False)],
            weight_decay=group["weight_decay"],
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=group["dampening"],
            nesterov=group["nesterov"],
            maximize=group["maximize"],
            is_first_step=False,  # from a buffer of zeros the first step is as torch's, undamped
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
        )

    def _buffers(self, used: list[Tensor]) -> list[Tensor]:
        for p in used:
            if self.state[p].get("momentum_buffer") is None:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        return [self.state[p]["momentum_buffer"] for p in used]


class _AsItLies(_Fused):
    # torch lists there what the kernel of the group will be given, and reads nothing from it after.
    def _init_group(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        group: dict[str, Any],
        parameters: list[Tensor],
        grads: list[Tensor],
        *lists: list[Tensor],
    ) -> Any:
        found = super()._init_group(group, parameters, grads, *lists)  # type: ignore[misc]
        used = list(parameters)
        grads[:] = _gradients(grads, used)
        for tensors in (parameters, *lists):
            if tensors:  # one list is of amsgrad alone
                tensors[:] = [as_it_lies(t, p) for t, p in zip(tensors, used, strict=True)]
        return found


class FusedAdam(_AsItLies, Adam):  # pyright: ignore[reportIncompatibleMethodOverride]
    """`torch.optim.Adam(fused=True)`; its state is torch's own."""


class FusedAdamW(_AsItLies, AdamW):  # pyright: ignore[reportIncompatibleMethodOverride]
    """`torch.optim.AdamW(fused=True)`; its state is torch's own."""
