"""Folders of small JPEGs by class, laid out like ImageNet: a class is a colour under noise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image


def picture(label: int, classes: int, *, size: tuple[int, int], seed: int) -> Image.Image:
    """(width, height) of size; the hue tells the class, everything else is noise."""
    generator = np.random.default_rng([seed, label])
    hue = np.full(size[::-1], 255 * label // classes)
    noise = generator.integers(120, 256, (2, *size[::-1]))
    pixels = np.stack([hue, noise[0], noise[1]], axis=2).astype(np.uint8)
    return Image.fromarray(pixels, "HSV").convert("RGB")


def pictures(classes: int, each: int, *, seed: int = 0) -> Iterator[tuple[int, int, Image.Image]]:
    """(label, number, picture) of sizes that differ, wide and high ones."""
    generator = np.random.default_rng(seed)
    for label in range(classes):
        for number in range(each):
            width, height = (int(side) for side in generator.integers(40, 100, 2))
            yield label, number, picture(label, classes, size=(width, height), seed=number)


def write_folder(root: Path, *, classes: int = 3, train: int = 8, val: int = 4) -> Path:
    """train/c0/…, val/c0/…; returns the root."""
    for part, each, seed in (("train", train, 0), ("val", val, 1)):
        for label, number, image in pictures(classes, each, seed=seed):
            folder = root / part / f"c{label}"
            folder.mkdir(parents=True, exist_ok=True)
            image.save(folder / f"{part}_{number:04d}.JPEG", quality=92)
    return root
