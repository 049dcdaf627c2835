"""The order in which rows are computed: all of them, none before what it reads is there."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain.kernels import program_memory, program_waves
from sparsetrain.kernels.program import Conv, Flatten, Pool, Program
from sparsetrain.kernels.program_waves import Piece

from .program_tools import Drawn, network


def tall(height: int = 24, density: float = 0.4) -> Drawn:
    """Residual blocks, strides and poolings on tall maps."""
    net = Drawn(3, height, 6, 16, 1)
    at = net.conv(0, 6, density=density, relu=True)
    for _ in range(2):
        middle = net.conv(at, 6, density=density, relu=True)
        at = net.conv(middle, 6, kernel=5, density=density, residual=at, relu=True)
    short = net.conv(at, 7, kernel=1, stride=2, density=density)
    at = net.conv(at, 7, stride=2, density=density)
    at = net.add(net.affine(at, relu=True), short)
    at = net.pool(net.conv(at, 5, density=density), "max", 3, 1, 1)
    net.conv(net.pool(at, "mean", 2, 2), 4, density=density)
    return net


def reach(program: Program, number: int, row: int) -> range:
    """Rows of its first source that a step reads for one row of results, by its definition."""
    step = program.steps[number]
    height = program.buffers[step.source].height
    if isinstance(step, Flatten):
        return range(height)
    kernel, stride, padding = 1, 1, 0
    if isinstance(step, Conv):
        g = step.plan.geometry
        kernel, stride, padding = g.kernel[0], g.stride, g.padding[0]
    elif isinstance(step, Pool):
        kernel, stride, padding = step.kernel[0], step.stride[0], step.padding[0]
    first = row * stride - padding
    return range(max(0, first), min(height, first + kernel))


def replayed(program: Program, pieces: tuple[Piece, ...]) -> None:
    """Every row read holds what the step before it in the program wrote; every row is made once."""
    rooms = program_memory.plan(program).of
    writer = [{**dict.fromkeys(program.inputs, -1)}]
    for number, step in enumerate(program.steps):
        writer.append(writer[-1] | {step.target: number})
    held = {(rooms[i], y): -1 for i in program.inputs for y in range(program.buffers[i].height)}
    made: list[list[int]] = [[] for _ in program.steps]
    for piece in pieces:
        step = program.steps[piece.step]
        before = writer[piece.step]
        for row in range(piece.top, piece.bottom):
            for y in reach(program, piece.step, row):
                assert held[rooms[step.source], y] == before[step.source]
            for other in step.reads[1:]:
                assert held[rooms[other], row] == before[other]
        for row in range(piece.top, piece.bottom):
            made[piece.step].append(row)
            held[rooms[step.target], row] = piece.step
    for number, step in enumerate(program.steps):
        assert made[number] == list(range(program.buffers[step.target].height))
    for index in program.outputs:
        rows = range(program.buffers[index].height)
        assert all(held[rooms[index], y] == writer[-1][index] for y in rows)


@settings(deadline=None, max_examples=15)
@given(
    height=st.integers(8, 28),
    cache=st.sampled_from([1, 1 << 12, 1 << 14, 1 << 16, 1 << 30]),
    room=st.sampled_from([0, 1 << 13, 1 << 15, 1 << 17, 1 << 40]),
    seed=st.integers(0, 99),
)
def test_no_row_is_computed_before_what_it_reads(height, cache, room, seed):
    torch.manual_seed(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program_waves, "second_cache", lambda: cache)
        for net in (tall(height), network(1, 16, size=height)):
            program = net.program()
            replayed(program, program_waves.order(program, program_memory.plan(program), room))


def test_small_activations_and_single_images_are_computed_step_after_step(monkeypatch):
    program = tall().program()
    rooms = program_memory.plan(program)
    whole = tuple(
        Piece(n, 0, program.buffers[step.target].height) for n, step in enumerate(program.steps)
    )
    monkeypatch.setattr(program_waves, "second_cache", lambda: 1 << 30)
    assert program_waves.order(program, rooms) == whole
    monkeypatch.setattr(program_waves, "second_cache", lambda: 1 << 14)
    assert program_waves.order(program, rooms, room=0) == whole
    assert len(program_waves.order(program, rooms, room=1 << 16)) > 3 * len(whole)
    single = network(1, 1, size=24).program()
    pieces = program_waves.order(single, program_memory.plan(single), room=1 << 20)
    assert [piece.step for piece in pieces] == list(range(len(single.steps)))
