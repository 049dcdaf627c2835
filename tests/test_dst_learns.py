"""At 98 % zeros, choosing the places learns more than the same number at random places."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from statistics import mean, stdev

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR

import sparsetrain as st
from sparsetrain import saliency
from sparsetrain.data import Dataset, load
from sparsetrain.types import Masks

_log = logging.getLogger(__name__)

EPOCHS, BATCH, SPARSITY = 30, 32, 0.98
SHAPES = {"0.weight": (128, 64), "2.weight": (128, 128), "4.weight": (10, 128)}
LEARNERS = ["set", "rigl", "itop", "snfs", "granet", "gmp", "art"]


def images(data: Dataset, part: str) -> tuple[Tensor, Tensor]:
    pixels, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    return pixels.flatten(1).float() / 255 - 0.3, labels


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def convnet() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def batches(x: Tensor) -> Iterator[Tensor]:
    """Indices of one epoch, in an order of the global generator, without a shorter last batch."""
    yield from torch.randperm(len(x))[: len(x) // BATCH * BATCH].split(BATCH)


def epoch(
    model: nn.Module, optimizer: SGD, x: Tensor, y: Tensor, decay: CosineAnnealingLR | None
) -> float:
    """Train on every image once; the accuracy on the fly."""
    correct, seen = 0, 0
    for index in batches(x):
        optimizer.zero_grad()
        logits = model(x[index])
        F.cross_entropy(logits, y[index]).backward()
        optimizer.step()
        if decay is not None:
            decay.step()
        correct, seen = correct + int((logits.argmax(1) == y[index]).sum()), seen + len(index)
    return correct / seen


Fit = tuple[float, dict[str, int]]
"""Test accuracy, and kept weights of each layer."""


def start(seed: int, make: Callable[[], nn.Module] = mlp) -> tuple[nn.Module, SGD]:
    torch.manual_seed(seed)
    model = make()
    return model, SGD(model.parameters(), lr=0.1, momentum=0.9)


def fit(data: Dataset, method: st.Method, seed: int) -> Fit:
    """EPOCHS epochs of an MLP under an in-loop method."""
    model, optimizer = start(seed)
    x, y = images(data, "train")
    decay = CosineAnnealingLR(optimizer, len(x) // BATCH * EPOCHS)
    sparsifier = st.Sparsifier(model, optimizer, method, seed=seed)
    for _ in range(EPOCHS):
        epoch(model, optimizer, x, y, decay)
    return accuracy(model, *images(data, "test")), st.masks.count_active(sparsifier.masks)


def fit_art(data: Dataset, seed: int) -> Fit:
    """ART with HyperSparse: 5 dense epochs, 3 to 12 that regularise, fine-tuning with the rest."""
    model, optimizer = start(seed)
    x, y = images(data, "train")
    art = st.ART(
        model,
        optimizer,
        sparsity=SPARSITY,
        dense_epochs=5,
        max_regularize_epochs=12,
        finetune_epochs=EPOCHS,
        strength=1e-3,
        strength_factor=1.5,
    )
    decay: CosineAnnealingLR | None = None
    for done in range(EPOCHS):
        if art.phase == "finetune" and decay is None:
            decay = CosineAnnealingLR(optimizer, len(x) // BATCH * (EPOCHS - done))
        art.epoch_end(epoch(model, optimizer, x, y, decay), lambda m: accuracy(m, x, y))
    assert art.phase == "finetune"
    return accuracy(model, *images(data, "test")), st.masks.count_active(art.masks)


def random_masks(counts: dict[str, int], seed: int) -> Masks:
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}
    return st.masks.keep_layerwise(scores, counts)


def compare(data: Dataset, name: str, seeds: range) -> tuple[list[float], list[float], float]:
    """Accuracies of the method, of random places with its counts, and the pooled standard error."""
    steps = len(data.train_labels) // BATCH * EPOCHS
    ours, theirs = [], []
    for seed in seeds:
        if name == "art":
            reached, counts = fit_art(data, seed)
        else:
            method = st.methods.create(name, sparsity=SPARSITY, total_steps=steps)
            reached, counts = fit(data, method, seed)
        static = st.methods.static(masks=random_masks(counts, seed))
        ours.append(reached)
        theirs.append(fit(data, static, seed)[0])
    return ours, theirs, math.sqrt((stdev(ours) ** 2 + stdev(theirs) ** 2) / len(seeds))


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNERS)
def test_chosen_places_beat_random_ones_with_the_same_counts(name: str) -> None:
    ours, theirs, error = compare(load("digits"), name, range(3))
    assert mean(ours) - mean(theirs) > error, (ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["snip", "grasp", "synflow", "smart_ratio", "random"])
def test_masks_before_training_train_and_end_exact(name: str) -> None:
    # Accuracy is no gate; `pytest -m slow --log-cli-level=INFO` shows it.
    data = load("digits")
    x, y = images(data, "train")
    score = {"snip": saliency.snip, "grasp": saliency.grasp, "synflow": saliency.synflow}
    reached = []
    for seed in range(3):
        model, optimizer = start(seed, convnet)
        method: st.Method = st.methods.static(0.9)
        if name == "smart_ratio":
            method = st.methods.static(0.9, distribution="smart_ratio")
        if name in score:
            parts = [(x[index], y[index]) for index in list(batches(x))[:4]]
            masks = score[name](model, F.cross_entropy, parts, 0.9)
            method = st.methods.static(0.9, masks=masks)
        sparsifier = st.Sparsifier(model, optimizer, method, seed=seed)
        for _ in range(3):
            epoch(model, optimizer, x, y, None)
        counts = st.masks.count_active(sparsifier.masks)
        total = st.masks.total(sparsifier.masks)
        assert sum(counts.values()) == st.masks.kept(total, 0.9)
        for n, p in st.select(model).items():
            assert not p[~sparsifier.masks[n]].any()
        model.eval()
        reached.append(accuracy(model, *images(data, "test")))
    _log.info("%s: test accuracy %s", name, ", ".join(f"{value:.4f}" for value in reached))
