"""The steps of a packed program, as values: what each reads, writes and demands of its layouts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from .conv_plan import ConvPlan
from .packed import Layout


@dataclass(frozen=True, eq=False)
class Conv:
    """A sparse convolution, then plus bias, plus residual, then ReLU. Linear: 1x1 on 1x1 images.

    Attributes:
        source: buffer that is read.
        target: buffer that is written; not the source.
        plan: of the mask, between the layouts of these buffers.
        values: float32 [kept], as `sparse_conv.gather(plan, weight)` gives them.
        bias: float32 [outputs], or None.
        residual: buffer of the target's layout, or None; may be the target.
        relu: whether negative results become zero.
    """

    source: int
    target: int
    plan: ConvPlan
    values: Tensor
    bias: Tensor | None = None
    residual: int | None = None
    relu: bool = False

    @property
    def reads(self) -> tuple[int, ...]:
        """Buffers that are read."""
        return (self.source,) if self.residual is None else (self.source, self.residual)

    def check(self, buffers: Sequence[Layout]) -> None:
        """Refuse layouts that the step does not fit.

        Args:
            buffers: of the program, by index.

        Raises:
            ValueError: what does not fit, and what it should be.
        """
        plan = self.plan
        for what, place, planned in (
            ("source", self.source, plan.source),
            ("target", self.target, plan.target),
        ):
            if buffers[place] != planned:
                raise ValueError(
                    f"{what} is buffer {place} of {buffers[place]}, the plan was made for "
                    f"{planned}. Plan the convolution for the buffers' layouts."
                )
        if self.source == self.target:
            raise ValueError("a convolution cannot write the buffer that it reads. Add a buffer.")
        if self.residual is not None and buffers[self.residual] != plan.target:
            raise ValueError(
                f"residual is buffer {self.residual} of {buffers[self.residual]}, the target has "
                f"{plan.target}. Give both one layout."
            )
        _check_vector("values", self.values, plan.kept)
        _check_vector("bias", self.bias, plan.geometry.outputs)


@dataclass(frozen=True, eq=False)
class Pool:
    """The maximum or the mean of windows.

    Attributes:
        source: buffer that is read.
        target: buffer that is written; not the source.
        kind: "max", or "mean"; the mean of the whole image is a window of its size.
        kernel: rows and columns of a window.
        stride: from one window to the next.
        padding: rows above and below, columns left and right, at most half the window; the
            maximum ignores them.
        count_padding: whether the mean divides by the padding's places, too.
    """

    source: int
    target: int
    kind: Literal["max", "mean"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)
    count_padding: bool = True

    @property
    def reads(self) -> tuple[int, ...]:
        """Buffers that are read."""
        return (self.source,)

    def check(self, buffers: Sequence[Layout]) -> None:
        """Refuse layouts that the step does not fit.

        Args:
            buffers: of the program, by index.

        Raises:
            ValueError: what does not fit, and what it should be.
        """
        source, target = buffers[self.source], buffers[self.target]
        sizes = zip((source.height, source.width), *self._windows, strict=True)
        wanted = tuple((n + 2 * pad - k) // s + 1 for n, k, s, pad in sizes)
        fits = all(0 <= 2 * pad <= k and s > 0 for k, s, pad in zip(*self._windows, strict=True))
        found = (target.height, target.width)
        if not fits or found != wanted or target.channels != source.channels:
            raise ValueError(
                f"pooling {self.kernel} by {self.stride} with padding {self.padding} of {source} "
                f"does not give {target}. Padding is at most half the window."
            )
        _check_moved("pooling", self.source, self.target)

    @property
    def _windows(self) -> tuple[tuple[int, int], ...]:
        return self.kernel, self.stride, self.padding


@dataclass(frozen=True, eq=False)
class Add:
    """The sum of two buffers, then ReLU.

    Attributes:
        source: buffer that is read.
        target: buffer of the same size that is written; may be one that is read.
        other: buffer of the same size.
        relu: whether negative results become zero.
    """

    source: int
    target: int
    other: int
    relu: bool = False

    @property
    def reads(self) -> tuple[int, ...]:
        """Buffers that are read."""
        return (self.source, self.other)

    def check(self, buffers: Sequence[Layout]) -> None:
        """Refuse layouts that the step does not fit.

        Args:
            buffers: of the program, by index.

        Raises:
            ValueError: what does not fit, and what it should be.
        """
        _check_alike("a sum", buffers, (self.source, self.other, self.target))


@dataclass(frozen=True, eq=False)
class Affine:
    """source * scale + shift in each channel, then ReLU; with neither and without ReLU a copy.

    Attributes:
        source: buffer that is read.
        target: buffer of the same size that is written; may be the source.
        scale: float32 [channels], or None for ones.
        shift: float32 [channels], or None for zeros.
        relu: whether negative results become zero.
    """

    source: int
    target: int
    scale: Tensor | None = None
    shift: Tensor | None = None
    relu: bool = False

    @property
    def reads(self) -> tuple[int, ...]:
        """Buffers that are read."""
        return (self.source,)

    def check(self, buffers: Sequence[Layout]) -> None:
        """Refuse layouts that the step does not fit.

        Args:
            buffers: of the program, by index.

        Raises:
            ValueError: what does not fit, and what it should be.
        """
        _check_alike("an affine step", buffers, (self.source, self.target))
        for what, vector in (("scale", self.scale), ("shift", self.shift)):
            _check_vector(what, vector, buffers[self.source].channels)


@dataclass(frozen=True, eq=False)
class Flatten:
    """[channels, height, width] to [channels * height * width, 1, 1], in PyTorch's order.

    Attributes:
        source: buffer that is read.
        target: buffer that is written; not the source.
    """

    source: int
    target: int

    @property
    def reads(self) -> tuple[int, ...]:
        """Buffers that are read."""
        return (self.source,)

    def check(self, buffers: Sequence[Layout]) -> None:
        """Refuse layouts that the step does not fit.

        Args:
            buffers: of the program, by index.

        Raises:
            ValueError: what does not fit, and what it should be.
        """
        source, target = buffers[self.source], buffers[self.target]
        count = source.channels * source.height * source.width
        if (target.channels, target.height, target.width) != (count, 1, 1):
            raise ValueError(f"{source} flattens to {count} channels of 1x1, not to {target}.")
        _check_moved("flattening", self.source, self.target)


Step: TypeAlias = Conv | Pool | Add | Affine | Flatten


def _check_moved(what: str, source: int, target: int) -> None:
    if source == target:
        raise ValueError(f"{what} cannot write the buffer that it reads. Add a buffer.")


def _check_alike(what: str, buffers: Sequence[Layout], places: Sequence[int]) -> None:
    sizes = {(b.channels, b.height, b.width) for b in (buffers[place] for place in places)}
    if len(sizes) > 1:
        raise ValueError(f"{what} needs buffers of one size, got {sorted(sizes)}.")


def _check_vector(what: str, vector: Tensor | None, count: int) -> None:
    if vector is None:
        return
    good = vector.dtype is torch.float32 and vector.device.type == "cpu"
    if not good or vector.shape != (count,):
        raise ValueError(
            f"{what} must be float32 of shape ({count},) on the CPU, got {vector.dtype} of "
            f"{tuple(vector.shape)} on {vector.device}."
        )
