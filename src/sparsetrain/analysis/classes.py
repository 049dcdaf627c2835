"""Accuracy class by class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def class_counts(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Right answers and images of each class.

    Args:
        logits: [B, classes].
        labels: [B], class indices.
        classes: how many there are.
    Returns:
        [2, classes] int64 on the device of `labels`: right answers, images. Sums over batches are
        the counts of all of them.
    """
    right = (logits.argmax(dim=1) == labels).long()
    counts = torch.zeros(2, classes, dtype=torch.int64, device=labels.device)
    # Not bincount, which makes the host wait for a GPU.
    return counts.index_add_(1, labels, torch.stack([right, torch.ones_like(right)]))


def class_accuracy(counts: np.ndarray) -> np.ndarray:
    """Right answers by images.

    Args:
        counts: [..., 2, classes], as of `class_counts`.
    Returns:
        [..., classes] fractions; NaN where a class has no image.
    """
    right, seen = counts[..., 0, :].astype(float), counts[..., 1, :].astype(float)
    return np.divide(right, seen, out=np.full(right.shape, np.nan), where=seen > 0)
