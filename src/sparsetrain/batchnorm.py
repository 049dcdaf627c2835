"""Batch-norm statistics belong to the weights they were measured with: measure them again."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]


@torch.no_grad()
def recalibrate_batchnorm_(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics by the plain average over some batches; weights do not move.

    Args:
        model: any module; without batch norm nothing happens. Its training flags are kept.
        batches: inputs as the model takes them, at least one; a few hundred images are enough.
    Raises:
        ValueError: the model has batch norm and there was no batch. After any error the old
            statistics are back.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        return
    training = {module: module.training for module in model.modules()}
    momenta = {norm: norm.momentum for norm in norms}
    before = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    seen = 0
    try:
        model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
            norm.train()
        for batch in batches:
            model(batch)
            seen += 1
        if not seen:
            raise ValueError("recalibrate_batchnorm_ got no batch; give it at least one")
    except BaseException:
        for buffer, values in before:
            buffer.copy_(values)
        raise
    finally:
        for norm, momentum in momenta.items():
            norm.momentum = momentum
        for module, flag in training.items():
            module.training = flag
