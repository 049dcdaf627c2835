"""2:4 sparsity: which layers have it, and the conversion for GPUs that compute with it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.sparse import to_sparse_semi_structured

from ..types import Tensors

# Rows and columns that every back end of PyTorch's takes for 16-bit types are multiples of these.
_ROWS, _COLUMNS = 32, 64


def is_2to4(mask: Tensor) -> bool:
    """Whether of each four weights in a row of a layer's inputs at most two are kept.

    Args:
        mask: bool; the first dimension is the outputs, the others are flattened.
    """
    rows = mask.reshape(mask.shape[0], -1) if mask.ndim > 1 else mask.reshape(1, -1)
    if rows.shape[1] % 4:
        return False
    return bool((rows.reshape(-1, 4).sum(1) <= 2).all())


def layers_2to4(masks: Tensors) -> dict[str, bool]:
    """Name -> whether the layer's mask satisfies 2:4."""
    return {name: is_2to4(mask) for name, mask in masks.items()}


def reason_against(model: nn.Module, masks: Tensors) -> str | None:
    """Why no layer of a network can be converted to 2:4 here, in one sentence; None if one can.

    PyTorch has 2:4 kernels for linear layers alone, on CUDA devices of compute capability 8.0 on.
    """
    linear = _linears(model, masks)
    if not linear:
        return "the network has no masked linear layer, and PyTorch's 2:4 kernels are for those."
    fitting = {name: layer for name, layer in linear.items() if is_2to4(masks[name])}
    if not fitting:
        return (
            f"no linear layer is 2:4: of some four neighbouring weights more than two are kept "
            f"in {', '.join(linear)}; prune more, or by the 2:4 pattern."
        )
    if not any(_has_shape(layer) for layer in fitting.values()):
        return (
            f"the 2:4 layers {', '.join(fitting)} have other shapes than multiples of {_ROWS} "
            f"outputs and {_COLUMNS} inputs, which the kernels need."
        )
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0):
        return "2:4 needs a CUDA device of compute capability 8.0 or later, and there is none."
    return None


@torch.no_grad()
def convert_2to4_(
    model: nn.Module, masks: Tensors, *, dtype: torch.dtype = torch.float16
) -> list[str]:
    """Put a network on the CUDA device with 2:4 weights in the linear layers that allow it.

    Args:
        model: changed in place, for inference: moved to CUDA and to `dtype`.
        masks: name -> bool mask.
        dtype: torch.float16 or torch.bfloat16, what the kernels compute in.
    Returns:
        The names of the converted weights.
    Raises:
        ValueError: nothing can be converted; `reason_against` says why.
    """
    if reason := reason_against(model, masks):
        raise ValueError(reason)
    model.to("cuda", dtype)
    converted = []
    for name, layer in _linears(model, masks).items():
        if is_2to4(masks[name]) and _has_shape(layer):
            folded = layer.weight * masks[name].to("cuda")
            layer.weight = nn.Parameter(to_sparse_semi_structured(folded), requires_grad=False)
            converted.append(name)
    return converted


def _linears(model: nn.Module, masks: Tensors) -> dict[str, nn.Linear]:
    found = {f"{n}.weight": m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    return {name: layer for name, layer in found.items() if name in masks}


def _has_shape(layer: nn.Linear) -> bool:
    return layer.out_features % _ROWS == 0 and layer.in_features % _COLUMNS == 0
