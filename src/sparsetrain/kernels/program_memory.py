"""Where a program's buffers lie in the arena of one block of images.

Only buffers of one layout share a place: the halo, zero from the start, then stays zero without
being cleared in every run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .packed import SLACK, Layout
from .program_steps import Add, Affine, Conv, Step

if TYPE_CHECKING:
    from .program import Program

LINE = 16
"""Floats of a cache line."""


@dataclass(frozen=True)
class Memory:
    """The plan.

    Attributes:
        places: floats from the arena's start to each buffer's first entry, halo included; -1 for
            one that is never written.
        scratch: where a convolution may lay its input out anew.
        floats: of the arena.
    """

    places: tuple[int, ...]
    scratch: int
    floats: int


def plan(program: Program) -> Memory:
    """Give every buffer a place for the steps in which it is alive."""
    last = _last_uses(program)
    free: dict[Layout, list[int]] = {}
    places, floats = [-1] * len(program.buffers), 0

    def claim(index: int) -> None:
        nonlocal floats
        if places[index] >= 0:
            return
        layout = program.buffers[index]
        if free.get(layout):
            places[index] = free[layout].pop()
            return
        places[index] = floats
        floats += _lines(layout.channels * layout.plane + SLACK)

    for index in program.inputs:
        claim(index)
    for number, step in enumerate(program.steps):
        dying = {index for index in (*step.reads, step.target) if last[index] == number}
        early = dying & set(_replaceable(step, program.buffers))
        for index in early:
            free.setdefault(program.buffers[index], []).append(places[index])
        claim(step.target)
        for index in dying - early:
            free.setdefault(program.buffers[index], []).append(places[index])
    room = max((_split_floats(step) for step in program.steps), default=0)
    return Memory(tuple(places), floats, floats + _lines(room + SLACK))


def _last_uses(program: Program) -> list[int]:
    """The last step that reads or writes each buffer; outputs live beyond the end."""
    last = [-1] * len(program.buffers)
    for number, step in enumerate(program.steps):
        for index in (*step.reads, step.target):
            last[index] = number
    for index in program.outputs:
        last[index] = len(program.steps)
    return last


def _replaceable(step: Step, buffers: Sequence[Layout]) -> tuple[int, ...]:
    """What a step reads only where it writes: its result may take that place."""
    if step.target in step.reads:
        return ()
    if isinstance(step, Conv):
        alone = step.residual is not None and step.residual != step.source
        return (step.residual,) if alone and step.residual is not None else ()
    if isinstance(step, Add | Affine):
        return tuple(index for index in step.reads if buffers[index] == buffers[step.target])
    return ()


def _split_floats(step: Step) -> int:
    """Room for an input split in phases, as blocks of one image need for a stride."""
    if not isinstance(step, Conv):
        return 0
    channels, split, plane = step.plan.work.sizes[2:5]
    return channels * split * split * plane if split > 1 else 0


def _lines(floats: int) -> int:
    return -(-floats // LINE) * LINE
