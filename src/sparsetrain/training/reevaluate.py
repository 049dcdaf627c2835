"""Test a finished run's network again, from its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .device import place
from .errors import BadInput, RunFailed
from .feeds import load_data, test_feed
from .finished import opened
from .loop import evaluate
from .session import make_model

# Other devices and precisions move single images across the border, not whole percents.
_TOLERANCE = 0.005


def reevaluate(path: Path, *, device: str = "auto", data_dir: Path | None = None) -> dict[str, Any]:
    """Measure `model.safetensors` of a run on the test set.

    Args:
        path: the run folder.
        device: as in the settings.
        data_dir: where the data lie; None is what the run used.
    Returns:
        test_accuracy, recorded_test_accuracy and difference (fractions), sparsity of the file's
        prunable weights.
    Raises:
        BadInput: no finished run lies there, or its data or device are missing.
        RunFailed: the network does not reproduce the record to 0.5 points, or is not as sparse.
    """
    parts = opened(path)
    config = parts.config
    where = place(replace(config.run, device=device))
    data = config.data if data_dir is None else replace(config.data, data_dir=data_dir)
    try:
        dataset = load_data(data)
        model = make_model(config.model, dataset, where)
        model.load_state_dict(parts.weights)
    except (ValueError, OSError, RuntimeError) as error:
        raise BadInput(f"cannot rebuild the network of {path}: {error}") from error
    result = evaluate(model, test_feed(dataset, where).batches(0), place=where)
    return _compared(result.accuracy, parts.weights, parts.record)


def _compared(
    accuracy: float, weights: dict[str, torch.Tensor], record: dict[str, Any]
) -> dict[str, Any]:
    pruned = [weights[name] for name in record["sparsity"]["per_layer"]]
    alive = sum(int(w.count_nonzero()) for w in pruned)
    total = sum(w.numel() for w in pruned)
    recorded = record["test_accuracy"]
    if alive > record["kept_weights"]:
        raise RunFailed(
            f"the network has {alive:,} weights that are not zero, "
            f"its record says {record['kept_weights']:,}."
        )
    if abs(accuracy - recorded) > _TOLERANCE:
        raise RunFailed(
            f"the network reaches {100 * accuracy:.2f} % on the test set, "
            f"its record says {100 * recorded:.2f} %."
        )
    return {
        "test_accuracy": accuracy,
        "recorded_test_accuracy": recorded,
        "difference": accuracy - recorded,
        "sparsity": 1 - alive / total,
    }
