"""The record of a finished run: what was asked, what came out, what it cost, where it ran."""

from __future__ import annotations

import dataclasses
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..masks import count_active
from ..patterns import units_of
from ..types import Masks
from .config import TrainConfig
from .device import device_name
from .flops import ForwardFlops
from .inputs import Inputs
from .session import Session
from .settings import identity
from .totals import Totals

SCHEMA_VERSION = 1


def make_record(
    config: TrainConfig,
    session: Session,
    *,
    epochs: int,
    totals: Totals,
    flops: ForwardFlops,
    accuracies: dict[str, Any],
    command: str,
) -> dict[str, Any]:
    """Everything worth keeping of a run, as JSON values.

    Args:
        config: resolved settings.
        session: after training.
        epochs: epochs trained, all phases.
        totals: sums over the epochs.
        flops: of the dense forward pass.
        accuracies: by the record's names, fractions.
        command: as typed.
    """
    masks = dict(session.plan.masks)
    kept = count_active(masks)
    sizes = {name: mask.numel() for name, mask in masks.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "method": config.sparse.method,
        "options": dataclasses.asdict(config.options),
        "model": config.model.model,
        "dataset": session.dataset.name,
        "images": {
            "train": session.train_images,
            "validation": len(session.dataset.train_labels) - session.train_images,
            "test": len(session.dataset.test_labels),
        },
        "inputs": Inputs.of(session.dataset).to_record(),
        "seed": config.run.seed,
        "sparsity": {
            "target": config.sparse.sparsity,
            "achieved": 1 - sum(kept.values()) / sum(sizes.values()),
            "per_layer": {name: 1 - kept[name] / sizes[name] for name in masks},
        },
        "kept_weights": sum(kept.values()),
        "prunable_weights": sum(sizes.values()),
        "units": _units(masks),
        "parameters": sum(p.numel() for p in session.model.parameters()),
        "epochs": epochs,
        "steps": totals.steps,
        "skipped_steps": totals.skipped_steps,
        **session.plan.facts(),
        **accuracies,
        "flops": _flops(masks, flops, totals, epochs * session.train_images),
        "seconds": {k: round(v, 3) for k, v in totals.seconds().items()},
        "device": f"{session.place.device.type}: {device_name(session.place.device)}",
        "precision": "bf16" if session.place.bf16 else "fp32",
        "compiled": None if session.place.compiled is None else session.place.compiled.mode,
        "threads": torch.get_num_threads(),
        "processes": session.place.world.size,
        "versions": {
            "sparsetrain": __version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "commit": commit(),
        "command": command,
        "settings": identity(config),
    }


def _units(masks: Masks) -> dict[str, int]:
    """Output channels and neurons, and those of them that have no weight left."""
    units = units_of(masks)
    count = sum(unit.numel() for unit in units.values())
    return {"all": count, "dead": count - sum(count_active(units).values())}


def commit() -> str | None:
    """The source's git commit where it runs from a checkout of its own, else None."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    answer = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None


def _flops(masks: Masks, forward: ForwardFlops, totals: Totals, images: int) -> dict[str, float]:
    """Multiply-adds count as two; training costs three forward passes an image.

    `train_growth` is what gradients of pruned weights cost beyond `train_sparse`.
    """
    return {
        "inference_dense": forward.total,
        "inference_sparse": round(forward.at(masks)),
        "train_dense": 3 * forward.total * images,
        "train_sparse": round(totals.train_flops),
        "train_growth": round(totals.growth_flops),
    }
