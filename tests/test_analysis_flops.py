"""Operations: hooks against torch's counter and by hand, and the ledger against papers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import sparsetrain as st
from sparsetrain import analysis
from sparsetrain.distributions import erk_densities

LAYERS = {
    "conv": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2),
    "linear": nn.Linear(8, 5),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_costs_what_torch_s_counter_says(name):
    net = nn.Sequential(LAYERS[name])
    image = torch.zeros(1, 4, 8, 8)
    with FlopCounterMode(display=False) as counter:
        net(image)
    found = analysis.count_forward(net, image)
    assert found.layers["0.weight"] == found.total == counter.get_total_flops() > 0


def test_a_convolution_by_hand():
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1))
    found = analysis.count_forward(net, torch.zeros(1, 3, 32, 32))
    assert found.layers["0.weight"] == 2 * (16 * 3 * 9) * 32 * 32


def test_a_layer_called_twice_counts_twice_and_the_model_keeps_no_hook():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return self.fc(self.fc(x))

    net = Twice().train()
    found = analysis.count_forward(net, torch.zeros(1, 8))
    assert found.layers["fc.weight"] == found.total == 2 * 2 * 64
    assert not net.fc._forward_hooks
    assert net.training


@pytest.mark.parametrize("name", ["resnet8", "lenet5", "vgg11"])
def test_the_layers_of_a_network_make_its_total(name):
    net = st.models.create(name, num_classes=10, in_channels=3, image_size=32)
    found = analysis.count_forward(net, torch.zeros(1, 3, 32, 32))
    assert sum(found.layers.values()) == found.total


def resnet50() -> tuple[dict[str, tuple[int, ...]], np.ndarray]:
    """Shapes of ResNet-50's weights on ImageNet, and the positions each is used at."""
    shapes: dict[str, tuple[int, ...]] = {"stem": (64, 3, 7, 7)}
    positions = [112 * 112]
    width_in = 64
    for stage, (blocks, width, size) in enumerate(
        [(3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)]
    ):
        for block in range(blocks):
            before = size * 2 if stage and block == 0 else size
            name = f"{stage}.{block}"
            shapes[f"{name}.1"] = (width, width_in, 1, 1)
            shapes[f"{name}.2"] = (width, width, 3, 3)  # here the stride is, as in torchvision
            shapes[f"{name}.3"] = (4 * width, width, 1, 1)
            positions += [before**2, size**2, size**2]
            if block == 0:
                shapes[f"{name}.down"] = (4 * width, width_in, 1, 1)
                positions.append(size**2)
            width_in = 4 * width
    shapes["fc"] = (1000, 2048)
    return shapes, np.array([*positions, 1])


@pytest.mark.parametrize(("sparsity", "published"), [(0.8, 0.42), (0.9, 0.24)])
def test_resnet50_under_erk_costs_what_rigl_published(sparsity, published):
    """Evci et al. 2020, table 2: 8.2e9 dense; 0.42 of it at 80 %, 0.24 (0.25 trained) at 90 %."""
    shapes, positions = resnet50()
    weights = np.array([np.prod(shape) for shape in shapes.values()])
    flops = 2 * weights * positions
    assert flops.sum() == pytest.approx(8.2e9, rel=0.01)
    densities = np.array(list(erk_densities(shapes, sparsity).values()))
    assert (densities * flops).sum() / flops.sum() == pytest.approx(published, abs=0.01)
    ledger = analysis.training_ledger(
        densities[None],
        flops.astype(float),
        total=flops.sum(),
        images=1,
        read=(1 - densities[None]) / 101,
    )
    assert ledger.total / ledger.dense == pytest.approx(published, abs=0.015)


def test_a_dense_gradient_every_so_many_steps_costs_rigl_s_formula():
    dense, density, every = 1000.0, 0.2, 9
    sparse = density * dense
    ledger = analysis.training_ledger(
        np.array([[density]]),
        np.array([dense]),
        total=dense,
        images=1,
        read=np.array([[(1 - density) / (every + 1)]]),
    )
    formula = (3 * sparse * every + 2 * sparse + dense) / (every + 1)
    assert ledger.total == pytest.approx(formula)


def test_moving_sparsity_is_integrated_and_the_rest_stays_dense():
    ledger = analysis.training_ledger(
        np.array([[0.75], [0.25]]),
        np.array([100.0]),
        total=110.0,
        images=2,
    )
    assert ledger.layers[:, 0].tolist() == [3 * 2 * 75, 3 * 2 * 25]
    assert ledger.others.tolist() == [60, 60]
    assert ledger.dense == 3 * 110 * 2 * 2
    assert ledger.total == ledger.sparse == 600 + 120


def test_densities_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"got \(2, 3\), \(2, 3\) and \(2,\)\."):
        densities = np.ones((2, 3))
        analysis.training_ledger(densities, np.ones(2), total=2, images=1)
