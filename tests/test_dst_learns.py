"""At 98 % zeros, moving weights learns more than the same number at random places."""

from __future__ import annotations

import math
from statistics import mean, stdev

import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain.data import Dataset, load

EPOCHS, BATCH = 30, 32


def images(data: Dataset, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    pixels, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    return pixels.flatten(1).float() / 255 - 0.3, labels


def fit(data: Dataset, name: str, seed: int, **options: object) -> tuple[float, dict[str, int]]:
    """Test accuracy and kept weights of each layer after a training with the method."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )
    x, y = images(data, "train")
    steps = len(x) // BATCH * EPOCHS
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    if name == "static":
        method: st.Method = st.methods.static(**options)  # type: ignore[arg-type]
    else:
        method = st.methods.create(name, sparsity=0.98, total_steps=steps)
    sparsifier = st.Sparsifier(model, optimizer, method, seed=seed)
    for _ in range(EPOCHS):
        order = torch.randperm(len(x))[: len(x) // BATCH * BATCH]
        for index in order.split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            optimizer.step()
            decay.step()
    test_x, test_y = images(data, "test")
    accuracy = (model(test_x).argmax(1) == test_y).float().mean().item()
    return accuracy, st.masks.count_active(sparsifier.masks)


def random_masks(counts: dict[str, int], seed: int) -> dict[str, torch.Tensor]:
    shapes = {"0.weight": (128, 64), "2.weight": (128, 128), "4.weight": (10, 128)}
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    return st.masks.keep_layerwise(scores, counts)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["set", "rigl", "itop", "snfs", "granet", "gmp"])
def test_moving_weights_beats_random_places_with_the_same_counts(name: str) -> None:
    data = load("digits")
    ours, theirs = [], []
    for seed in range(3):
        accuracy, counts = fit(data, name, seed)
        ours.append(accuracy)
        masks = random_masks(counts, seed)
        theirs.append(fit(data, "static", seed, masks=masks)[0])
    error = math.sqrt((stdev(ours) ** 2 + stdev(theirs) ** 2) / 3)
    assert mean(ours) - mean(theirs) > error, (ours, theirs)
