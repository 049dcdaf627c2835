"""`sparse_compute`: whether training steps compute with kept weights alone."""

from __future__ import annotations

import torch

from ..compute import SparseCompute
from ..phases import PhaseDriver
from ..sparsifier import Sparsifier
from .config import RunConfig
from .errors import BadInput


def sparse_steps(
    run: RunConfig, engine: Sparsifier | PhaseDriver, device: torch.device, *, compiled: bool
) -> SparseCompute | None:
    """The context of each training step; None: all steps are dense.

    Args:
        run: its `sparse_compute` and `deterministic`.
        engine: keeps the masks.
        device: where the run computes.
        compiled: whether the network is compiled.
    Raises:
        BadInput: always, where it cannot be.
    """
    wanted = run.sparse_compute
    why = _hindrance(run, device, compiled=compiled)
    if wanted == "always" and why is not None:
        raise BadInput(f"sparse_compute=always does not go with {why}; take auto or never.")
    if wanted == "never" or why is not None:
        return None
    if wanted == "always":
        return SparseCompute(engine, mode="sparse")
    return SparseCompute(engine, mode="fixed" if run.deterministic else "measured")


def _hindrance(run: RunConfig, device: torch.device, *, compiled: bool) -> str | None:
    if device.type != "cpu":
        return f"device {device.type}: the sparse kernels are for CPUs"
    if run.parallel == "fsdp":
        return "parallel=fsdp, whose weights are spread over processes"
    return f"compile={run.compile}" if compiled else None
