"""Every published ERK density of the five GraNet networks, and what is exact in ours."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import pytest
import torch

import sparsetrain as st
from sparsetrain import distributions
from tests.test_distributions import resnet50

Shapes = dict[str, tuple[int, ...]]


def network(name: str, classes: int, **options: object) -> Shapes:
    """Shapes of one of our networks as `st.select` finds them; no memory is taken."""
    with torch.device("meta"):
        model = st.models.create(name, num_classes=classes, **options)
    return {n: tuple(p.shape) for n, p in st.select(model).items()}


def imagenet_resnet50() -> Shapes:
    """The 7x7 stem is the one difference in shapes from the CIFAR network but for the head."""
    return resnet50(1000) | {"conv1": (64, 3, 7, 7)}


SHAPES: dict[str, Shapes] = {
    "resnet50-c10": network("resnet50-cifar", 10),
    "resnet50-c100": network("resnet50-cifar", 100),
    "vgg19": network("vgg19", 10),
    "resnet20": network("resnet20", 10),
    "resnet50-imagenet": imagenet_resnet50(),
}


@dataclass(frozen=True)
class Line:
    """One line of the published table.

    Attributes:
        net: key of SHAPES.
        density: overall.
        epsilon: what (sum of shape) / (product of shape) is multiplied with.
        dense: how many layers are held at 1; None where the table names none.
        named: shape -> (how many layers have it, density of each).
        full: layer shapes that are at 1.
    """

    net: str
    density: float
    epsilon: float
    dense: int | None
    named: dict[tuple[int, ...], tuple[int, float]] = field(default_factory=dict)
    full: tuple[tuple[int, ...], ...] = ()


STEM, HEAD = (64, 3, 3, 3), (10, 2048)
TABLE = [
    Line("resnet50-c10", 0.5, 299.985042, 33, {
        (128, 128, 3, 3): (4, 0.533014), (256, 256, 3, 3): (6, 0.263455),
        (1024, 512, 1, 1): (1, 0.880007), (512, 1024, 1, 1): (1, 0.880007),
        (512, 512, 3, 3): (3, 0.130965), (2048, 512, 1, 1): (3, 0.732958),
        (512, 2048, 1, 1): (2, 0.732958), (2048, 1024, 1, 1): (1, 0.439717)}),
    Line("resnet50-c10", 0.2, 97.042752, 10),
    Line("resnet50-c10", 0.1, 47.296629, 3, {
        (64, 64, 3, 3): (3, 0.171922), (256, 64, 1, 1): (4, 0.929536),
        (64, 256, 1, 1): (2, 0.929536), (128, 256, 1, 1): (1, 0.557144),
        (128, 128, 3, 3): (4, 0.084037), (512, 128, 1, 1): (4, 0.463325),
        (128, 512, 1, 1): (3, 0.463325), (512, 256, 1, 1): (1, 0.277850),
        (256, 512, 1, 1): (1, 0.277850), (256, 256, 3, 3): (6, 0.041537),
        (1024, 256, 1, 1): (6, 0.231301), (256, 1024, 1, 1): (5, 0.231301),
        (1024, 512, 1, 1): (1, 0.138745), (512, 1024, 1, 1): (1, 0.138745),
        (512, 512, 3, 3): (3, 0.020648), (2048, 512, 1, 1): (3, 0.115560),
        (512, 2048, 1, 1): (2, 0.115560), (2048, 1024, 1, 1): (1, 0.069327)},
        (HEAD, STEM, (64, 64, 1, 1))),
    Line("resnet50-c10", 0.05, 23.402123, 1, {
        STEM: (1, 0.988631), (512, 512, 3, 3): (3, 0.010217)}, (HEAD,)),
    Line("resnet50-c10", 0.02, 9.145105, 0, {
        HEAD: (1, 0.918976), (512, 512, 3, 3): (3, 0.003992)}),
    Line("resnet50-c100", 0.5, 296.468290, None),
    Line("resnet50-c100", 0.1, 46.072626, None, {
        (100, 2048): (1, 0.483223), (512, 512, 3, 3): (3, 0.020114)}),
    Line("vgg19", 0.5, 991.003565, 6, {
        (256, 256, 3, 3): (3, 0.870327), (512, 256, 3, 3): (1, 0.650225),
        (512, 512, 3, 3): (7, 0.432643)}),
    Line("vgg19", 0.1, 189.655199, 2, {
        (64, 64, 3, 3): (1, 0.689393), (128, 64, 3, 3): (1, 0.509328),
        (128, 128, 3, 3): (1, 0.336980), (256, 128, 3, 3): (1, 0.250805),
        (256, 256, 3, 3): (3, 0.166561), (512, 256, 3, 3): (1, 0.124438),
        (512, 512, 3, 3): (7, 0.082798)}, ((10, 512), STEM)),
    Line("vgg19", 0.05, 94.502186, None),
    Line("vgg19", 0.02, 37.410378, None),
    Line("resnet20", 0.5, 101.055258, 11, {
        (32, 32, 3, 3): (5, 0.767564), (64, 32, 3, 3): (1, 0.559225),
        (64, 64, 3, 3): (5, 0.367334)}),
    Line("resnet20", 0.1, 16.985986, 2, {
        (16, 3, 3, 3): (1, 0.982985), (16, 16, 3, 3): (6, 0.280151),
        (32, 16, 3, 3): (1, 0.199055), (32, 32, 3, 3): (5, 0.129017),
        (64, 32, 3, 3): (1, 0.093998), (64, 64, 3, 3): (5, 0.061744),
        (64, 32, 1, 1): (1, 0.812806)}, ((10, 64), (32, 16, 1, 1))),
    Line("resnet50-imagenet", 0.5, 303.951870, 32, {
        (128, 128, 3, 3): (4, 0.540062), (256, 256, 3, 3): (6, 0.266939),
        (1024, 512, 1, 1): (1, 0.891643), (512, 512, 3, 3): (3, 0.132697),
        (2048, 512, 1, 1): (3, 0.742650), (2048, 1024, 1, 1): (1, 0.445532),
        (1000, 2048): (1, 0.452366)}),
    Line("resnet50-imagenet", 0.2, 99.561173, 8, {
        (64, 3, 7, 7): (1, 0.857191), (64, 64, 3, 3): (3, 0.361903),
        (512, 128, 1, 1): (4, 0.975315), (512, 512, 3, 3): (3, 0.043466),
        (1000, 2048): (1, 0.148175)}),
    Line("resnet50-imagenet", 0.1, 48.786097, 1, {
        (64, 3, 7, 7): (1, 0.420033), (256, 64, 1, 1): (4, 0.958809),
        (512, 512, 3, 3): (3, 0.021299), (2048, 512, 1, 1): (3, 0.119200),
        (1000, 2048): (1, 0.072607)}, ((64, 64, 1, 1),)),
    Line("resnet50-imagenet", 0.05, 24.371583, 0, {
        (64, 3, 7, 7): (1, 0.209832), (1000, 2048): (1, 0.036272)}),
]  # fmt: skip
IDS = [f"{line.net}-{line.density}" for line in TABLE]


def test_the_networks_have_the_published_number_of_weights() -> None:
    sizes = {name: sum(map(math.prod, shapes.values())) for name, shapes in SHAPES.items()}
    assert sizes == {
        "resnet50-c10": 23_467_712,
        "resnet50-c100": 23_652_032,
        "vgg19": 20_024_000,
        "resnet20": 270_896,
        "resnet50-imagenet": 25_502_912,
    }


@pytest.mark.parametrize("line", TABLE, ids=IDS)
def test_erk_densities_are_the_published_ones(line: Line) -> None:
    shapes = SHAPES[line.net]
    densities = distributions.erk_densities(shapes, 1 - line.density)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    held = [name for name in shapes if densities[name] == 1]

    overall = sum(densities[n] * sizes[n] for n in shapes) / sum(sizes.values())
    assert overall == pytest.approx(line.density, abs=1e-14)
    for name in shapes.keys() - held:
        assert densities[name] * sizes[name] / sum(shapes[name]) == pytest.approx(
            line.epsilon, abs=1e-6
        )
    if line.dense is not None:
        assert len(held) == line.dense
    assert Counter(shapes[n] for n in held) >= Counter(line.full)
    for shape, (count, density) in line.named.items():
        found = [densities[n] for n in shapes if shapes[n] == shape]
        assert found == pytest.approx([density] * count, abs=6e-7), shape


@pytest.mark.parametrize("line", TABLE, ids=IDS)
def test_the_counts_are_those_densities_and_exact_in_total(line: Line) -> None:
    # Published masks are one coin toss a weight, so their counts are random: .500019 for .5.
    shapes = SHAPES[line.net]
    counts = distributions.erk(shapes, 1 - line.density)
    densities = distributions.erk_densities(shapes, 1 - line.density)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    assert sum(counts.values()) == st.masks.kept(sum(sizes.values()), 1 - line.density)
    assert all(abs(counts[n] - densities[n] * sizes[n]) < 1 for n in shapes)
