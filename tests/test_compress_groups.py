"""N:M masks: counts, ties, errors, and a network trained under one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain.compress import keep_n_of_m


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (4, 8), (3, 3)])
@pytest.mark.parametrize("shape", [(5, 24), (6, 8, 3, 3), (2, 24, 1)])
def test_the_n_best_of_each_m_neighbours_stay(n, m, shape):
    scores = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    mask = keep_n_of_m({"a": scores}, n, m)["a"]

    assert mask.shape == scores.shape and mask.dtype is torch.bool
    for row, kept in zip(scores.flatten(1).tolist(), mask.flatten(1).tolist(), strict=True):
        for start in range(0, len(row), m):
            group = row[start : start + m]
            best = sorted(range(m), key=lambda i: -group[i])[:n]
            assert [i for i in range(m) if kept[start + i]] == sorted(best)


def test_ties_go_to_the_earlier_position_in_any_memory_format():
    scores = torch.ones(3, 8, 2, 2).to(memory_format=torch.channels_last)
    mask = keep_n_of_m({"a": scores})["a"]
    assert mask.is_contiguous(memory_format=torch.channels_last)
    assert mask.flatten(1).view(-1, 4).tolist() == [[True, True, False, False]] * 24


@pytest.mark.parametrize(
    ("scores", "n", "sentence"),
    [
        ({"conv1": torch.ones(4, 3, 3, 3)}, 2, "inputs of conv1 are no multiple of m=4"),
        ({"bias": torch.ones(8)}, 2, "inputs of bias"),
        ({"fc": torch.full((2, 4), torch.nan)}, 2, "scores are NaN in fc"),
        ({"fc": torch.ones(2, 4)}, 5, r"n must be in \[1, m=4\], got 5"),
    ],
)
def test_what_cannot_be_is_one_sentence(scores, n, sentence):
    with pytest.raises(ValueError, match=sentence):
        keep_n_of_m(scores, n)


def test_a_pruned_network_is_trained_on_as_2_to_4():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 3))
    weights = {name: w.detach().abs() for name, w in st.select(model).items()}
    masks = keep_n_of_m(weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    engine = st.Sparsifier(model, optimizer, st.methods.static(masks=masks))
    images, labels = torch.randn(24, 4, 4, 4), torch.arange(24) % 3
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2
    kept = {name: w != 0 for name, w in st.select(model).items()}
    assert st.compress.layers_2to4(kept) == dict.fromkeys(masks, True)
    assert all(torch.equal(kept[name], mask) for name, mask in engine.masks.items())
