"""Held-out splits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsetrain.data import split


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    fraction=st.floats(0, 0.95),
    seed=st.integers(0, 5),
)
def test_split_is_a_partition_with_each_class_at_its_share(
    counts: list[int], fraction: float, seed: int
) -> None:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    total = round(fraction * len(labels))
    if total == len(labels):
        return

    train, held = split(labels, fraction, seed=seed)

    assert len(held) == total
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(len(labels)))
    shares = labels[held].bincount(minlength=len(counts))
    for share, count in zip(shares.tolist(), counts, strict=True):
        assert abs(share - total * count / len(labels)) < 1


def test_split_depends_on_its_seed_alone() -> None:
    labels = torch.arange(200) % 10
    torch.manual_seed(1)
    first = split(labels, 0.1, seed=0)
    torch.manual_seed(2)
    second = split(labels, 0.1, seed=0)

    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[1], split(labels, 0.1, seed=1)[1])


def test_nothing_held_out_leaves_all_to_train() -> None:
    train, held = split(torch.tensor([1, 0, 1]), 0.0, seed=0)

    assert train.tolist() == [0, 1, 2]
    assert held.tolist() == []


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 10, float("nan")])
def test_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"fraction held out must be in \[0, 1\)"):
        split(torch.zeros(4, dtype=torch.int64), fraction, seed=0)


def test_split_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves none to train"):
        split(torch.zeros(1, dtype=torch.int64), 0.9, seed=0)
    with pytest.raises(ValueError, match="non-empty vector"):
        split(torch.zeros(0, dtype=torch.int64), 0.1, seed=0)
