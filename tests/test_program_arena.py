"""Rooms that lie as rings: the same results, from several threads, and in a forked child."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from sparsetrain.kernels import program_arena, program_memory, program_waves
from sparsetrain.kernels.program import Executor, Program

from .kernel_tools import built
from .program_tools import Drawn


def deep(batch: int, height: int = 20) -> Drawn:
    """Convolutions and a residual block on maps of 200 kB a block of images."""
    torch.manual_seed(0)
    net = Drawn(3, height, 12, 16, batch)
    at = net.conv(0, 12, density=0.2, relu=True)
    middle = net.conv(at, 12, density=0.2, relu=True)
    at = net.conv(middle, 12, density=0.2, residual=at, relu=True)
    at = net.conv(at, 10, density=0.2, relu=True)
    net.conv(net.pool(at, "max", 2, 2), 5, density=0.2)
    return net


@pytest.fixture
def eager_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waves and rings for small networks: as if the second cache were small."""
    monkeypatch.setattr(program_waves, "second_cache", lambda: 1 << 17)
    monkeypatch.setattr(program_arena, "GAIN", 0)


def planned(program: Program) -> program_arena.Arena:
    rooms = program_memory.plan(program)
    return program_arena.plan(program, rooms, program_waves.order(program, rooms))


def without_rings(program: Program, monkeypatch: pytest.MonkeyPatch) -> Executor:
    with monkeypatch.context() as patch:
        patch.setattr(program_arena, "_periods", lambda *_: {})
        assert not planned(program).rings
        return Executor(program)


@pytest.mark.usefixtures("eager_rings")
def test_rings_are_whole_pages_and_nothing_lies_over_anything_else():
    program = deep(1).program()
    arena = planned(program)
    assert arena.rings
    for ring in arena.rings:
        assert all(size % program_arena.PAGE == 0 for size in ring)
        assert 0 < ring.period < ring.whole
    places = []
    for lie, layout in zip(arena.lies, program.buffers, strict=True):
        rows, channels = layout.height + 2 * layout.halo, layout.channels
        last = lie.start + (rows - 1) * lie.row + (channels - 1) * lie.plane + layout.pitch
        places.append((lie.start, last))
        assert lie.start >= 0 and last <= arena.floats
        inner, outer = sorted((lie.row, lie.plane))
        count = channels if inner == lie.plane else rows
        assert inner >= layout.pitch and outer >= count * inner
    rooms = program_memory.plan(program).of
    for one, (start, last) in enumerate(places):
        for other, (first, _) in enumerate(places):
            assert rooms[one] == rooms[other] or not start <= first < last


@built
@pytest.mark.usefixtures("eager_rings")
@pytest.mark.parametrize("batch", [1, 16, 40, 70])
@pytest.mark.parametrize("height", [20, 33])
def test_rings_give_equal_results(batch, height, monkeypatch):
    net = deep(batch, height)
    program = net.program()
    assert planned(program).rings
    plain, ringed = without_rings(program, monkeypatch), Executor(program)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found = ringed(net.images)[0]
            assert torch.equal(found, plain(net.images)[0])
            assert (found - net.known[-1]).abs().max() <= 1e-5 * net.known[-1].abs().max()
            assert torch.equal(ringed(net.images)[0], found)
        assert sum(ringed.profile(net.images).steps) > 0
        assert torch.equal(ringed(net.images)[0], found)
    finally:
        torch.set_num_threads(threads)


@built
@pytest.mark.usefixtures("eager_rings")
def test_rings_of_threads_that_run_at_once_do_not_meet():
    net = deep(33)
    run = Executor(net.program())
    wanted = run(net.images)[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: run(net.images[: 1 + n % 33])[0], range(60)))
    assert all(torch.equal(out, wanted[: 1 + n % 33]) for n, out in enumerate(found))


FORK = """
import os, sys
import torch
from sparsetrain.kernels import program_arena, program_waves
from sparsetrain.kernels.program import Executor
from tests.test_program_arena import deep, planned
program_waves.second_cache = lambda: 1 << 17
program_arena.GAIN = 0
torch.set_num_threads(2)
net = deep(40)
program = net.program()
assert planned(program).rings
run, other = Executor(program), net.images.flip(0).contiguous()
wanted = [run(images)[0].numpy().tobytes() for images in (net.images, other)]
child = os.fork()
mine = int(child == 0)
# Parent and child at once, each with images of its own: rings in common would mix them.
right = all(
    run((net.images, other)[mine])[0].numpy().tobytes() == wanted[mine] for _ in range(40)
)
if child == 0:
    del run
    os._exit(0 if right else 1)
assert os.waitpid(child, 0)[1] == 0, "child"
assert right, "parent"
"""


@built
def test_a_forked_child_and_its_parent_have_rings_of_their_own():
    command = [sys.executable, "-W", "ignore", "-c", FORK]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        command, cwd=root, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


@built
@pytest.mark.slow
@pytest.mark.usefixtures("eager_rings")
def test_arenas_with_rings_are_given_back():
    net = deep(16)
    program = net.program()

    def mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    Executor(program)(net.images)
    before = mappings()
    for _ in range(50):
        Executor(program)(net.images)
    assert mappings() <= before + 20
