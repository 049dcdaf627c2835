"""Weights read from a model, masked, and batch norms folded into them."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from .graph import Graph, Shape, run
from .units import Conv, Norm


def read(graph: Graph, model: nn.Module, masks: Mapping[str, Tensor] | None) -> dict[str, Any]:
    """The graph's constants by name, as the model holds them now, with masks applied.

    Args:
        masks: name of a parameter -> bool of its shape, True where it is active.

    Raises:
        ValueError: a mask without a parameter, or of another shape; a model of other weights.
    """
    values: dict[str, Any] = dict(graph.lifted)
    chosen = {} if masks is None else _by_identity(masks, model)
    for name, path in graph.constants.items():
        tensor = _weight(model, path, graph.shapes.get(name))
        mask = chosen.get(tensor.data_ptr()) if tensor.numel() else None
        values[name] = tensor if mask is None else tensor * mask.to(tensor.device)
    with torch.no_grad():
        for call in graph.derived:
            values[call.output] = run(call, values)
    return values


def _weight(model: nn.Module, path: str, traced: Shape | None) -> Tensor:
    """A parameter or buffer by name, of the shape and type that was traced."""
    shape = () if traced is None else (int(traced.rows), *traced.rest)
    try:
        tensor: Tensor = attrgetter(path)(model).detach()
    except AttributeError:
        what = "is missing"
    else:
        fits = tuple(tensor.shape) == shape and tensor.dtype is (traced or tensor).dtype
        if fits and tensor.device.type == "cpu":
            return tensor
        what = f"is {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
    wanted = "" if traced is None else f", not {traced.dtype} {shape} on cpu"
    raise ValueError(
        f"{path} of this model {what}{wanted} as in the compiled one. Give the model that was "
        "compiled or a copy of it, or compile this one."
    )


def folded(conv: Conv, values: Mapping[str, Any]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias with the norms folded in: in float64, rounded once.

    Returns:
        weight: of the constant's shape and type; its zeros are the constant's and those of
            channels that the norms make constant.
        bias: [outputs]; None if there is neither bias nor norm.
    """
    weight: Tensor = values[conv.weight]
    bias: Tensor | None = None if conv.bias is None else values[conv.bias]
    if not conv.norms:
        return weight, bias
    scale = torch.ones(weight.shape[0], dtype=torch.float64)
    shift = torch.zeros_like(scale) if bias is None else bias.double()
    for norm in conv.norms:
        factor, offset = scale_shift(norm, values)
        scale, shift = scale * factor, shift * factor + offset
    wide = weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))
    return wide.to(weight.dtype), shift.to(weight.dtype)


def scale_shift(norm: Norm, values: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """What a norm multiplies each channel with and adds, float64 [channels]."""
    mean, variance = values[norm.mean].double(), values[norm.variance].double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * values[norm.weight].double()
    shift = -mean * scale
    return scale, shift if norm.bias is None else shift + values[norm.bias].double()


def _by_identity(masks: Mapping[str, Tensor], model: nn.Module) -> dict[int, Tensor]:
    """Address of a parameter -> its mask; a tied weight has one under each of its names."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    chosen: dict[int, Tensor] = {}
    for name, mask in masks.items():
        found = parameters.get(name)
        if found is None or found.shape != mask.shape:
            shape = "no such parameter" if found is None else f"a weight of {tuple(found.shape)}"
            raise ValueError(
                f"masks[{name!r}] is of shape {tuple(mask.shape)}, but the model has {shape}. "
                "Give the masks of this model, as Sparsifier.masks holds them."
            )
        chosen[found.data_ptr()] = mask
    return chosen
