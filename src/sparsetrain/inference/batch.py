"""Whether what is traced holds for any batch: the guards that torch.export records."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

# Tracing takes a size that occurs elsewhere in the network for that one.
TRACED_ROWS = 13


def tracing_any_batch() -> AbstractContextManager[None]:
    """Tracing that records a guard where the model asks whether the batch is one image.

    By default torch.export takes a size that may vary for two at least, and records nothing.
    """
    from torch.fx.experimental import _config as config

    return config.patch(backed_size_oblivious=True)  # pyright: ignore[reportAttributeAccessIssue]


def repeated(flat: list[Any], batched: list[bool], rows: int) -> list[Any]:
    """Flat inputs of which those with a batch have so many rows: theirs, again and again."""
    return [_rows(v, rows) if many else v for v, many in zip(flat, batched, strict=True)]


def depends_on_batch(sizes: list[Any]) -> bool:
    """Whether tracing took the batch for a constant, or chose what is computed by it.

    A guard that holds for all batches of two and more images counts for nothing: those of none
    and one are tried out.

    Args:
        sizes: of the inputs' batches, as they were traced.
    """
    from sympy import Symbol, true

    if any(isinstance(size, int) for size in sizes):
        return True
    more = 2 + Symbol("more", integer=True, nonnegative=True)
    guards = [expression.subs(dict.fromkeys(names, more)) for expression, names in _guards(sizes)]
    return any(guard != true for guard in guards)


def ties(sizes: list[Any]) -> dict[Any, Any]:
    """Symbol of a batch -> the one that it must equal: those that a guard compares.

    Args:
        sizes: as above.
    """
    together = set().union(*(names for _, names in _guards(sizes) if len(names) > 1))
    ordered = sorted(together, key=str)
    return dict.fromkeys(ordered[1:], ordered[0]) if ordered else {}


def _guards(sizes: list[Any]) -> Iterator[tuple[Any, set[Any]]]:
    """Each condition on the traced sizes, and the symbols in it."""
    for guard in sizes[0].node.shape_env.guards if sizes else ():
        yield guard.expr, guard.expr.free_symbols


def _rows(tensor: Tensor, rows: int) -> Tensor:
    return tensor.detach()[torch.arange(rows) % tensor.shape[0]]
