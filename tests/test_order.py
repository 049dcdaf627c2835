import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain.kernels import kth_smallest, kth_smallest_magnitude

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def draw_tensors(seed, dtype, sizes):
    rng = np.random.default_rng(seed)
    # Few distinct values, so that ties at the border are the rule.
    return [torch.from_numpy(rng.integers(-3, 4, size) / 4).to(dtype) for size in sizes]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=4).filter(any),
    where=st.floats(0, 1, exclude_max=True),
    dtype=st.sampled_from(DTYPES),
)
def test_rank_k_is_entry_k_of_the_sorted_concatenation(seed, sizes, where, dtype):
    tensors = draw_tensors(seed, dtype, sizes)
    k = int(where * sum(sizes))
    entries = sorted(x for tensor in tensors for x in tensor.tolist())
    magnitudes = sorted(abs(x) for x in entries)
    assert kth_smallest(tensors, k).item() == entries[k]
    assert kth_smallest_magnitude(tensors, k).item() == magnitudes[k]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_rank_of_normal_entries_matches_sort_and_keeps_the_dtype(dtype):
    tensor = torch.randn(3, 5, 7, dtype=torch.float64).to(dtype)
    expected = tensor.flatten().sort().values
    for k in range(tensor.numel()):
        found = kth_smallest([tensor], k)
        assert found.dtype is dtype
        assert found.dim() == 0
        assert found == expected[k]


def test_rank_over_channels_last_weights_is_that_of_the_contiguous_ones():
    weight = torch.randn(4, 3, 5, 5)
    last = weight.to(memory_format=torch.channels_last)
    strided = torch.randn(6, 8)[:, ::2]
    for k in (0, 17, 299, 323):
        expected = kth_smallest_magnitude([weight, strided.contiguous()], k)
        assert kth_smallest_magnitude([last, strided], k) == expected


def test_inputs_stay_untouched_and_no_gradient_is_recorded():
    weight = torch.nn.Parameter(torch.randn(50))
    before = weight.detach().clone()
    value = kth_smallest_magnitude([weight], 20)
    kth_smallest([weight], 20)
    assert not value.requires_grad
    assert torch.equal(weight, before)


def test_infinities_are_ordered_and_nan_ranks_above_every_number():
    tensor = torch.tensor([torch.nan, torch.inf, 1.0, -torch.inf])
    assert kth_smallest([tensor], 0) == -torch.inf
    assert kth_smallest([tensor], 2) == torch.inf
    assert kth_smallest([tensor], 3).isnan()


def test_partition_agrees_with_kthvalue_which_other_devices_use():
    tensor = torch.randn(1000).bfloat16().float()
    for k in (0, 1, 499, 998, 999):
        assert kth_smallest([tensor], k) == torch.kthvalue(tensor, k + 1).values


@pytest.mark.parametrize(
    ("tensors", "k", "message"),
    [
        ([], 0, "at least one tensor"),
        ([torch.zeros(3)], 3, r"\[0, 3\).*got 3"),
        ([torch.zeros(3)], -1, "got -1"),
        ([torch.zeros(0)], 0, "got 0"),
        ([torch.zeros(1), torch.zeros(1).double()], 0, "one dtype"),
        ([torch.zeros(1), torch.zeros(1, device="meta")], 0, "one device"),
    ],
)
def test_bad_input_raises_one_sentence(tensors, k, message):
    for function in (kth_smallest, kth_smallest_magnitude):
        with pytest.raises(ValueError, match=message):
            function(tensors, k)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
def test_cuda_gives_the_same_value_as_the_cpu(dtype):
    tensors = [torch.randn(100, 7).to(dtype), torch.randn(50).to(dtype)]
    for k in (0, 300, 749):
        found = kth_smallest_magnitude([tensor.cuda() for tensor in tensors], k)
        assert found.cpu() == kth_smallest_magnitude(tensors, k)
