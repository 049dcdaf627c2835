"""Sparse convolutions planned: which weight multiplies which input, as offsets into packed planes.

A plan depends on the mask and the geometry alone. The values are gathered from the dense weight
when it runs, so a plan serves as long as its mask does.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .packed import Layout

INT32 = 2**31 - 1
FIRST_CACHE = 24 * 1024
"""Bytes of input that are to stay in the first cache, of 32 KiB or more, beside what is written."""
WORTH = 14.0
"""Entries that a group must bring to each output to pay for storing its sums; best of 4 to 64."""


@dataclass(frozen=True)
class Geometry:
    """A convolution without groups and dilation.

    Attributes:
        channels: of the input.
        outputs: channels of the output.
        kernel: its rows and columns.
        stride: in both directions.
        padding: zeros above and below, left and right.
        height: rows of the input.
        width: columns of the input.
    """

    channels: int
    outputs: int
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.stride < 1 or min(self.padding) < 0 or min(self.out_height, self.out_width) < 1:
            raise ValueError(
                f"no convolution with stride {self.stride}, padding {self.padding} and kernel "
                f"{self.kernel} fits {self.height}x{self.width} images. Use larger images, more "
                "padding or a stride of at least 1."
            )

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return (self.height + 2 * self.padding[0] - self.kernel[0]) // self.stride + 1

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return (self.width + 2 * self.padding[1] - self.kernel[1]) // self.stride + 1

    @property
    def halo(self) -> int:
        """Zeros that the forward pass reads around the input."""
        (ph, pw), (kh, kw), s = self.padding, self.kernel, self.stride
        below = (self.out_height - 1) * s + kh - ph - self.height
        right = (self.out_width - 1) * s + kw - pw - self.width
        return max(ph, pw, below, right)

    @property
    def grad_halo(self) -> int:
        """Zeros that the gradient of the input reads around that of the output."""
        heights = (self.height, self.out_height, self.kernel[0], self.padding[0])
        widths = (self.width, self.out_width, self.kernel[1], self.padding[1])
        return max(0, *(_reach(*size, self.stride) for size in (heights, widths)))


class Entries(NamedTuple):
    """The kept weights in the kernel's order.

    Attributes:
        order: int32, the output channels, those with the most entries first.
        starts: int32; border of each (group, place in `order`, kernel row), and the end.
        offsets: int32, floats from the input plane's corner.
        where: int64, the entry's place in the flat weight.
        groups: of input channels.
        taps: kernel rows.
        padding: row of the input that tap 0 of output row 0 reads, negated.
    """

    order: Tensor
    starts: Tensor
    offsets: Tensor
    where: Tensor
    groups: int
    taps: int
    padding: int


class Links(NamedTuple):
    """Kept weights before they are ordered, one array entry each, int64.

    Attributes:
        output: channel that is written.
        input: channel that is read.
        dy: row that is read, less the output's row times the stride.
        dx: likewise the column.
        where: place in the flat weight.
    """

    output: np.ndarray
    input: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    where: np.ndarray


class Work(NamedTuple):
    """What a kernel is called with, but for the addresses (csrc/levels/level.h, csrc/api.h).

    Attributes:
        entries: the kept weights.
        conv: fields of `Conv` from `outputs` to `band`.
        sizes: fields of `ConvCall` from `in_block` on.
        corner: floats from the output's first entry to the first that is written.
    """

    entries: Entries
    conv: tuple[int, ...]
    sizes: tuple[int, ...]
    corner: int


@dataclass(frozen=True, eq=False)
class ConvPlan:
    """A sparse convolution of fixed mask, image size and layout. Made by `plan`.

    Attributes:
        geometry: of the convolution.
        source: layout of the input.
        target: layout of the output.
        links: what each kept weight reads and writes.
        work: the kept weights in order; values and their gradients are in this order, too.
    """

    geometry: Geometry
    source: Layout
    target: Layout
    links: Links
    work: Work

    @property
    def entries(self) -> Entries:
        """The kept weights in order."""
        return self.work.entries

    @property
    def kept(self) -> int:
        """Number of kept weights."""
        return self.entries.where.numel()

    @property
    def mask_shape(self) -> torch.Size:
        """Outputs, channels, rows and columns of the kernel."""
        return torch.Size((self.geometry.outputs, self.geometry.channels, *self.geometry.kernel))

    def laid(self, plane: int, row: int, out_plane: int, out_row: int) -> Work:
        """The work where channels and rows lie otherwise than the layouts say, in floats apart.

        Only blocks of more than one image may lie otherwise.
        """
        work, g, block = self.work, self.geometry, self.source.block
        if (plane, row, out_plane, out_row) == (
            self.source.plane,
            self.source.pitch,
            self.target.plane,
            self.target.pitch,
        ):
            return work
        channel, ky, kx = np.unravel_index(self.entries.where.numpy(), self.mask_shape)[1:]
        y, x = (k - pad + self.source.halo for k, pad in zip((ky, kx), g.padding, strict=True))
        offsets = torch.from_numpy((channel * plane + y * row + x * block).astype(np.int32))
        steps = (g.stride * row, g.stride * block, out_plane, out_row, block)
        conv = (*work.conv[:9], *steps, work.conv[-1])
        return Work(self.entries._replace(offsets=offsets), conv, work.sizes, 0)

    @cached_property
    def phases(self) -> list[tuple[Tensor, Work]]:
        """The input's gradient: a convolution into every `stride`-th row and column, for each.

        With each, the place of its entries among the plan's, int64.
        """
        g = self.geometry
        place = torch.zeros(self.mask_shape.numel(), dtype=torch.int64)
        place[self.entries.where] = torch.arange(self.kept)
        works = [
            _backward_work(self, row, column)
            for row in range(min(g.stride, g.height))
            for column in range(min(g.stride, g.width))
        ]
        return [(place[work.entries.where], work) for work in works]


def plan(
    mask: Tensor,
    geometry: Geometry,
    *,
    block: int = 16,
    source_halo: int | None = None,
    target_halo: int | None = None,
) -> ConvPlan:
    """Plan a convolution.

    Args:
        mask: bool [outputs, channels, rows, columns], True where kept.
        block: images side by side, 1 or a multiple of 16.
        source_halo: zeros around the input; by default what the forward pass needs.
        target_halo: zeros around the output; by default what the input's gradient needs.

    Raises:
        ValueError: a mask of another shape, too small a halo, or a layer too large for the offsets.
    """
    g, shape = geometry, (geometry.outputs, geometry.channels, *geometry.kernel)
    if mask.dtype is not torch.bool or mask.shape != shape:
        raise ValueError(
            f"mask must be bool of shape {shape}, got {mask.dtype} of {tuple(mask.shape)}."
        )
    source_halo = g.halo if source_halo is None else source_halo
    target_halo = g.grad_halo if target_halo is None else target_halo
    if source_halo < g.halo:
        raise ValueError(
            f"source_halo must be at least {g.halo} for this padding, got {source_halo}."
        )
    source = Layout(g.channels, g.height, g.width, source_halo, block)
    target = Layout(g.outputs, g.out_height, g.out_width, target_halo, block)
    largest = max(layout.channels * layout.plane for layout in (source, target))
    if max(largest * g.stride**2, mask.numel()) > INT32:
        raise ValueError(
            f"a block of {block} images of {source.channels}x{source.height}x{source.width} is "
            "too large for 32-bit offsets. Use a smaller block, or the dense convolution."
        )
    links = forward_links(mask.cpu().contiguous(), g)
    return ConvPlan(g, source, target, links, _forward_work(g, links, source, target))


def plan_linear(mask: Tensor, *, block: int = 16) -> ConvPlan:
    """Plan a linear layer as a 1x1 convolution of 1x1 images.

    Args:
        mask: bool [outputs, inputs], True where kept.
        block: images side by side, 1 or a multiple of 16.

    Raises:
        ValueError: a mask of another number of dimensions, or what `plan` refuses.
    """
    if mask.dim() != 2:
        raise ValueError(f"mask must be bool [outputs, inputs], got {tuple(mask.shape)}.")
    geometry = Geometry(mask.shape[1], mask.shape[0], (1, 1), 1, (0, 0), 1, 1)
    return plan(mask[:, :, None, None], geometry, block=block)


def _forward_work(g: Geometry, links: Links, source: Layout, target: Layout) -> Work:
    band, per_group = tiling(g.out_width, source, links, g.outputs, g.stride)
    rows = (-g.padding[0], g.kernel[0] - 1 - g.padding[0])
    split = g.stride if source.block == 1 else 1
    entries = ordered(links, rows, g.outputs, source, per_group, split)
    height, width = source.height + 2 * source.halo, source.width + 2 * source.halo
    plane_rows, plane_columns = -(-height // split), -(-width // split)
    steps = (g.stride * source.pitch, g.stride * source.block)
    if source.block == 1:  # split into phases, in which neighbours stay neighbours
        steps = (plane_columns, 1)
    conv = (target.channels, entries.groups, entries.taps, target.height, target.width)
    conv += (target.block, entries.padding, g.stride, g.height, *steps)
    conv += (target.plane, target.pitch, target.block, band)
    sizes = (source.channels * source.plane, target.channels * target.plane, source.channels)
    sizes += (split, plane_rows * plane_columns, height, width)
    return Work(entries, conv, sizes, target.corner)


def _backward_work(conv: ConvPlan, row: int, column: int) -> Work:
    g, source, target = conv.geometry, conv.target, conv.source  # the gradient runs backwards
    links, s = backward_links(conv.links, g, row, column), g.stride
    shifts = [row - ky + g.padding[0] for ky in range(g.kernel[0])]
    whole = [shift // s for shift in shifts if shift % s == 0] or [0]
    height, width = len(range(row, g.height, s)), len(range(column, g.width, s))
    band, per_group = tiling(width, source, links, g.channels, 1)
    entries = ordered(links, (min(whole), max(whole)), g.channels, source, per_group, 1)
    fields = (g.channels, entries.groups, entries.taps, height, width, target.block)
    fields += (entries.padding, 1, source.height, source.pitch, source.block)
    fields += (target.plane, s * target.pitch, s * target.block, band)
    sizes = (source.channels * source.plane, target.channels * target.plane, source.channels)
    corner = target.corner + row * target.pitch + column * target.block
    return Work(entries, fields, (*sizes, 1, 0, 0, 0), corner)


def forward_links(mask: Tensor, geometry: Geometry) -> Links:
    """What each kept weight of [outputs, channels, rows, columns] reads and writes."""
    output, channel, ky, kx = np.nonzero(mask.numpy())
    where = np.flatnonzero(mask.numpy())
    return Links(output, channel, ky - geometry.padding[0], kx - geometry.padding[1], where)


def backward_links(forward: Links, geometry: Geometry, row: int, column: int) -> Links:
    """The transposed links into every `stride`-th row and column of the input, from these on.

    Input row `stride * y + row` is read by output row `y + dy` where the difference is whole.
    """
    s = geometry.stride
    up, left = row - forward.dy, column - forward.dx
    chosen = (up % s == 0) & (left % s == 0)
    found = (forward.input, forward.output, up // s, left // s, forward.where)
    return Links(*(array[chosen] for array in found))


def ordered(
    links: Links, rows: tuple[int, int], outputs: int, source: Layout, per_group: int, split: int
) -> Entries:
    """Links by group, output (those with the most first), row and input channel.

    Args:
        rows: the lowest and highest `dy` that links can have.
        outputs: number of output channels.
        source: layout that is read.
        per_group: input channels of a group.
        split: where one image is a block and above 1, the planes are split in so many phases.
    """
    lowest, highest = rows
    taps, groups = max(1, highest - lowest + 1), -(-source.channels // per_group)
    most_first = np.argsort(-np.bincount(links.output, minlength=outputs), kind="stable")
    place = np.empty(outputs, dtype=np.int64)
    place[most_first] = np.arange(outputs)
    run = (links.input // per_group * outputs + place[links.output]) * taps + links.dy - lowest
    order = np.lexsort((links.dx, links.input, run))
    starts = np.zeros(groups * outputs * taps + 1, dtype=np.int64)
    np.cumsum(np.bincount(run, minlength=groups * outputs * taps), out=starts[1:])
    offsets = _offsets(links, source, split)[order]
    return Entries(
        torch.from_numpy(most_first.astype(np.int32)),
        torch.from_numpy(starts.astype(np.int32)),
        torch.from_numpy(offsets.astype(np.int32)),
        torch.from_numpy(links.where[order]),
        groups,
        taps,
        -lowest,
    )


def tiling(width: int, source: Layout, links: Links, outputs: int, stride: int) -> tuple[int, int]:
    """Rows of outputs computed together, and input channels whose part of a tile fits the cache.

    Args:
        width: columns of the output.
        links: all of the layer's.
        outputs: number of output channels.
    """
    if source.block == 1 or links.dy.size == 0:
        return 1, source.channels
    reach = [int(shift.max() - shift.min()) + 1 for shift in (links.dy, links.dx)]
    each = links.dy.size / (outputs * source.channels)  # entries of an output and input channel
    # One row skips the taps that see padding; two, on narrow maps, use a weight more often.
    band = 2 if width * source.block <= 64 and each > 0.04 * reach[0] * reach[1] else 1
    columns = min(width, max(1, 256 // source.block))
    patch = ((band - 1) * stride + reach[0]) * ((columns - 1) * stride + reach[1])
    fits = max(1, FIRST_CACHE // (4 * patch * source.block))
    groups = max(1, source.channels // max(fits, int(WORTH / each)))
    return band, -(-source.channels // groups)


def _offsets(links: Links, source: Layout, split: int) -> np.ndarray:
    y, x = links.dy + source.halo, links.dx + source.halo
    if split > 1:
        rows = -(-(source.height + 2 * source.halo) // split)
        columns = -(-(source.width + 2 * source.halo) // split)
        plane = (links.input * split + y % split) * split + x % split
        return plane * (rows * columns) + y // split * columns + x // split
    return links.input * source.plane + y * source.pitch + x * source.block


def _reach(size: int, out_size: int, kernel: int, padding: int, stride: int) -> int:
    """How far beyond its own rows the output's gradient is read."""
    above, below = 0, 0
    for phase in range(min(stride, size)):
        shifts = [d // stride for k in range(kernel) if (d := phase + padding - k) % stride == 0]
        last = (size - 1 - phase) // stride
        above = max(above, *(-d for d in shifts), 0)
        below = max(below, *(last + d - (out_size - 1) for d in shifts), 0)
    return max(above, below)
