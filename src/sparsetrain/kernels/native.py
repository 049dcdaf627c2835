"""The C++ kernels, where they are built: found once, checked, called on CPU tensors by address.

Each has a twin in PyTorch or NumPy beside its caller, with equal results. `SPARSETRAIN_NATIVE=0`
in the environment leaves all work to the twins; `generic`, `v3` or `v4` names the highest
processor level to use. The sources lie in csrc/.
"""

from __future__ import annotations

import ctypes
import logging
import os
import struct
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor, nn

from .memory import is_gapless

ABI = 8
"""Version of csrc/api.h that this file speaks."""

PATH = Path(__file__).with_name("_native.so")
_LEVELS = {"generic": 0, "v3": 3, "v4": 4}
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
MASKED = tuple(_KINDS)
"""The dtypes that `mask_` can mask."""
RANKED = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes that `kth` can rank, one at a time."""
_LOSS = (
    "on a CPU the regulariser and the masks then take about two to four times as long a step, and "
    "zeros save no time"
)
OfOneRow: TypeAlias = Literal[
    "st_pack", "st_unpack", "st_conv", "st_conv_grad",
    "st_program_make", "st_program_run", "st_program_free",
    "st_moments", "st_norm", "st_norm_sums", "st_norm_grad", "st_window", "st_window_grad",
]  # fmt: skip
"""Functions on packed activations that take one structure."""
_log = logging.getLogger(__name__)


class Masked(NamedTuple):
    """A bool mask, True where kept, and the tensors that it prunes, the weight first."""

    mask: Tensor
    tensors: Sequence[Tensor]


@cache
def library() -> ctypes.CDLL | None:
    """The library, or None; why it is missing is logged once, when it would first have helped."""
    wanted = os.environ.get("SPARSETRAIN_NATIVE", "v4")
    if wanted == "0":
        return None
    if not PATH.exists():
        _log.warning(
            "the C++ kernels are not built, PyTorch and NumPy stand in with the same results; %s. "
            "Install a C++17 compiler and install sparsetrain again, or set SPARSETRAIN_NATIVE=0 "
            "to be told no more.",
            _LOSS,
        )
        return None
    return _opened(PATH, _LEVELS.get(wanted, max(_LEVELS.values())))


def described() -> str:
    """Whether the kernels are in use, in words."""
    if os.environ.get("SPARSETRAIN_NATIVE") == "0":
        return "left out, as SPARSETRAIN_NATIVE=0 says"
    return "not in use" if library() is None else "in use"


def _opened(path: Path, level: int) -> ctypes.CDLL | None:
    try:
        found = ctypes.CDLL(str(path))
        abi = int(found.st_abi())
    except (OSError, AttributeError) as error:
        _log.warning(
            "the C++ kernels do not load (%s); %s. Install sparsetrain again.", error, _LOSS
        )
        return None
    if abi != ABI:
        _log.warning(
            "the C++ kernels are of another version (interface %d, needed %d) and stay unused; %s. "
            "Install sparsetrain again.",
            abi,
            ABI,
            _LOSS,
        )
        return None
    rows, count, threads = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    out, single = ctypes.c_void_p, ctypes.c_float
    found.st_kth.argtypes = [
        rows, count, ctypes.c_int, ctypes.c_int, ctypes.c_int64, out, threads,
    ]  # fmt: skip
    found.st_hypersparse_sums.argtypes = [rows, count, single, out, threads]
    found.st_hypersparse_add.argtypes = [rows, count, single, single, threads]
    found.st_hypersparse_set.argtypes = [rows, count, single, single, threads]
    found.st_mask.argtypes = [rows, count, rows, out, threads]
    found.st_sgd.argtypes = [rows, count, out, threads]
    for name in get_args(OfOneRow):
        getattr(found, name).argtypes = [rows, threads]
    found.st_use_level(level)
    found.st_use_openmp.argtypes, found.st_use_openmp.restype = [ctypes.c_void_p], None
    found.st_use_openmp(_torch_threads())
    return found


def _torch_threads() -> int | None:
    """The entry of the OpenMP runtime that torch has loaded for all; None: it has another kind."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (OSError, AttributeError, TypeError):  # TypeError: Windows has no library of all
        return None


class Spans(NamedTuple):
    """Tensors of one dtype by address and size, checked once for several calls.

    Attributes:
        table: for each tensor the structure `Span` of csrc/api.h.
        tensors: what the table points to, without gaps, kept alive.
    """

    table: ctypes.Array[ctypes.c_int64]
    tensors: Sequence[Tensor]


