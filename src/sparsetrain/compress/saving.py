"""A pruned network into one small safetensors file."""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from .. import sharded
from ..atomic import write_atomic
from ..selection import clean_name, unwrap
from ..types import Tensors
from . import layout, positions
from .layout import POSITIONS, VALUES, Layout, Packed

Values = Literal["float32", "float16", "bfloat16"]
_VALUES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# Bytes that a packed tensor's two entries in the header and its description take, without names.
_HEADER = 180


def save(
    model: nn.Module | Tensors,
    masks: Tensors,
    path: str | os.PathLike[str],
    *,
    values: Values | None = None,
) -> int:
    """Write a pruned network without its zeros; the model stays as it is.

    Every parameter and persistent buffer is in the file, tied ones once. A masked tensor lies
    there as its kept values and their positions, or whole where that is smaller. The file is an
    ordinary safetensors file, whole or absent (docs/files.md has the layout).

    Args:
        model: the network, wrapped or not, or its tensors by name (a state dict).
        masks: name -> bool mask of the tensor's shape, True where a weight is kept, as
            `Sparsifier.masks` and `st.prune` give them; weights elsewhere are read back as 0. Of a
            tied tensor's names any one will do.
        path: where the file goes; what lies there is replaced.
        values: type that kept weights of a larger floating type are rounded to; None keeps every
            bit. Tensors without a mask are never rounded.
    Returns:
        The file's size in bytes.
    Raises:
        ValueError: a mask without tensor or of another shape, a tensor that no file can hold, or a
            weight too large for `values`.
        OSError: the file cannot be written; what lay there stays.
    """
    if values is not None and values not in _VALUES:
        raise ValueError(f"values must be None or one of {', '.join(_VALUES)}, got {values!r}.")
    tensors, tied = named(model, first=masks)
    check_masks(masks, tensors)
    stored: dict[str, Tensor] = {}
    packed: dict[str, Packed] = {}
    dense: list[str] = []
    for name, tensor in tensors.items():
        if name not in masks:
            _put(stored, name, tensor.detach().cpu().contiguous().clone())
            continue
        parts = _pack(name, tensor, masks[name], values)
        if parts.whole is not None:
            dense.append(name)
            _put(stored, name, parts.whole)
        else:
            packed[name] = parts.how
            _put(stored, name + VALUES, parts.values)
            _put(stored, name + POSITIONS, torch.from_numpy(parts.code))
    metadata = Layout(packed, tuple(dense), tied).metadata(stored)
    data = safetensors.torch.save(stored, metadata=metadata)
    write_atomic(Path(path), data)
    return len(data)


def named(
    model: nn.Module | Tensors, *, first: Collection[str] = ()
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of a network once, and second name -> first name of those that are tied.

    Args:
        model: the network, or its tensors by name.
        first: names that come first among those of their tensor.
    Raises:
        ValueError: something in it is no tensor, is sharded, or has a type that no file can hold.
    """
    if isinstance(model, nn.Module):
        items: Mapping[str, object] = unwrap(model).state_dict(keep_vars=True)
    else:
        items = model
    aliases: dict[tuple[object, ...], list[str]] = {}
    tensors: dict[str, Tensor] = {}
    for key, tensor in items.items():
        name = clean_name(key)
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{name} is no tensor; a file of tensors cannot hold it.")
        if sharded.is_sharded(tensor):
            raise ValueError(f"{name} is sharded; gather the state first, as a full state dict.")
        if not layout.storable(tensor):
            raise ValueError(f"{name} is {tensor.dtype}, {tensor.layout}; no file can hold that.")
        aliases.setdefault(layout.identity(tensor), []).append(name)
        tensors[name] = tensor
    once: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    for names in aliases.values():
        chosen = next((name for name in names if name in first), names[0])
        once[chosen] = tensors[chosen]
        tied |= {name: chosen for name in names if name != chosen}
        if both := [name for name in names if name in first and name != chosen]:
            raise ValueError(f"masks has {chosen!r} and {both[0]!r}, one tensor; give one of them.")
    return once, tied


def check_masks(masks: Tensors, tensors: Tensors) -> None:
    """Refuse masks that are not of these tensors.

    Raises:
        ValueError: a name that no tensor has, another shape, or no bools.
    """
    for name, mask in masks.items():
        if name not in tensors:
            near = difflib.get_close_matches(name, list(tensors), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"masks has {name!r}, which the model does not have.{hint}")
        shape = tuple(tensors[name].shape)
        if mask.dtype != torch.bool or tuple(mask.shape) != shape or sharded.is_sharded(mask):
            raise ValueError(
                f"the mask of {name} must be bool of shape {shape}, "
                f"got {mask.dtype} of {tuple(mask.shape)}."
            )


class _Parts(NamedTuple):
    how: Packed
    values: Tensor
    code: np.ndarray
    whole: Tensor | None


def _pack(name: str, tensor: Tensor, mask: Tensor, values: Values | None) -> _Parts:
    """The smaller form of a masked tensor; whole only where its zeros tell the mask exactly."""
    flat, keep = layout.raw(tensor), mask.cpu().flatten().numpy()
    own = layout.from_raw(flat[keep], tensor.dtype)
    kept = _narrow(name, own, values)
    lists = "kept" if 2 * len(kept) <= len(flat) else "pruned"
    low_bits, code = positions.encode(np.flatnonzero(keep if lists == "kept" else ~keep))
    how = Packed(tuple(tensor.shape), layout.dtype_name(tensor), lists, low_bits)
    small = kept.nbytes + len(code) + _HEADER + 3 * len(name)
    alive = kept.dtype == tensor.dtype and int((own != 0).sum()) == len(own)
    if not alive or small < flat.nbytes:
        return _Parts(how, kept, code, None)
    whole = layout.from_raw(np.where(keep, flat, 0).astype(flat.dtype), tensor.dtype)
    return _Parts(how, kept, code, whole.reshape(tensor.shape))


def _narrow(name: str, kept: Tensor, values: Values | None) -> Tensor:
    if values is None or not kept.is_floating_point():
        return kept
    dtype = _VALUES[values]
    if dtype.itemsize >= kept.element_size():
        return kept
    small = kept.to(dtype)
    if (lost := layout.overflow(kept, dtype)) is not None:
        raise ValueError(
            f"{name} holds {lost:g}, too large for values={values!r}; take 'bfloat16'."
        )
    return small


def _put(stored: dict[str, Tensor], name: str, tensor: Tensor) -> None:
    if name in stored:
        raise ValueError(f"two tensors would be stored as {name!r}; rename one of the model's.")
    stored[name] = tensor
