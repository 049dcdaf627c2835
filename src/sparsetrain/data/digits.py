"""The embedded set: 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

from __future__ import annotations

import numpy as np
import torch

from .augment import Augment
from .dataset import Dataset, channel_statistics
from .splits import split

_TEST = 360
_SEED = 1797  # of the one fixed split; no other seed of a run changes it


def load() -> Dataset:
    """Read the digits; needs no download.

    Returns:
        the data set, images [N, 1, 8, 8], grey levels 0..16 stretched to 0..255; 1,437 to train
        and 360 to test, stratified with a fixed seed of its own.
    """
    from sklearn.datasets import load_digits  # here, because it takes a second to import

    pixels, target = load_digits(return_X_y=True)
    levels = np.rint(np.asarray(pixels) * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(levels).view(-1, 1, 8, 8)
    labels = torch.from_numpy(np.asarray(target, dtype=np.int64))
    train, test = split(labels, _TEST / len(labels), seed=_SEED)
    mean, std = channel_statistics(images[train])
    return Dataset(
        name="digits",
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        classes=tuple("0123456789"),
        mean=mean,
        std=std,
        augment=Augment(crop_padding=1),
    )
