"""What a Sparsifier is attached to: parameters of its own that are the model's still."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from typing import NamedTuple

from torch import nn
from torch.optim import Optimizer

from . import sharded
from .types import Method


class Attachment:
    """The parameters of one attached Sparsifier; others are refused them while it is held.

    Args:
        parameters: name -> parameter.
        model: holds them; None where it is not known, as behind a copy.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], model: nn.Module | None = None
    ) -> None:
        self.parameters = parameters
        # With FSDP2 a module holds its whole parameters for the time of its passes.
        sharded_ones = sharded.any_sharded(parameters.values())
        self._places = [] if model is None or sharded_ones else _places(parameters, model)
        _ATTACHED.add(self)

    def check(self) -> None:
        """Whether the model still holds the parameters.

        Raises:
            ValueError: names the first that was replaced and the next move.
        """
        for place in self._places:
            module = place.module()
            now = None if module is None else module._parameters.get(place.own_name)
            # Gone is not replaced: a parametrization moves the parameter elsewhere.
            if now is not None and now is not place.parameter:
                raise ValueError(
                    f"the model's {place.name} was replaced since the Sparsifier was made, as by "
                    "load_state_dict(…, assign=True): load without assign, or call attach(model, "
                    "optimizer) with an optimizer of the new parameters"
                )


class _Place(NamedTuple):
    name: str
    module: weakref.ref[nn.Module]
    own_name: str
    parameter: nn.Parameter


# What is held by nobody leaves the set by itself.
_ATTACHED: weakref.WeakSet[Attachment] = weakref.WeakSet()


def check_free(
    parameters: Mapping[str, nn.Parameter], *, besides: Attachment | None = None
) -> None:
    """Whether no attached Sparsifier masks one of the parameters.

    Args:
        parameters: name -> parameter.
        besides: an attachment that does not count, as it is given up.
    Raises:
        ValueError: names the first parameter that another one masks and the next move.
    """
    if _taken(parameters, besides) is None:
        return
    gc.collect()  # hooks and optimizer hold each other, also where nobody else holds them
    if (name := _taken(parameters, besides)) is not None:
        raise ValueError(
            f"another Sparsifier masks {name} already: finalize() or detach() that one first, or "
            f"exclude={name!r} from one of the two"
        )


def check_kinds(model: object, optimizer: object, method: object) -> None:
    """Raise TypeError, with the next move, if an argument is not of its kind."""
    if not isinstance(model, nn.Module) or not isinstance(optimizer, Optimizer):
        raise TypeError(
            "Sparsifier takes (model, optimizer, method), got "
            f"({type(model).__name__}, {type(optimizer).__name__}, …)"
        )
    if isinstance(method, type) or not isinstance(method, Method):
        raise TypeError(
            f"method must be a method's value, got {method!r}; make one, for example with "
            "st.methods.create('rigl', sparsity=0.9, total_steps=epochs * len(loader))"
        )


def _places(parameters: Mapping[str, nn.Parameter], model: nn.Module) -> list[_Place]:
    """Every module that holds one of the parameters, tied ones more than once."""
    names = {id(parameter): name for name, parameter in parameters.items()}
    return [
        _Place(names[id(parameter)], weakref.ref(module), own_name, parameter)
        for module in model.modules()
        for own_name, parameter in module._parameters.items()
        if parameter is not None and id(parameter) in names
    ]


def _taken(parameters: Mapping[str, nn.Parameter], besides: Attachment | None) -> str | None:
    others = [other for other in list(_ATTACHED) if other is not besides]
    taken = {id(p) for other in others for p in other.parameters.values()}
    return next((name for name, p in parameters.items() if id(p) in taken), None)
