"""A data set that is learned in an epoch, and settings that train on it in a tenth of a second."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sparsetrain.data import Augment, Dataset
from sparsetrain.training.progress import Reporter
from sparsetrain.training.run import train
from sparsetrain.training.settings import build

# Weak regularising ends at the cap; a wide window and few epochs keep every phase short.
TINY: dict[str, Any] = {
    "dataset": "digits",
    "model": "mlp",
    "epochs": 4,
    "batch_size": 16,
    "lr": 0.05,
    "validation": 0.25,
    "precision": "fp32",
    "device": "cpu",
}
ART = {"method": "art", "dense_epochs": 1, "max_regularize_epochs": 2}


def tiny_dataset(*, classes: int = 4, size: int = 8, channels: int = 1, train: int = 64) -> Dataset:
    """Classes are bright stripes at different heights, under noise."""

    def images(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % classes
        pixels = torch.randint(0, 90, (count, channels, size, size), generator=generator)
        for image, label in zip(pixels, labels, strict=True):
            image[:, int(label) * size // classes] += 150
        return pixels.to(torch.uint8), labels

    train_images, train_labels = images(train, 0)
    test_images, test_labels = images(32, 1)
    return Dataset(
        name="tiny",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=tuple("abcdefghij"[:classes]) if classes <= 10 else tuple(map(str, range(classes))),
        mean=(0.2,) * channels,
        std=(0.2,) * channels,
        augment=Augment(crop_padding=1, flip=True),
    )


def fake_load(*_: Any, **__: Any) -> Dataset:
    """Stands in for `sparsetrain.data.load`."""
    return tiny_dataset()


def run(out: Path, **settings: Any) -> dict[str, Any]:
    """Train with `TINY` and `settings` into `out`; returns the record."""
    return run_telling(out, **settings)[0]


def run_telling(out: Path, **settings: Any) -> tuple[dict[str, Any], str]:
    """As `run`, with what was said."""
    said = io.StringIO()
    config = build(TINY | settings)
    config = replace(config, run=replace(config.run, out=out))
    record = train(config, reporter=Reporter(said), command="test")
    return record, said.getvalue()
