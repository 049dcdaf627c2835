"""A program as the structures of csrc/api.h, and its runs through the C++ executor."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import native, program_arena, program_memory, program_waves
from .packed import Layout
from .program_arena import Arena, Lie
from .program_steps import Add, Affine, Conv, Flatten, Pool, Step

if TYPE_CHECKING:
    from .program import Program

_RUN, _PORT = 4, 5
"""Fields of `ProgramRun` and of `PortTensor`."""
_KINDS = {Conv: 0, Pool: 1, Add: 2, Affine: 2, Flatten: 3}


class Compiled:
    """A program of the C++ library; freed with this object."""

    def __init__(self, program: Program) -> None:
        self._program, self._kept = program, _Kept()
        rooms = program_memory.plan(program)
        pieces = program_waves.order(program, rooms)
        arena = program_arena.plan(program, rooms, pieces)
        steps = [_step(step, program.buffers, arena, self._kept) for step in program.steps]
        ports = [_port(program.buffers[i], arena.lies[i]) for i in _ends(program)]
        table, ends, made = self._kept.table(steps), self._kept.table(ports), ctypes.c_int64()
        rows = (self._kept.table(pieces), len(pieces))
        counts = (len(program.inputs), len(program.outputs), program.block, arena.floats)
        rings = (self._kept.table(arena.rings), len(arena.rings))
        out = ctypes.addressof(made)
        native.run("st_program_make", [table, len(steps), *rows, ends, *counts, *rings, out])
        self._handle = made.value
        layouts = [program.buffers[index] for index in program.outputs]
        self._sizes = [(x.channels, x.height, x.width) for x in layouts]
        self._row = ctypes.c_int64 * (_RUN + _PORT * len(ports))
        weakref.finalize(self, _free, self._handle, self._kept)

    def run(self, images: Sequence[Tensor], seconds: Tensor | None = None) -> tuple[Tensor, ...]:
        """The outputs for a batch.

        Args:
            images: float32 [batch, channels, height, width], one for each input.
            seconds: float64 [inputs + steps + outputs], to which each stage's time is added.
        """
        batch = images[0].shape[0]
        outputs = [torch.empty(batch, *size) for size in self._sizes]
        row = self._row()  # `ProgramRun`, and behind it the tensors that it points to
        start = ctypes.addressof(row)
        times = 0 if seconds is None else seconds.data_ptr()
        fields = [self._handle, batch, start + 8 * _RUN, times]
        for tensor in images:
            fields += (tensor.data_ptr(), *tensor.stride())
        for tensor, (channels, height, width) in zip(outputs, self._sizes, strict=True):
            area = height * width
            fields += (tensor.data_ptr(), channels * area, area, width, 1)
        row[:] = fields
        native.call("st_program_run", start)
        return tuple(outputs)


def _free(handle: int, kept: _Kept) -> None:
    native.run("st_program_free", [handle, 0, 0, 0])
    kept.clear()


class _Kept:
    """What C structures point to, kept alive."""

    def __init__(self) -> None:
        self._things: list[object] = []

    def table(self, rows: Sequence[Sequence[int]]) -> int:
        """The address of these rows, one after the other, of 8-byte fields."""
        flat = [field for row in rows for field in row]
        made = (ctypes.c_int64 * max(1, len(flat)))(*flat)
        self._things.append(made)
        return ctypes.addressof(made)

    def address(self, tensor: Tensor | None) -> int:
        """The address of a tensor's entries, 0 for None."""
        if tensor is None:
            return 0
        dense = tensor.detach().contiguous()
        self._things.append(dense)
        return dense.data_ptr()

    def clear(self) -> None:
        """Let go."""
        self._things.clear()


def _ends(program: Program) -> tuple[int, ...]:
    return program.inputs + program.outputs


def _port(layout: Layout, lie: Lie) -> list[int]:
    return [lie.start, layout.channels, layout.height, layout.width, layout.halo]


def _step(step: Step, buffers: Sequence[Layout], arena: Arena, kept: _Kept) -> list[int]:
    """`ProgramStep`."""
    source, target = buffers[step.source], buffers[step.target]
    inner = [arena.lies[i].inner(buffers[i]) for i in (*step.reads, step.target)]
    start, out = arena.lies[step.source].start, inner[-1]
    area = target.channels * target.height * target.width * target.block
    if isinstance(step, Conv):
        other = inner[1] if step.residual is not None else -1
        work = step.plan.kept * target.height * target.width * target.block
        what = [_conv(step, arena, kept)]
    else:
        start, other, work = inner[0], inner[1] if isinstance(step, Add) else -1, area
        what = [_light(step, buffers, arena, kept)]
    rows = source.height if isinstance(step, Flatten) else target.height
    fields = [_KINDS[type(step)], start, other, out, target.channels, rows, work]
    return [*fields, kept.table(what)]


def _conv(step: Conv, arena: Arena, kept: _Kept) -> list[int]:
    """`StepConv`."""
    work = step.plan.laid(*arena.lies[step.source][1:], *arena.lies[step.target][1:])
    e = work.entries
    vectors = [kept.address(x) for x in (e.order, e.starts, e.offsets, step.values, step.bias)]
    return [*work.conv, int(step.relu), *vectors, *work.sizes[2:], arena.scratch]


def _light(
    step: Pool | Add | Affine | Flatten, buffers: Sequence[Layout], arena: Arena, kept: _Kept
) -> list[int]:
    """`Blend`, `Pooling` or `Flattening`."""
    source, target = buffers[step.source], buffers[step.target]
    into, out = arena.lies[step.source][1:], arena.lies[step.target][1:]
    if isinstance(step, Flatten):
        return [*into, *out, source.height, source.width, source.block]
    if isinstance(step, Pool):
        sizes = [source.height, source.width, target.height, target.width, source.block]
        windows = [*step.kernel, *step.stride, *step.padding]
        return [*into, *out, *sizes, *windows, int(step.kind == "max"), int(step.count_padding)]
    other = arena.lies[step.other][1:] if isinstance(step, Add) else into
    vectors = [0, 0]
    if isinstance(step, Affine):
        vectors = [kept.address(step.scale), kept.address(step.shift)]
    sizes = [target.height, target.width * target.block]
    return [*into, *other, *out, *sizes, *vectors, int(step.relu)]