class Pairs(NamedTuple):
    """Weights and gradients by address and size, checked once.

    Attributes:
        table: for each pair the structure `Pair` of csrc/api.h.
        weights: what the table points to, kept alive.
        grads: likewise; these change.
    """

    table: ctypes.Array[ctypes.c_int64]
    weights: Sequence[Tensor]
    grads: Sequence[Tensor]


def takes(tensors: Iterable[Tensor], *dtypes: torch.dtype) -> bool:
    """Whether the kernels are there and can work on these tensors of these dtypes."""
    return all(_plain(t) and t.dtype in dtypes for t in tensors) and library() is not None


def spans(tensors: Iterable[Tensor], *dtypes: torch.dtype) -> Spans | None:
    """The tensors as the kernels take them, or None where they cannot: all of one of the dtypes."""
    if library() is None:
        return None
    dense, fields, dtype = [], [], None
    for tensor in tensors:  # one loop: thousands of tensors, and each question costs 0.1 us
        dtype = dtype or tensor.dtype
        if tensor.dtype is not dtype or dtype not in dtypes or not _plain(tensor):
            return None
        kept = _dense(tensor)
        dense.append(kept)
        fields += (kept.data_ptr(), kept.numel())
    return Spans(_array(fields), dense) if dense else None


def pairs(weights: Iterable[Tensor], grads: Iterable[Tensor | None]) -> Pairs | None:
    """Weights and gradients as the kernels take them, or None where they cannot.

    Args:
        weights: float32 tensors.
        grads: one a weight, float32, whose entries lie in memory in the weight's order without
            gaps; None leaves the weight out.
    """
    if library() is None:
        return None
    kept, moved, fields = [], [], []
    for weight, grad in zip(weights, grads, strict=True):
        if grad is None:
            continue
        if (
            not (weight.dtype is grad.dtype is torch.float32)
            or not (_plain(weight) and _plain(grad))
            or not _alike(weight, grad)
        ):
            return None
        kept.append(weight)
        moved.append(grad)
        fields += (weight.data_ptr(), grad.data_ptr(), weight.numel())
    return Pairs(_array(fields), kept, moved)


def kth(tensors: Spans, k: int, *, magnitude: bool) -> Tensor:
    """The value of rank `k` among all entries, or among their magnitudes.

    Args:
        tensors: float32, bfloat16 or float16.
        k: 0-based rank in ascending order, below the number of entries; NaN ranks above all.
        magnitude: rank |x| instead of x.

    Returns:
        A 0-d tensor of the same dtype, one of the entries (magnitudes) bit for bit.
    """
    out = torch.empty((), dtype=tensors.tensors[0].dtype)
    count, kind = len(tensors.tensors), _KINDS[out.dtype]
    _call("st_kth", tensors.table, count, kind, int(magnitude), k, out.data_ptr())
    return out


def hypersparse_sums(weights: Spans, steepness: float) -> tuple[float, float]:
    """Sum of |w| and sum of tanh(steepness * |w|), over float32 tensors.

    Each is added in float64, in one order whatever the number of threads.
    """
    out = (ctypes.c_double * 2)()
    table, count = weights.table, len(weights.tensors)
    _call("st_hypersparse_sums", table, count, steepness, ctypes.addressof(out))
    return out[0], out[1]


def add_hypersparse_(pairs: Pairs, steepness: float, factor: float) -> None:
    """Add `factor * sign(w) * sech^2(steepness * |w|)` to each gradient, in place.

    Args:
        pairs: weights and gradients.
        steepness: at most a quarter of the largest float32, so that it survives a doubling.
        factor: within the range of float32.
    """
    _call("st_hypersparse_add", pairs.table, len(pairs.grads), steepness, factor)
    _note_change(pairs.grads)


def set_hypersparse_(pairs: Pairs, steepness: float, factor: float) -> None:
    """Write what `add_hypersparse_` adds; what the gradients held is not read."""
    _call("st_hypersparse_set", pairs.table, len(pairs.grads), steepness, factor)
    _note_change(pairs.grads)


def takes_mask(row: Masked) -> bool:
    """Whether `mask_` can work on this row: plain CPU tensors in one memory order, without gaps."""
    mask = row.mask
    return (
        mask.dtype is torch.bool
        and _plain(mask)
        and all(_alike(mask, tensor) for tensor in row.tensors)
        and takes(row.tensors, *MASKED)
    )


