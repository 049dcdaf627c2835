"""Layers without a weight: nothing gets through them, and somebody should be told."""

from __future__ import annotations

import logging

from . import masks as mask_algebra
from .types import Tensors

_log = logging.getLogger(__name__)


def warn_of_empty_layers(masks: Tensors, told: frozenset[str] = frozenset()) -> frozenset[str]:
    """Say which layers have no weight left.

    Args:
        masks: name -> bool mask.
        told: layers that were named before; they are not named again while they stay empty.
    Returns:
        name of each empty layer.
    """
    counts = mask_algebra.count_active(masks)
    empty = [name for name, count in counts.items() if not count and masks[name].numel()]
    if new := [name for name in empty if name not in told]:
        _log.warning(
            "no weight is left in %s; the network is cut there. Lower the sparsity (synflow and "
            "random masks by erk empty small layers last).",
            ", ".join(new),
        )
    return frozenset(empty)
