"""Decode image files with Pillow into uint8 arrays."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Literal

import numpy as np
from PIL import Image

from .dataset import DataError

Mode = Literal["L", "RGB"]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
)
# Not by content alone: Pillow would hand an EPS file named .png to Ghostscript, which runs it.
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "PPM", "TIFF")
_GREY = frozenset({"1", "L", "LA"})
DEEP = ("I", "F")  # 16 and 32 bits a pixel: Pillow would clip, not scale, them
MAX_PIXELS = 1 << 26
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
UNREADABLE = (OSError, SyntaxError, ValueError, *_BOMBS)


def peek(path: Path) -> tuple[Mode, tuple[int, int]]:
    """Mode and size of an image file, from its header.

    Args:
        path: the file.
    Returns:
        ("L" for grey, else "RGB"; (height, width)).
    Raises:
        DataError: not an image, or one of more than 8 bits a channel.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            mode, (width, height) = image.mode, image.size
    except UNREADABLE as error:
        raise unreadable(str(path), error) from error
    if mode.startswith(DEEP):
        raise DataError(f"{path} has more than 8 bits a channel ({mode}); convert it to 8 bits.")
    return ("L" if mode in _GREY else "RGB"), (height, width)


def decode(
    source: Path | IO[bytes], name: str, mode: Mode, size: tuple[int, int] | None
) -> np.ndarray:
    """Pixels of an image.

    Args:
        source: path or open file.
        name: what messages call it.
        mode: grey or colour; the image is converted.
        size: (height, width) it is resized to if it differs, bilinear with antialiasing, without
            regard to its proportions; None keeps its own.
    Returns:
        uint8 [H, W, C].
    Raises:
        DataError: it cannot be decoded, or has more than 2^26 pixels.
    """
    try:
        with Image.open(source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are more than 2^26")
            pixels = image.convert(mode)
    except UNREADABLE as error:
        raise unreadable(name, error) from error
    if size is not None and pixels.size != (size[1], size[0]):
        pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.asarray(pixels, dtype=np.uint8).reshape(pixels.height, pixels.width, -1)


def unreadable(name: str, error: BaseException) -> DataError:
    """The error for a file that is no readable image.

    Args:
        name: the file.
        error: what Pillow said.
    Returns:
        the error, to be raised.
    """
    return DataError(f"{name} cannot be read as an image ({error}). Replace or remove it.")
