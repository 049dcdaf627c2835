"""One image file to the square that the network sees: what is cut out, and in how few pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from ..images import DEEP, FORMATS, MAX_PIXELS, UNREADABLE, unreadable

_TRIES = 10
_RESIZED = 256 / 224  # side that an image is resized to for each pixel of the central crop


class Box(NamedTuple):
    """A part of an image, in pixels of the whole one."""

    left: float
    top: float
    width: float
    height: float


Cut: TypeAlias = Callable[[int, int], Box]
"""(width, height) of an image -> the part of it that is taken."""


def random_box(
    width: int,
    height: int,
    generator: np.random.Generator,
    *,
    area: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Box:
    """A random part of random area and shape, in whole pixels.

    Args:
        width: of the image.
        height: of the image.
        generator: four numbers of it are used for each of at most ten tries.
        area: bounds of the part's share of the image, drawn evenly.
        ratio: bounds of width / height, drawn evenly in its logarithm.
    Returns:
        the first part drawn that lies within the image; else the largest central one whose shape is
        within `ratio`.
    Source: Szegedy et al. 2015, arXiv 1409.4842, section 6, in torchvision's form
        (RandomResizedCrop).
    """
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        share, shape, x, y = generator.random(4)
        pixels = width * height * (area[0] + share * (area[1] - area[0]))
        aspect = math.exp(low + shape * (high - low))
        w, h = round(math.sqrt(pixels * aspect)), round(math.sqrt(pixels / aspect))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(x * (width - w + 1)), int(y * (height - h + 1)), w, h)
    w = min(width, round(height * ratio[1]))
    h = min(height, round(width / ratio[0]))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def central_box(width: int, height: int) -> Box:
    """The central square that evaluation takes: 224 of an image whose shorter side is made 256.

    Source: the usual evaluation of ImageNet. Deviates: cut and resized in one step, so that nothing
        is rounded to whole pixels in between.
    """
    side = min(width, height) / _RESIZED
    return Box((width - side) / 2, (height - side) / 2, side, side)


def decode_cut(
    source: Path | IO[bytes], name: str, cut: Cut, *, side: int, reduced: bool = True
) -> np.ndarray:
    """A part of an image, resized to a square.

    A JPEG holds its image in blocks of 8 x 8 frequencies; the lowest 4 x 4, 2 x 2 or 1 of each make
    the image at 1/2, 1/4 or 1/8 of its size, in a fraction of the time and memory. With `reduced`
    the smallest of these is decoded that has `side` pixels along both sides of the part.

    Args:
        source: path or open file.
        name: what messages call it.
        cut: chooses the part by the size that the file's header says.
        side: pixels of the square.
        reduced: see above; other formats are always decoded whole.
    Returns:
        uint8 [side, side, 3], bilinear with antialiasing.
    Raises:
        DataError: it cannot be decoded, has more than 2^26 pixels, or more than 8 bits a channel.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} pixels are more than 2^26")
            if image.mode.startswith(DEEP):
                raise ValueError(f"more than 8 bits a channel, {image.mode}")
            box = cut(width, height)
            if reduced:
                least = math.ceil(width * side / box.width), math.ceil(height * side / box.height)
                image.draft(None, least)
            x, y = image.width / width, image.height / height
            pixels = image.convert("RGB")
    except UNREADABLE as error:
        raise unreadable(name, error) from error
    part = (box.left * x, box.top * y, (box.left + box.width) * x, (box.top + box.height) * y)
    square = pixels.resize((side, side), Image.Resampling.BILINEAR, box=_within(part, pixels.size))
    return np.asarray(square, dtype=np.uint8)


def _within(
    part: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Pillow refuses a part that reaches beyond by a rounding error."""
    left, top, right, bottom = part
    return max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
