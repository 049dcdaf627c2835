"""Masks as a table for people."""

from __future__ import annotations

from . import masks as mask_algebra
from .types import Tensors


def mask_table(masks: Tensors) -> str:
    """One line a layer (shape, kept, weights, sparsity) and the total, as aligned text."""
    rows = [
        (name, "x".join(map(str, masks[name].shape)), count, masks[name].numel())
        for name, count in mask_algebra.count_active(masks).items()
    ]
    rows.append(("total", "", sum(r[2] for r in rows), sum(r[3] for r in rows)))
    width = max(len(row[0]) for row in rows)
    lines = [f"{'layer':<{width}}  {'shape':>16}  {'kept':>11}  {'weights':>11}  sparsity"]
    for name, shape, kept, count in rows:
        zeros = 1 - kept / count if count else 0.0
        lines.append(f"{name:<{width}}  {shape:>16}  {kept:>11,}  {count:>11,}  {zeros:8.4f}")
    return "\n".join(lines)
