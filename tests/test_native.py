"""The C++ kernels against NumPy, bit for bit where exact, on every level and thread count."""

import math
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sparsetrain.kernels import native
from sparsetrain.kernels.masking import Masked, zero_pruned_

built = pytest.mark.skipif(
    not native.PATH.exists() or native.library() is None,
    reason="the C++ kernels are not built or are switched off",
)
pytestmark = built
RANKED = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=["generic", "v3", "v4"])
def level(request):
    """Every level that this processor has; the others are skipped."""
    library, wanted = native.library(), {"generic": 0, "v3": 3, "v4": 4}[request.param]
    assert library is not None
    try:
        if library.st_use_level(wanted) != wanted:
            pytest.skip(f"this processor or build has no {request.param}")
        yield request.param
    finally:
        library.st_use_level(4)


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def kth(tensors: list[Tensor], k: int, *, magnitude: bool) -> Tensor:
    spans = native.spans(tensors, *RANKED)
    assert spans is not None
    return native.kth(spans, k, magnitude=magnitude)


def sums(weights: list[Tensor], steepness: float) -> tuple[float, float]:
    spans = native.spans(weights, torch.float32)
    assert spans is not None
    return native.hypersparse_sums(spans, steepness)


def pairs(weights: list[Tensor], grads: list[Tensor]) -> native.Pairs:
    found = native.pairs(weights, grads)
    assert found is not None
    return found


def ranked(tensors: list[Tensor], magnitude: bool) -> np.ndarray:
    flat = np.concatenate([t.float().numpy().ravel() for t in tensors])
    return np.sort(np.abs(flat) if magnitude else flat)  # NumPy ranks NaN last, too


@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.sampled_from([0, 1, 15, 63, 64, 65, 1000, 9000]), min_size=1, max_size=4),
    ties=st.booleans(),
    magnitude=st.booleans(),
    where=st.floats(0, 1, exclude_max=True),
    dtype=st.sampled_from(RANKED),
)
def test_the_value_of_rank_k_is_entry_k_of_the_sorted_entries(
    seed, sizes, ties, magnitude, where, dtype
):
    rng = np.random.default_rng(seed)
    sizes = [*sizes, 1]
    arrays = [rng.integers(-3, 4, n) / 4 if ties else rng.standard_normal(n) for n in sizes]
    tensors = [torch.from_numpy(a).to(dtype) for a in arrays]
    expected = ranked(tensors, magnitude)
    k = int(where * expected.size)
    found = kth(tensors, k, magnitude=magnitude)
    assert found.dtype is dtype
    assert found.float().item() == expected[k]


@pytest.mark.parametrize("dtype", RANKED)
@pytest.mark.parametrize("magnitude", [True, False])
def test_every_level_ranks_infinities_zeros_and_nan(level, dtype, magnitude):
    special = [0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 6e-8, -6e-8]
    tensors = [torch.randn(700).to(dtype), torch.tensor(special * 9, dtype=dtype)]
    expected = ranked(tensors, magnitude)
    found = [kth(tensors, k, magnitude=magnitude).float().item() for k in range(expected.size)]
    np.testing.assert_array_equal(found, expected)


