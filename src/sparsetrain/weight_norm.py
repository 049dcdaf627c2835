"""Weight norm, in both of torch's forms: what is a length, what a direction, and a row of zeros."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils.parametrizations import (
    _WeightNorm,  # pyright: ignore[reportPrivateUsage]
)
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

from . import sharded


def split(owner: nn.Module) -> dict[str, str]:
    """Names of one module's own parameters under weight norm: of the direction -> of its length."""
    if isinstance(owner, ParametrizationList):
        return {"original1": "original0"} if isinstance(owner[0], _WeightNorm) else {}
    hooks = owner._forward_pre_hooks.values()
    return {f"{h.name}_v": f"{h.name}_g" for h in hooks if isinstance(h, WeightNorm)}


def directions(
    model: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> dict[str, tuple[int, ...]]:
    """The directions among some parameters, and over which dimensions each is normed.

    Args:
        model: holds them.
        parameters: name -> parameter.
    Returns:
        name -> dimensions, all of them where one length is the whole tensor's.
    """
    names = {id(parameter): name for name, parameter in parameters.items()}
    found: dict[str, tuple[int, ...]] = {}
    for module in model.modules():
        for direction, length in split(module).items():
            v, g = module.get_parameter(direction), module.get_parameter(length)
            if id(v) in names:
                normed = (d for d in range(v.ndim) if g.ndim == 0 or g.shape[d] == 1)
                found[names[id(v)]] = tuple(normed)
    return found


def check_directions(masks: Mapping[str, Tensor], normed: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse masks that leave no weight in a row whose length weight norm divides by.

    Args:
        masks: name -> bool mask; of sharded ones all ranks must ask.
        normed: as from `directions`.
    Raises:
        ValueError: names the first such layer and the next move.
    """
    for name, dims in normed.items():
        count = int((~sharded.full(masks[name]).any(dims)).sum())
        if count:
            rows = "a row" if count == 1 else f"{count} rows"
            raise ValueError(
                f"{rows} of {name} without a weight left, and weight norm would divide 0 by 0 "
                f"there: lower the sparsity, exclude={name!r}, or take the weight norm off first"
            )
