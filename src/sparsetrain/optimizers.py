"""What the engine knows of `torch.optim`: which state belongs to a weight, and how it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_FIRST_MOMENTS = ("momentum_buffer", "exp_avg")
_REFUSED = {
    torch.optim.LBFGS: "it keeps one history over all weights, which cannot be masked",
    torch.optim.SparseAdam: "it takes sparse gradients, and masks need dense ones",
}


def check_supported(optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse an optimizer that cannot be masked or that does not hold the parameters.

    Raises:
        ValueError: LBFGS or SparseAdam, or a selected parameter is missing from the optimizer.
    """
    for cls, why in _REFUSED.items():
        if isinstance(optimizer, cls):
            raise ValueError(f"{cls.__name__} is not supported: {why}; use SGD or Adam, say")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [name for name, p in parameters.items() if id(p) not in held]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ValueError(
            f"selected parameter {missing[0]!r}{more} is not in the optimizer; add it to a "
            "parameter group, or leave it dense with exclude=[…]"
        )


def same_shaped_state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """The optimizer's state tensors that hold one number a weight, by key."""
    return {
        key: value
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
        and value.shape == parameter.shape
        and value.ndim > 0
        and value.is_floating_point()
    }


def first_moment(optimizer: Optimizer, parameter: nn.Parameter) -> Tensor | None:
    """SGD's and RMSprop's momentum buffer, the Adam family's `exp_avg`, or None."""
    state = optimizer.state.get(parameter, {})
    for key in _FIRST_MOMENTS:
        if isinstance(state.get(key), Tensor):
            return state[key]
    return None


def initial_state(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, float]:
    """The start values of a new weight's state where they are not zero."""
    if isinstance(optimizer, torch.optim.Rprop):
        return {"step_size": float(_group(optimizer, parameter)["lr"])}
    if isinstance(optimizer, torch.optim.Adagrad):
        return {"sum": float(_group(optimizer, parameter)["initial_accumulator_value"])}
    return {}


def first_learning_rates(optimizer: Optimizer) -> list[float]:
    """The learning rate that each parameter group began with."""
    # A scheduler made before this call has changed `lr` already and kept the first one.
    return [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]


def restart_(optimizer: Optimizer, rates: Sequence[float]) -> None:
    """Forget all state and set the first learning rates again.

    Args:
        rates: of `first_learning_rates`; groups added since have none and keep what they have.
    """
    optimizer.state.clear()
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _group(optimizer: Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    return next(
        group for group in optimizer.param_groups if any(p is parameter for p in group["params"])
    )


class SetAside:
    """Gradients that an optimizer is not to see for one step: it passes over what has none."""

    def __init__(self) -> None:
        self._held: list[tuple[nn.Parameter, Tensor]] = []

    def take(self, parameter: nn.Parameter) -> None:
        """Take a parameter's gradient, if there is one."""
        if parameter.grad is not None:
            self._held.append((parameter, parameter.grad))
            parameter.grad = None

    def give_back(self) -> None:
        """Put them back, but where there is a newer one: the step in between may have failed."""
        for parameter, grad in self._held:
            if parameter.grad is None:
                parameter.grad = grad
        self._held.clear()