def test_a_sample_that_misleads_costs_time_and_nothing_else(level):
    n, step = 200_000, 200_000 // 4096
    noise, looked_at = 1, []
    for i in range(n // step):  # the positions that order.cpp samples
        noise = (noise * 1664525 + 1013904223) % 2**32
        looked_at.append(i * step + ((noise >> 8) * step >> 24))
    values = torch.randn(n).abs() + 1
    values[looked_at] = 0.5
    expected = ranked([values], magnitude=True)
    for k in (0, len(looked_at), n // 2, n - 1):
        assert kth([values], k, magnitude=True).item() == expected[k]


def test_a_tensor_of_any_layout_is_ranked():
    x = torch.randn(8, 6, 5, 5)
    for view in (x.contiguous(memory_format=torch.channels_last), x[:, ::2], x.transpose(0, 3)):
        expected = ranked([view], magnitude=True)
        assert kth([view], 77, magnitude=True).item() == expected[77]


def test_sums_and_gradient_equal_float64_to_a_few_ulps_on_every_level(level):
    w = [torch.randn(70, 61) * 10**e for e in (-4, -1, 1)] + [torch.zeros(3), torch.randn(1)]
    flat = np.concatenate([t.numpy().ravel() for t in w]).astype(np.float64)
    total, activation = sums(w, 2.0)
    np.testing.assert_allclose(total, np.abs(flat).sum(), rtol=2e-7)
    np.testing.assert_allclose(activation, np.tanh(2 * np.abs(flat)).sum(), rtol=2e-7)
    grads = [torch.zeros_like(t) for t in w]
    native.add_hypersparse_(pairs(w, grads), 2.0, 3.0)
    actual = np.concatenate([t.numpy().ravel() for t in grads])
    with np.errstate(over="ignore"):
        expected = np.sign(flat) * 3 / np.cosh(2 * flat) ** 2
    # In the tail the rounding of the argument 2|w| is magnified by 4|w|; exp ends at 1e-38.
    np.testing.assert_allclose(actual, expected, rtol=4e-6, atol=1e-36)
    assert np.abs(actual - expected).max() <= 5e-7 * np.abs(expected).max()


@pytest.mark.parametrize("share", [0.0, 0.02, 1.0])
def test_weights_near_and_far_from_zero_meet_without_a_step(level, share):
    # 1.1 is where the polynomials end; groups of near weights, of far ones, and of both.
    rng = np.random.default_rng(5)
    x = rng.uniform(0, 1.1, 4099)
    x[rng.random(x.size) < share] = rng.uniform(1.05, 9)
    x[:200] = np.linspace(1.09, 1.11, 200)
    flat = (x * rng.choice([-1, 1], x.size)).astype(np.float32)
    w, exact = [torch.from_numpy(flat)], flat.astype(np.float64)
    _, activation = sums(w, 1.0)
    np.testing.assert_allclose(activation, np.tanh(np.abs(exact)).sum(), rtol=2e-7)
    grads = [torch.zeros_like(t) for t in w]
    native.add_hypersparse_(pairs(w, grads), 1.0, 1.0)
    expected = np.sign(exact) / np.cosh(exact) ** 2
    np.testing.assert_allclose(grads[0].numpy(), expected, rtol=4e-6)
    assert np.abs(grads[0].numpy() - expected).max() <= 5e-7


def test_tanh_of_weights_next_to_zero_keeps_all_digits(level):
    w = [torch.full((4099,), 1e-20)]
    total, activation = sums(w, 0.5)
    np.testing.assert_allclose(activation, 0.5 * total, rtol=2e-7)


def test_writing_the_gradient_equals_adding_it_to_zeros_bit_for_bit(level):
    w = [torch.randn(70, 61), torch.zeros(100), -torch.zeros(9), torch.randn(4, 3, 5, 5)]
    w[3] = w[3].contiguous(memory_format=torch.channels_last)
    w[0][::3] = 0.0
    added, written = ([torch.full_like(t, start) for t in w] for start in (0.0, math.nan))
    native.add_hypersparse_(pairs(w, added), 0.8, 3.0)
    native.set_hypersparse_(pairs(w, written), 0.8, 3.0)
    for one, other in zip(added, written, strict=True):
        assert torch.equal(one, other)


def test_pairs_that_do_not_lie_alike_are_left_to_others():
    w = torch.randn(4, 3, 5, 5)
    last = torch.zeros_like(w).contiguous(memory_format=torch.channels_last)
    assert native.pairs([w], [last]) is None
    assert native.pairs([w[:, ::2]], [torch.zeros_like(w)[:, ::2]]) is None
    assert native.pairs([w.double()], [w.double()]) is None
    assert native.pairs([w], [w.bfloat16()]) is None
    assert native.spans([w, w.bfloat16()], *RANKED) is None


def test_finite_weights_whose_sum_overflows_float32_have_a_finite_sum():
    total, _ = sums([torch.full((5000,), 3e38)], 1e-38)
    np.testing.assert_allclose(total, 5000 * 3e38, rtol=1e-6)
    for bad in (math.nan, math.inf):
        total, _ = sums([torch.tensor([1.0, bad])], 1.0)
        assert not math.isfinite(total)


def test_results_do_not_depend_on_the_number_of_threads(threads):
    w = [torch.randn(300, 301), torch.randn(7), torch.randn(64, 64, 3, 3)]
    results = []
    for count in (1, 2, 3, 5):
        threads(count)
        grads = [torch.ones_like(t) for t in w]
        native.add_hypersparse_(pairs(w, grads), 0.7, 0.1)
        k = kth(w, 90_000, magnitude=True).item()
        results.append((sums(w, 0.7), k, torch.cat([g.ravel() for g in grads])))
    for added, k, grads in results[1:]:
        assert (added, k) == results[0][:2]
        assert torch.equal(grads, results[0][2])


def test_several_python_threads_may_call_at_once(threads):
    threads(2)
    w = [torch.randn(200_000)]
    expected = sums(w, 1.0)
    wrong = []

    def call() -> None:
        wrong.extend(s for _ in range(50) if (s := sums(w, 1.0)) != expected)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_forked_child_has_threads_of_its_own():
    code = """
import os, torch
from sparsetrain.kernels import native
torch.set_num_threads(2)
w = native.spans([torch.arange(500_000.)], torch.float32)
expected = native.hypersparse_sums(w, 1e-6)
child = os.fork()
if child == 0:
    os._exit(0 if all(native.hypersparse_sums(w, 1e-6) == expected for _ in range(20)) else 1)
assert native.hypersparse_sums(w, 1e-6) == expected
assert os.waitpid(child, 0)[1] == 0
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def masked_by_numpy(tensor: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, tensor, torch.zeros((), dtype=tensor.dtype))


@pytest.mark.parametrize("dtype", [torch.float64, *RANKED])
def test_masking_stores_plus_zero_and_keeps_the_other_bits(level, dtype):
    for n in (0, 1, 31, 8193, 20_000):
        mask = torch.rand(n) > 0.5
        weight, state = torch.randn(n).to(dtype), torch.randn(n)
        state[~mask] = math.inf  # an overflowed second moment must not turn into NaN
        expected = [masked_by_numpy(t, mask) for t in (weight, state)]
        assert native.mask_([Masked(mask, (weight, state))]) == [True]
        for tensor, wanted in zip((weight, state), expected, strict=True):
            assert torch.equal(tensor.view(torch.uint8), wanted.view(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float64, *RANKED])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_masking_reports_the_weights_that_are_not_finite(level, dtype, bad):
    mask = torch.ones(9000, dtype=torch.bool)
    mask[5] = False
    rows = [Masked(mask, (torch.ones(9000, dtype=dtype), torch.ones(9000))) for _ in range(4)]
    rows[1].tensors[0][8999] = bad  # kept
    rows[2].tensors[0][5] = bad  # pruned
    rows[3].tensors[1][7] = bad  # a state
    assert native.mask_(rows) == [True, False, True, True]


def test_masking_by_kernel_and_by_twin_gives_equal_bits(monkeypatch):
    def run() -> tuple[list[Tensor], list[bool]]:
        torch.manual_seed(3)
        weight = torch.randn(6, 4, 3, 3).contiguous(memory_format=torch.channels_last)
        mask = torch.empty_like(weight, dtype=torch.bool).copy_(torch.rand(6, 4, 3, 3) > 0.7)
        odd = torch.randn(4, 9).t()  # the mask has another memory order: always the twin
        rows = [
            Masked(mask, (weight, weight.clone().double())),
            Masked(torch.rand(9, 4) > 0.5, (odd, odd.clone())),
            Masked(mask.contiguous(), (weight.contiguous() * math.inf,)),
        ]
        return [t.contiguous() for row in rows for t in row.tensors], zero_pruned_(rows)

    fast, fast_finite = run()
    monkeypatch.setattr(native, "library", lambda: None)
    slow, slow_finite = run()
    assert fast_finite == slow_finite == [True, True, False]
    for one, other in zip(fast, slow, strict=True):
        assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def test_autograd_sees_the_changes(level):
    weight, grad = torch.randn(5), torch.zeros(5)
    before = weight._version, grad._version
    native.add_hypersparse_(pairs([weight], [grad]), 1.0, 1.0)
    native.mask_([Masked(torch.ones(5, dtype=torch.bool), (weight,))])
    assert (weight._version, grad._version) == (before[0] + 1, before[1] + 1)
