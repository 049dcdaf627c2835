"""What lies where in a compressed file: the metadata that describe it, and its digest."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FORMAT = "sparsetrain.compressed"
VERSION = "1"
VALUES, POSITIONS = ":values", ":positions"

# Read by people who have the file and nothing else.
_ABOUT = (
    "A pruned network. Each NAME in `packed` (JSON) is a tensor of `shape` and `dtype`, zero but "
    "for NAME:values, its kept weights in row-major order. NAME:positions says where: bits, the "
    "highest of a byte first, of the gaps between the flat positions of the kept weights or, where "
    "`lists` is pruned, of the pruned ones. First the `low_bits` low bits of every gap, then of "
    "each gap as many 0 bits as the rest of it says and a 1. All other tensors are as they are. "
    "`tied` (JSON): more names of the same tensors. `dense` (JSON): masked tensors stored as they "
    "are, for they have few zeros. `sha256`: of all this; the library checks it."
)

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.bool),
        *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
        *(torch.int8, torch.int16, torch.int32, torch.int64),
    )
}
# Bytes -> a type that every function takes.
WHOLE_NUMBER = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Packed:
    """How one tensor without its zeros is described.

    Attributes:
        shape: of the whole tensor.
        dtype: of the whole tensor, as "float32"; its stored values may be of a smaller one.
        lists: which positions are coded, "kept" or "pruned".
        low_bits: see `positions`.
    """

    shape: tuple[int, ...]
    dtype: str
    lists: str
    low_bits: int

    @property
    def size(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The whole tensor's type."""
        return _DTYPES[self.dtype]


@dataclass(frozen=True)
class Layout:
    """The description of a file.

    Attributes:
        packed: name -> how it lies there.
        dense: masked tensors that are stored as they are; their mask is where they are not 0.
        tied: second name -> the name under which the same tensor is stored.
    """

    packed: Mapping[str, Packed]
    dense: tuple[str, ...]
    tied: Mapping[str, str]

    def metadata(self, stored: Mapping[str, Tensor]) -> dict[str, str]:
        """The metadata of the safetensors file that holds `stored`."""
        described = {
            "format": FORMAT,
            "version": VERSION,
            "about": _ABOUT,
            "packed": _json({name: asdict(entry) for name, entry in self.packed.items()}),
            "dense": _json(self.dense),
            "tied": _json(self.tied),
        }
        return {**described, "sha256": digest(described, stored)}


def parse(metadata: Mapping[str, str]) -> Layout:
    """The description in a file's metadata.

    Raises:
        ValueError: it is not of this format, of a later version, or not as it should be.
    """
    if metadata.get("format") != FORMAT:
        raise ValueError("it was not written by st.compress.save; load it with safetensors")
    if metadata.get("version") != VERSION:
        version = metadata.get("version")
        raise ValueError(f"its version is {version!r} and this library reads {VERSION!r}")
    try:
        packed, dense, tied = (json.loads(metadata[key]) for key in ("packed", "dense", "tied"))
    except (KeyError, ValueError, RecursionError) as error:
        raise ValueError("its description is missing or no JSON") from error
    if not (isinstance(packed, dict) and isinstance(tied, dict) and isinstance(dense, list)):
        raise ValueError("its description is not of the right form")
    if not all(isinstance(name, str) for name in [*dense, *tied.values()]):
        raise ValueError("its description is not of the right form")
    return Layout(
        {name: _packed(name, entry) for name, entry in packed.items()}, tuple(dense), tied
    )


def _packed(name: str, entry: Any) -> Packed:
    wrong = ValueError(f"the description of {name!r} is not of the right form")
    if not isinstance(entry, dict) or set(entry) != {"shape", "dtype", "lists", "low_bits"}:
        raise wrong
    shape, dtype, lists, low_bits = (entry[k] for k in ("shape", "dtype", "lists", "low_bits"))
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise wrong
    if type(low_bits) is not int or lists not in ("kept", "pruned") or dtype not in _DTYPES:
        raise wrong
    # 2^62 positions keep every index within 64 bits; what is allocated is checked elsewhere.
    if len(shape) > 64 or math.prod(n for n in shape if n) > 2**62:
        raise wrong
    return Packed(tuple(shape), dtype, lists, low_bits)


def digest(described: Mapping[str, str], stored: Mapping[str, Tensor]) -> str:
    """SHA-256 over the description and every stored tensor's name, type, shape and bytes."""
    # Sorted, for a file does not keep the order of its metadata.
    lines = sorted([key, text] for key, text in described.items() if key != "sha256")
    state = hashlib.sha256(_json(lines).encode())
    for name in sorted(stored):
        tensor = stored[name]
        state.update(_json([name, dtype_name(tensor), list(tensor.shape)]).encode())
        state.update(raw(tensor).data)
    return state.hexdigest()


def dtype_name(tensor: Tensor) -> str:
    """A tensor's type without "torch."."""
    return str(tensor.dtype).removeprefix("torch.")


def storable(tensor: Tensor) -> bool:
    """Whether a safetensors file can hold such a tensor."""
    return tensor.dtype in _DTYPES.values() and tensor.layout == torch.strided


def identity(tensor: Tensor) -> tuple[object, ...]:
    """What tied tensors have in common, detached ones of a state dict too: the same memory."""
    place = tensor.untyped_storage().data_ptr()
    if not place or not tensor.numel():
        return (id(tensor),)
    form = (tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
    return (tensor.device, place, *form)


def overflow(values: Tensor, dtype: torch.dtype) -> float | None:
    """The first finite value that a floating type is too small for."""
    if not (values.is_floating_point() and dtype.is_floating_point) or values.dtype == dtype:
        return None
    lost = values[values.double().isfinite() & ~values.to(dtype).double().isfinite()]
    return float(lost[0]) if len(lost) else None


def raw(tensor: Tensor) -> NDArray[Any]:
    """The bits of a tensor in row-major order, as whole numbers of the same size, on the CPU."""
    flat = tensor.detach().cpu().contiguous().flatten()
    return flat.view(WHOLE_NUMBER[flat.element_size()]).numpy()


def from_raw(bits: NDArray[Any], dtype: torch.dtype) -> Tensor:
    """The 1-D tensor with these bits."""
    return torch.from_numpy(np.ascontiguousarray(bits)).view(dtype)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
