import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain import criteria
from sparsetrain.kernels import count_true, kth_smallest, kth_smallest_magnitude, order
from sparsetrain.types import View

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


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int64])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9, 1.0])
def test_where_ranks_only_the_true_entries_in_any_memory_format(dtype, share):
    tensors = [torch.randn(4, 3, 5, 5).mul(8).to(dtype), torch.randn(6, 8).mul(8).to(dtype)]
    where = [torch.rand(4, 3, 5, 5) < share, torch.rand(6, 8) < 0.5]
    entries = sorted(x for t, m in zip(tensors, where, strict=True) for x in t[m].tolist())
    last = torch.channels_last
    for score in (tensors[0], tensors[0].to(memory_format=last)):
        for mask in (where[0], where[0].to(memory_format=last)):
            masks = (mask, where[1])
            for k in range(0, len(entries), 7):
                assert kth_smallest((score, tensors[1]), k, where=masks) == entries[k]
    assert sum(count_true(where)) == len(entries)
    with pytest.raises(ValueError, match=rf"\[0, {len(entries)}\)"):
        kth_smallest(tensors, len(entries), where=where)


def test_a_collection_that_makes_its_tensors_when_read_is_ranked_like_a_list():
    tensors = {"a": torch.randn(20), "b": torch.randn(3, 5)}
    made = criteria.magnitude(View(0, tensors, {}, {}, torch.Generator()))
    assert kth_smallest(made.values(), 7) == kth_smallest_magnitude(list(tensors.values()), 7)


# Half the entries equal, or nine in ten, with other ties above and below, and NaN above all.
LUMPS = [{0.0: 9000}, {0.0: 5000, 2.0: 4000}, {-torch.inf: 9000}, {1.0: 9990}, {0.0: 5000}]


@pytest.mark.parametrize("lumps", LUMPS, ids=str)
@pytest.mark.parametrize("nans", [0, 5])
def test_every_rank_is_right_where_a_large_part_of_the_entries_is_equal(lumps, nans):
    entries = torch.randn(10_000)
    place = torch.randperm(10_000)
    for value, count in lumps.items():
        entries[place[:count]], place = value, place[count:]
    entries[place[:nans]] = torch.nan
    ordered = entries.sort().values
    for k in [*range(0, 10_000, 397), *(10_000 - i for i in range(1, 8))]:
        found = kth_smallest([entries], k)
        assert found == ordered[k] or (found.isnan() and ordered[k].isnan())


@pytest.mark.parametrize("kind", ["normal", "misleading", "nan"])
def test_ranks_among_many_entries_are_narrowed_down_and_exact(kind):
    entries = torch.randn(1 << 17, generator=torch.Generator().manual_seed(0)).numpy()
    if kind == "misleading":  # every 32nd entry is looked at, and tells of none of the others
        entries[::32] += 1000
    if kind == "nan":
        entries[5::7] = np.nan
    ordered = np.sort(entries)  # NaN last
    for k in (0, 1, 700, 65_536, 112_000, 128_450, (1 << 17) - 1):
        part, rank = order._narrowed(entries, k)
        assert len(part) == len(entries) or len(part) < len(entries) / 8
        assert np.array_equal(np.sort(part)[rank], ordered[k], equal_nan=True)
        found = kth_smallest([torch.from_numpy(entries)], k).numpy()
        assert np.array_equal(found, ordered[k], equal_nan=True)
    narrowed = len(order._narrowed(entries, 65_536)[0]) < len(entries)
    assert narrowed == (kind != "misleading")


def test_equal_entries_are_taken_out_before_numpy_partitions():
    entries = torch.randn(10_000)
    entries[torch.randperm(10_000)[:8000]] = 0
    partitioned = []

    class Watched(np.ndarray):
        def partition(self, kth, *args, **kwargs):
            partitioned.append(self.size)
            super().partition(kth, *args, **kwargs)

    assert order._partition(entries.numpy().copy().view(Watched), 9500) == entries.sort()[0][9500]
    assert partitioned == [int((entries > 0).sum())]


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


@pytest.mark.parametrize("k", [0, 1, 149, 150, 151, 297, 298, 299])
def test_the_device_s_way_finds_entry_k_of_the_sorted_entries(k: int) -> None:
    values = torch.randn(300).round(decimals=1)  # with ties
    values[::100], values[7] = math.nan, -math.inf
    expected = torch.from_numpy(np.sort(values.numpy()))[k]  # NumPy sorts NaN last too
    torch.testing.assert_close(
        order.kth_off_cpu(values, k), expected, rtol=0, atol=0, equal_nan=True
    )
