"""Runs of packed programs: threads, concurrent calls, copies, memory."""

from __future__ import annotations

import copy
import resource
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain.kernels import native, program_memory
from sparsetrain.kernels.program import Conv, Executor

from .program_tools import Drawn, network

pytestmark = pytest.mark.skipif(
    not native.PATH.exists() or native.library() is None,
    reason="the C++ kernels are not built or are switched off",
)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def assert_right(net: Drawn, found: torch.Tensor) -> None:
    expected = net.known[-1]
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def residual_chain(batch: int, block: int, density: float) -> Drawn:
    """Residual blocks between the same two places, as in a ResNet's stage."""
    net = Drawn(4, 9, 7, block, batch)
    at = net.conv(0, 6, density=density, relu=True)
    for _ in range(3):
        middle = net.conv(at, 6, density=density, relu=True)
        at = net.conv(middle, 6, density=density, residual=at, relu=True)
    middle = net.conv(net.pool(at, "max", 3, 2, 1), 5, density=density, kernel=5)
    net.conv(net.affine(middle, relu=True), 5, density=density, stride=2)
    return net


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 130),
    block=st.sampled_from([1, 16, 32, 64]),
    density=st.sampled_from([0.0, 0.02, 0.3, 1.0]),
    seed=st.integers(0, 999),
)
def test_programs_of_any_size_equal_float64(batch, block, density, seed):
    torch.manual_seed(seed)
    net = network(batch, block, density=density)
    assert_right(net, Executor(net.program())(net.images)[0])


@pytest.mark.parametrize("block", [1, 16])
@pytest.mark.parametrize("density", [0.02, 0.6])
def test_residual_blocks_are_right(block, density):
    torch.manual_seed(0)
    net = residual_chain(18, block, density)
    assert_right(net, Executor(net.program())(net.images)[0])


def test_a_residual_block_needs_two_rooms_and_the_sum_replaces_its_summand():
    program = residual_chain(1, 16, 0.5).program()
    rooms = program_memory.plan(program).of
    sums = [s for s in program.steps if isinstance(s, Conv) and s.residual is not None]
    assert len(sums) == 3
    assert all(s.residual is not None and rooms[s.target] == rooms[s.residual] for s in sums)
    assert len({rooms[s.source] for s in sums}) == 1


@pytest.mark.parametrize(("batch", "block"), [(1, 1), (3, 1), (1, 16), (40, 16), (64, 16)])
def test_results_do_not_depend_on_the_number_of_threads(threads, batch, block):
    torch.manual_seed(0)
    net = Drawn(16, 24, 24, block, batch)
    middle = net.conv(net.conv(0, 40, density=0.6, relu=True), 40, density=0.6)
    net.conv(middle, 20, stride=2)
    run, found = Executor(net.program()), []
    for count in (1, 2, 3):
        threads(count)
        found += [run(net.images)[0] for _ in range(3)]
    assert_right(net, found[0])
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_calls_from_several_threads_at_once_are_right():
    torch.manual_seed(0)
    net = network(33, 16)
    run = Executor(net.program())
    wanted = run(net.images)[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: run(net.images[: 1 + n % 33])[0], range(60)))
    assert all(torch.equal(out, wanted[: 1 + n % 33]) for n, out in enumerate(found))


def test_a_copy_outlives_its_original():
    net = network(5, 16)
    original = Executor(net.program())
    other = copy.deepcopy(original)
    wanted = original(net.images)[0]
    del original
    assert torch.equal(other(net.images)[0], wanted)


def test_a_profile_has_a_time_for_each_step():
    net = network(40, 16)
    program = net.program()
    profile = Executor(program).profile(net.images)
    assert len(profile.steps) == len(program.steps)
    assert all(time > 0 for time in (*profile.inputs, *profile.steps, *profile.outputs))


@pytest.mark.slow
def test_memory_does_not_grow_over_a_thousand_runs():
    net = network(64, 16, size=24)
    for _ in range(50):
        Executor(net.program())(net.images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = Executor(net.program())
    for _ in range(1000):
        run(net.images)
    for _ in range(200):  # executors let go of their arenas
        Executor(net.program())(net.images)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024
