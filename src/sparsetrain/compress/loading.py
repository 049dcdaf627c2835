"""A compressed file back into a network, after everything in it was checked."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .. import sharded
from ..selection import clean_name, unwrap
from ..types import Masks
from . import layout, positions
from .layout import POSITIONS, VALUES, Layout


def load(path: str | os.PathLike[str], model: nn.Module) -> Masks:
    """Put a file that `save` has written into a network of the same shapes, in place.

    The network is changed only after the whole file was found to be right.

    Args:
        path: the file.
        model: the network, wrapped or not, on any device and of any floating type.
    Returns:
        name -> bool mask on the parameter's device, as given to `save`; for
        `st.methods.static(masks=…)` where training goes on.
    Raises:
        ValueError: the file is damaged, not of this format, or of another network, holds a value
            too large for the network's type, or unequal weights for a tied tensor.
        OSError: it cannot be read.
    """
    contents = _Contents.read(Path(path))
    own = {clean_name(n): t for n, t in unwrap(model).state_dict(keep_vars=True).items()}
    own = {name: tensor for name, tensor in own.items() if isinstance(tensor, Tensor)}
    if sharded.any_sharded(own.values()):
        raise ValueError("the model is sharded; load before `fully_shard`.")
    contents.check_fits(own)
    spots = {name: contents.positions(name) for name in contents.layout.packed}
    sources: dict[tuple[object, ...], str] = {}
    for name, tensor in own.items():
        source = contents.layout.tied.get(name, name)
        contents.check_range(source, tensor.dtype)
        first = sources.setdefault(layout.identity(tensor), source)
        if first != source and not contents.equal(first, source, spots):
            raise contents.wrong(
                f"{first} and {source} differ there and are one tensor here; untie them first"
            )
    for tensor in own.values():
        if (source := sources.pop(layout.identity(tensor), None)) is not None:
            contents.write_(tensor, source, spots)
    masks = {name: contents.mask(name, spots) for name in contents.masked}
    return {name: mask.to(own[name].device) for name, mask in masks.items()}


def read(path: str | os.PathLike[str], *, max_bytes: int = 2**33) -> dict[str, Tensor]:
    """The state dict in a file that `save` has written, zeros included, on the CPU.

    Args:
        path: the file.
        max_bytes: the most that the tensors may take in memory, for zeros take no room in a file.
    Returns:
        name -> tensor; tied names share one tensor.
    Raises:
        ValueError: the file is damaged or not of this format, or takes more than `max_bytes`.
        OSError: it cannot be read.
    """
    contents = _Contents.read(Path(path))
    needed = contents.nbytes
    if needed > max_bytes:
        raise ValueError(
            f"{path} unpacks to {needed:,} bytes and max_bytes is {max_bytes:,}; "
            "raise it if you trust the file."
        )
    spots = {name: contents.positions(name) for name in contents.layout.packed}
    state: dict[str, Tensor] = {}
    for name in contents.names:
        whole = contents.whole(name, spots)
        state[name] = whole if name in contents.layout.packed else whole.clone()
    return state | {name: state[first] for name, first in contents.layout.tied.items()}


@dataclass(frozen=True)
class _Contents:
    """An open file whose sizes agree with its description and whose digest is right."""

    path: Path
    layout: Layout
    stored: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> _Contents:
        with path.open("rb"):  # a missing file is an OSError, whatever the reader below says
            pass
        try:
            # safetensors itself checks that header and sizes are those of the file.
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                described = layout.parse(metadata)
                stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, RuntimeError, OSError, KeyError) as error:
            raise ValueError(f"{path} is no whole safetensors file: {error}.") from error
        except ValueError as error:
            raise ValueError(f"cannot load {path}: {error}.") from error
        contents = cls(path, described, stored)
        contents._check_parts()
        if metadata.get("sha256") != layout.digest(metadata, stored):
            raise contents.wrong("its digest is not that of its contents; it is damaged")
        return contents

    @property
    def names(self) -> list[str]:
        """Every tensor's first name."""
        parts = {name + end for name in self.layout.packed for end in (VALUES, POSITIONS)}
        return [*self.layout.packed, *(name for name in self.stored if name not in parts)]

    @property
    def masked(self) -> list[str]:
        """The tensors that were saved under a mask."""
        return [*self.layout.packed, *self.layout.dense]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors with their zeros."""
        packed = self.layout.packed
        whole = sum(self.stored[n].nbytes for n in self.names if n not in packed)
        return whole + sum(how.size * how.torch_dtype.itemsize for how in packed.values())

    def _check_parts(self) -> None:
        packed, stored = self.layout.packed, self.stored
        for name, how in packed.items():
            values, code = stored.get(name + VALUES), stored.get(name + POSITIONS)
            if values is None or code is None or name in stored:
                raise self.wrong(f"{name} is described and not there, or there twice")
            if values.ndim != 1 or code.ndim != 1 or code.dtype != torch.uint8:
                raise self.wrong(f"the parts of {name} have the wrong form")
            if len(values) > how.size:
                raise self.wrong(f"{name} has {len(values)} values and {how.size} places")
            smaller = how.torch_dtype.is_floating_point and values.is_floating_point()
            if values.dtype != how.torch_dtype and not smaller:
                raise self.wrong(f"{name} is {how.dtype} and its values are {values.dtype}")
        names = set(self.names)
        wrong = [n for n in self.layout.dense if n not in stored or n not in names]
        wrong += [n for n, first in self.layout.tied.items() if n in names or first not in names]
        if wrong:
            raise self.wrong(f"{wrong[0]} is described and not there, or there twice")

    def check_fits(self, own: Mapping[str, Tensor]) -> None:
        """Refuse a network that has other names or shapes.

        Raises:
            ValueError: which is the first.
        """
        there = [*self.names, *self.layout.tied]
        for name in own:
            if name not in there:
                near = _near(name, {*there} - {*own})
                raise self.wrong(f"it has no {name!r} of the model{near}")
        for name in there:
            if name not in own:
                raise self.wrong(f"it has {name!r}, which the model does not have")
            source = self.layout.tied.get(name, name)
            how = self.layout.packed.get(source)
            shape = tuple(self.stored[source].shape) if how is None else how.shape
            if tuple(own[name].shape) != shape:
                raise self.wrong(f"{name} is {shape} there and {tuple(own[name].shape)} here")

    def check_range(self, name: str, dtype: torch.dtype) -> None:
        """Refuse a network whose type is too small for a stored value.

        Raises:
            ValueError: which is the first.
        """
        values = self.stored[name + VALUES if name in self.layout.packed else name]
        if (lost := layout.overflow(values, dtype)) is not None:
            kind = str(dtype).removeprefix("torch.")
            raise self.wrong(
                f"{name} holds {lost:g}, too large for the model's {kind}; take bfloat16 or float32"
            )

    def equal(self, one: str, two: str, spots: Mapping[str, NDArray[np.int64]]) -> bool:
        """Whether two stored tensors have the same type and bits."""
        first, second = self.whole(one, spots), self.whole(two, spots)
        same_type = first.dtype == second.dtype
        return same_type and np.array_equal(layout.raw(first), layout.raw(second))

    def whole(self, name: str, spots: Mapping[str, NDArray[np.int64]]) -> Tensor:
        """The tensor stored under `name`, zeros included, on the CPU."""
        how = self.layout.packed.get(name)
        if how is None:
            return self.stored[name]
        tensor = torch.empty(how.shape, dtype=how.torch_dtype)
        self.write_(tensor, name, spots)
        return tensor

    def positions(self, name: str) -> NDArray[np.int64]:
        """The flat positions that a packed tensor lists.

        Raises:
            ValueError: the bits are not those of as many positions as there are values.
        """
        how, kept = self.layout.packed[name], len(self.stored[name + VALUES])
        count = kept if how.lists == "kept" else how.size - kept
        code = self.stored[name + POSITIONS].numpy()
        try:
            return positions.decode(code, count=count, low_bits=how.low_bits, size=how.size)
        except ValueError as error:
            raise self.wrong(f"the positions of {name}: {error}") from error

    @torch.no_grad()
    def write_(self, tensor: Tensor, name: str, spots: Mapping[str, NDArray[np.int64]]) -> None:
        """Overwrite a tensor with the one stored under `name`."""
        how = self.layout.packed.get(name)
        if how is None:
            tensor.copy_(self.stored[name])
            return
        values = self.stored[name + VALUES].to(tensor.dtype)
        tensor.zero_()
        if how.lists == "kept":
            kept = torch.from_numpy(spots[name])
        else:
            kept = self.mask(name, spots).flatten().nonzero().flatten()
        # `put_` counts in row-major order, whatever the memory format; not every type has it, so
        # the bits are put.
        bits = layout.WHOLE_NUMBER[tensor.element_size()]
        tensor.view(bits).put_(kept.to(tensor.device), values.to(tensor.device).view(bits))

    def mask(self, name: str, spots: Mapping[str, NDArray[np.int64]]) -> Tensor:
        """Where a masked tensor's weights are kept, on the CPU."""
        how = self.layout.packed.get(name)
        if how is None:
            return self.stored[name] != 0
        mask = np.full(how.size, how.lists == "pruned")
        mask[spots[name]] ^= True
        return torch.from_numpy(mask).reshape(how.shape)

    def wrong(self, what: str) -> ValueError:
        """The error to raise, about this file."""
        return ValueError(f"cannot load {self.path}: {what}.")


def _near(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    return f" (it has {near[0]!r})" if near else ""
