"""The packed layout of activations: [block of images][channel][row][column][image].

The images of a block are neighbours, so one vector holds the same place of 16 images and every
weight of a convolution is one multiply-add on it. Around each plane lies a halo of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from . import native

SLACK = 16
"""Floats after the last entry that kernels may read, never use."""


@dataclass(frozen=True)
class Layout:
    """How the activations of one place of a network lie.

    Attributes:
        channels: of each image.
        height: rows, without the halo.
        width: columns, without the halo.
        halo: zeros on each of the four sides.
        block: images side by side: 1 or a multiple of 16.
    """

    channels: int
    height: int
    width: int
    halo: int
    block: int

    def __post_init__(self) -> None:
        if self.block != 1 and (self.block < 16 or self.block % 16):
            raise ValueError(
                f"block must be 1 or a multiple of 16, got {self.block}. Take 16 for batches of 8 "
                "images and more, 1 below."
            )
        if min(self.channels, self.height, self.width) < 1 or self.halo < 0:
            raise ValueError(
                f"a layout needs at least one channel, row and column and no negative halo, got "
                f"{self}. Look at the image size and the padding."
            )

    @property
    def pitch(self) -> int:
        """Floats from one row to the next."""
        return (self.width + 2 * self.halo) * self.block

    @property
    def plane(self) -> int:
        """Floats from one channel to the next."""
        return (self.height + 2 * self.halo) * self.pitch

    @property
    def corner(self) -> int:
        """Floats before the first entry inside the halo."""
        return self.halo * (self.pitch + self.block)

    def shape(self, batch: int) -> tuple[int, int, int, int, int]:
        """The packed tensor's shape for so many images; the last block may be part empty."""
        blocks = -(-batch // self.block)
        rows, columns = self.height + 2 * self.halo, self.width + 2 * self.halo
        return blocks, self.channels, rows, columns, self.block

    def empty(self, batch: int) -> Tensor:
        """Room for so many images, with slack; halo and images are not yet written."""
        shape = self.shape(batch)
        count = shape[0] * self.channels * self.plane
        return torch.empty(count + SLACK)[:count].view(shape)

    def framed(self, batch: int) -> Tensor:
        """The same with its halo zero: for kernels that write none."""
        packed, halo = self.empty(batch), self.halo
        for rows in (packed, packed.transpose(2, 3)) if halo else ():
            rows[:, :, :halo].zero_()
            rows[:, :, -halo:].zero_()
        return packed

    def check(self, packed: Tensor, what: str) -> None:
        """Refuse a tensor that is not laid out like this.

        Raises:
            ValueError: another shape, dtype or device, gaps, or no slack behind.
        """
        shape = self.shape(packed.shape[0] * self.block if packed.dim() else 1)
        good = packed.dtype is torch.float32 and packed.device.type == "cpu"
        if not good or packed.shape != shape or not packed.is_contiguous():
            raise ValueError(
                f"{what} must be a contiguous float32 CPU tensor of shape (blocks, "
                f"{', '.join(map(str, shape[1:]))}), got {packed.dtype} of {tuple(packed.shape)} "
                f"on {packed.device}. Make it with pack()."
            )
        behind = packed.untyped_storage().nbytes() // 4 - packed.storage_offset() - packed.numel()
        if self.block == 1 and behind < SLACK:
            raise ValueError(
                f"{what} needs {SLACK} floats of room behind its entries, has {behind}. Make it "
                "with pack() or Layout.empty()."
            )


def pack(images: Tensor, layout: Layout, out: Tensor | None = None) -> Tensor:
    """Lay a batch out in blocks; halo and missing images of the last block are zero.

    Args:
        images: float32 [batch, channels, height, width] on the CPU, of any strides.
        out: what `layout.empty(batch)` gave, to be written instead of a new one.

    Raises:
        ValueError: images of another shape or dtype.
    """
    wanted = (layout.channels, layout.height, layout.width)
    if images.dim() != 4 or images.shape[1:] != wanted or images.dtype is not torch.float32:
        raise ValueError(
            f"images must be float32 of shape (batch, {', '.join(map(str, wanted))}), got "
            f"{images.dtype} of {tuple(images.shape)}. Make a layout of that size or cast them."
        )
    batch = images.shape[0]
    packed = layout.empty(batch) if out is None else out
    layout.check(packed, "out")
    if packed.shape != layout.shape(batch):
        raise ValueError(f"out must have shape {layout.shape(batch)}, got {tuple(packed.shape)}.")
    if native.takes([images, packed], torch.float32):
        native.run("st_pack", _fields(images, packed, layout))
        return packed
    blocks, block, halo = packed.shape[0], layout.block, layout.halo
    padded = F.pad(images, (halo, halo, halo, halo, 0, 0, 0, blocks * block - batch))
    lanes_last = padded.view(blocks, block, *padded.shape[1:]).movedim(1, -1)
    return packed.copy_(lanes_last)


def unpack(packed: Tensor, layout: Layout, batch: int) -> Tensor:
    """The batch back as [batch, channels, height, width], contiguous.

    Raises:
        ValueError: a tensor of another layout, or with room for fewer images.
    """
    layout.check(packed, "packed")
    if not 0 <= batch <= packed.shape[0] * layout.block:
        raise ValueError(
            f"batch must be at most the {packed.shape[0] * layout.block} images there, got {batch}."
        )
    images = torch.empty(batch, layout.channels, layout.height, layout.width)
    if native.takes([packed], torch.float32):
        native.run("st_unpack", _fields(images, packed, layout))
        return images
    return images.copy_(inside(packed, layout)[:batch])


def inside(packed: Tensor, layout: Layout) -> Tensor:
    """All images of all blocks as [blocks * block, channels, height, width], a copy."""
    halo = layout.halo
    rows, columns = slice(halo, halo + layout.height), slice(halo, halo + layout.width)
    return packed[:, :, rows, columns].movedim(-1, 1).flatten(0, 1)


def _fields(images: Tensor, packed: Tensor, layout: Layout) -> list[int]:
    """`Packed` of csrc/api.h."""
    shape = [0, layout.block, layout.height, layout.width, layout.halo]
    addresses = [packed.data_ptr(), images.data_ptr()]
    return [images.shape[0], layout.channels, *addresses, *shape, *images.stride()]
