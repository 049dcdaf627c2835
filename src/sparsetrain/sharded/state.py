"""Whole states of sharded models and optimizers, in the form that plain ones have.

So a checkpoint of any number of processes loads on any other. Everything here is collective.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from .layout import full_state, is_sharded, place, place_state


def model_state(model: nn.Module) -> dict[str, Any]:
    """`model.state_dict()`, whole on every rank; where nothing is sharded, that itself."""
    state = model.state_dict()
    return full_state(state) if any(map(is_sharded, state.values())) else state


def load_model_state_(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Load a whole state into a model that is sharded in any way or in none.

    Raises:
        RuntimeError: the names or shapes are of another model.
    """
    own = model.state_dict()
    model.load_state_dict(place_state(state, own) if any(map(is_sharded, own.values())) else state)


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """`optimizer.state_dict()`, whole on every rank; where nothing is sharded, that itself."""
    state = optimizer.state_dict()
    return full_state(state) if any(map(is_sharded, _parameters(optimizer))) else state


def load_optimizer_state_(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load a whole state into an optimizer of parameters that are sharded in any way or in none.

    How it computes stays its own: torch's fused SGD has no form for sharded parameters.

    Raises:
        ValueError: the state is of other parameter groups.
    """
    parameters = _parameters(optimizer)
    groups = [
        {**theirs, **{key: ours[key] for key in ("fused", "foreach") if key in ours}}
        for theirs, ours in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    state = {**state, "param_groups": groups}
    if not any(map(is_sharded, parameters)):
        optimizer.load_state_dict(dict(state))
        return
    placed = {
        index: _placed(slots, parameters[index])
        if isinstance(index, int) and index < len(parameters)
        else slots
        for index, slots in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": placed})


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _placed(slots: Mapping[str, Any], parameter: Tensor) -> dict[str, Any]:
    return {
        key: place(value, parameter)
        if isinstance(value, Tensor) and value.shape == parameter.shape
        else value
        for key, value in slots.items()
    }