def mask_(rows: Sequence[Masked]) -> list[bool]:
    """Store +0.0 where a mask is False; kept entries are not touched.

    Args:
        rows: what `takes_mask` accepts.

    Returns:
        Whether the first tensor of each row is finite everywhere afterwards.
    """
    tensors = [tensor for row in rows for tensor in row.tensors]
    listed = _table((t.data_ptr(), _KINDS[t.dtype]) for t in tensors)
    table = _table((row.mask.data_ptr(), row.mask.numel(), len(row.tensors)) for row in rows)
    bad = (ctypes.c_uint8 * max(1, len(tensors)))()
    _call("st_mask", table, len(rows), listed, ctypes.addressof(bad))
    _note_change(tensors)
    finite, first = [], 0
    for row in rows:
        finite.append(not (row.tensors and bad[first]))
        first += len(row.tensors)
    return finite


class Step(NamedTuple):
    """A step of SGD without damping, for the kept entries of a weight.

    Attributes:
        mask: bool, True where kept.
        weight: float32, moved in place.
        grad: of the weight.
        buffer: of momentum, moved in place, or None.
        rates: learning rate, momentum, weight decay.
        nesterov, maximize: as of `torch.optim.SGD`.
    """

    mask: Tensor
    weight: Tensor
    grad: Tensor
    buffer: Tensor | None
    rates: tuple[float, float, float]
    nesterov: bool = False
    maximize: bool = False


def takes_step(row: Step) -> bool:
    """Whether `sgd_` can take this step: plain float32 CPU tensors in one order, without gaps."""
    moved = [row.weight, row.grad] if row.buffer is None else [row.weight, row.grad, row.buffer]
    lie_alike = _plain(row.mask) and all(_alike(row.mask, tensor) for tensor in moved)
    return row.mask.dtype is torch.bool and lie_alike and takes(moved, torch.float32)


def sgd_(rows: Sequence[Step]) -> list[bool]:
    """Take steps that `takes_step` accepts; pruned entries stay as they are, momentum too.

    Returns:
        Whether each weight is finite afterwards, as far as it was looked at.
    """
    fields: list[int] = []
    for row in rows:
        tensors = (row.weight, row.grad, row.buffer, row.mask)
        fields += [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        rates = [struct.unpack("q", struct.pack("d", rate))[0] for rate in row.rates]
        fields += [row.weight.numel(), *rates, int(row.nesterov), int(row.maximize)]
    bad = (ctypes.c_uint8 * max(1, len(rows)))()
    _call("st_sgd", _array(fields), len(rows), ctypes.addressof(bad))
    moved = [[row.weight] if row.buffer is None else [row.weight, row.buffer] for row in rows]
    _note_change([tensor for tensors in moved for tensor in tensors])
    return [not flag for flag in bad[: len(rows)]]


def run(name: OfOneRow, row: Sequence[int]) -> None:
    """Call a function of one structure, whose fields are 8 bytes each (csrc/api.h).

    Args:
        row: the fields in order; the caller keeps alive what they point to.
    """
    table = _table([tuple(row)])
    _call(name, ctypes.addressof(table))


def call(name: OfOneRow, address: int) -> None:
    """Call a function of one structure, which lies at an address."""
    _call(name, address)


def _call(name: str, *arguments: object) -> None:
    found = library()
    assert found is not None, "callers ask `takes` first"
    if getattr(found, name)(*arguments, torch.get_num_threads()) != 0:
        raise MemoryError(f"no memory for the work space of {name}; free some and call again.")


def _table(rows: Iterable[tuple[int, ...]]) -> ctypes.Array[ctypes.c_int64]:
    """Rows of addresses and sizes as the C structures, whose fields are 8 bytes each."""
    return _array([field for row in rows for field in row])


def _array(fields: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * max(1, len(fields)))(*fields)


def _plain(tensor: Tensor) -> bool:
    """Whether the address of a tensor is that of its entries; not so in DTensor, for example."""
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_neg()
    )


def _dense(tensor: Tensor) -> Tensor:
    return tensor if is_gapless(tensor) else tensor.contiguous()


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether entries of both follow each other in one order, without gaps."""
    if one.shape != other.shape:
        return False
    if one.is_contiguous() or other.is_contiguous():
        return one.is_contiguous() and other.is_contiguous()
    return one.stride() == other.stride() and is_gapless(one)


def _note_change(tensors: Iterable[Tensor]) -> None:
    """Tell autograd, which cannot see a change made by address."""
    torch.autograd.graph.increment_version([t for t in tensors if not t.is_inference()])
