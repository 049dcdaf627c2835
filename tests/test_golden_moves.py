"""The published one-update cases with values and momentum, and what other rules leave of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain.training.config import OptimConfig
from sparsetrain.training.device import Place
from sparsetrain.training.loop import train_epoch
from sparsetrain.training.schedule import rate
from sparsetrain.types import Criterion, View
from tests.oracles.cases import A, B, G, V, W, bits, grid, regrow


@pytest.mark.parametrize(
    ("fraction", "mask", "w", "v"),
    [
        (
            0.5,  # 2, 3, 8, 9 go, 2, 10, 6, 9 come: 2 and 9 keep value and momentum
            "111010100111",
            [0.9, -0.8, 0.05, 0, 0.7, 0, 0, 0, 0, 0.15, 0, -0.6],
            [0.5, -0.1, 0.3, 0, -0.4, 0, 0, 0, 0, -0.2, 0, 0.6],
        ),
        (
            0.3,  # 2, 3, 9 go, 2, 10, 6 come
            "111010101011",
            [0.9, -0.8, 0.05, 0, 0.7, 0, 0, 0, -0.3, 0, 0, -0.6],
            [0.5, -0.1, 0.3, 0, -0.4, 0, 0, 0, 0.1, 0, 0, 0.6],
        ),
    ],
)
def test_an_update_leaves_the_published_weights_and_momenta(
    fraction: float, mask: str, w: list[float], v: list[float]
) -> None:
    layer = nn.Linear(4, 3, bias=False)
    # With a rate of 0 and all momentum kept, the step itself only makes the buffer V.
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.0, momentum=1.0)
    method = st.methods.set(1 / 3, 9, update_every=1, drop_fraction=fraction, growth="gradient")
    sparsifier = st.Sparsifier(layer, optimizer, method)
    sparsifier.load_state_dict(sparsifier.state_dict() | {"masks": {"weight": grid(W) != 0}})
    with torch.no_grad():
        layer.weight.copy_(grid(W))
    optimizer.state[layer.weight]["momentum_buffer"] = grid(V) - grid(G)
    layer.weight.grad = grid(G)
    optimizer.step()
    assert bits(sparsifier.masks["weight"]) == mask
    torch.testing.assert_close(layer.weight.detach(), grid(w))
    torch.testing.assert_close(optimizer.state[layer.weight]["momentum_buffer"], grid(v))


def test_momentum_growth_on_the_masked_buffer_would_regrow_what_was_dropped() -> None:
    # Published: 110010000001 after the drop, 111110001101 after growth, the mask from before. The
    # rule is the same here; fed with the dense average, it reaches places outside the mask.
    method = st.methods.set(1 / 3, 9, drop_fraction=0.5, growth="momentum")
    view = View(1, {"w": grid(W)}, {"w": grid(G)}, {}, torch.Generator())
    masks = {"w": grid(W) != 0}
    assert bits(masks["w"]) == "111110001101"

    published, _ = method.update(view, masks, {"momentum": {"w": grid(V) * masks["w"]}})
    assert bits(published["w"]) == "111110001101"
    ours, _ = method.update(view, masks, method.observe(view, {}))
    assert bits(ours["w"]) == "111010100111"


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_one_shot_pruning_of_half_leaves_the_published_masks(scope: str) -> None:
    # 13 of the 18 are not zero; half of each layer's, or of all, leaves 4 and 2.
    model = nn.ModuleList([nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)])
    with torch.no_grad():
        for p, values in zip(model.parameters(), (A, B), strict=True):
            p.copy_(torch.tensor(values).view_as(p))
    masks = st.prune(model, 0.667, scope=scope)  # type: ignore[arg-type]
    assert [bits(mask) for mask in masks.values()] == ["110010000001", "000011"]


def published_drop(rule: str) -> np.ndarray:
    """What the published drop rules leave of W at a rate of one half: 4 of 8, or 2 of each sign.

    set, itop: keeps what is above the second-smallest positive and, of the negative ones, only
    those strictly below the second most negative. set, snfs: the 2 smallest |w| and the 2 most
    negative go. taylor: the 4 smallest (w g)^2 go.
    """
    w, g = np.array(W), np.array(G)
    size, negative = np.abs(w), np.sort(w[w < 0])
    if rule == "set, itop":
        return (w > np.sort(w[w > 0])[1]) | (w < negative[1])
    if rule == "set, snfs":
        return (size > np.sort(size[w != 0])[1]) & (w > negative[1])
    score = size if rule == "magnitude" else (w * g) ** 2
    return (score > np.sort(score[w != 0])[3]) & (w != 0)


@pytest.mark.parametrize(
    ("rule", "published", "criterion", "ours"),
    [
        ("magnitude", "110010000001", st.criteria.magnitude, "110010000001"),
        # Neither published rule by sign is SET's: they drop the strongest negative weights.
        ("set, itop", "110010000000", st.criteria.sign_aware, "110010000001"),
        ("set, snfs", "100010001100", st.criteria.sign_aware, "110010000001"),
        ("taylor", "011010001000", st.criteria.taylor, "011010001000"),
    ],
)
def test_the_drop_rules_against_the_published_ones(
    rule: str, published: str, criterion: Criterion, ours: str
) -> None:
    assert "".join(str(int(b)) for b in published_drop(rule)) == published
    view = View(1, {"w": grid(W)}, {"w": grid(G)}, {}, torch.Generator())
    left = st.masks.drop({"w": grid(W) != 0}, criterion(view), {"w": 4})
    assert bits(left["w"]) == ours


def test_one_update_has_tried_ten_of_twelve_places() -> None:
    masks = {"w": grid(W) != 0}
    view = View(1, {"w": grid(W)}, {"w": grid(G)}, {}, torch.Generator())
    after, _ = regrow(0.5).update(view, masks, {})
    union = masks["w"] | after["w"]
    assert bits(union) == "111110101111"
    assert union.float().mean().item() == pytest.approx(0.833333, abs=1e-6)


def test_after_its_last_update_gradual_pruning_changes_nothing() -> None:
    method = st.methods.gmp(0.9, 20, stop=10, update_every=1, scope="layer")
    assert [k for k in range(8, 14) if method.when(k)] == [8, 9, 10]


class Fixed(nn.Module):
    """The published logits, whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([[1, 2, 3], [0.5, -0.5, 0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits


@pytest.mark.parametrize(("smoothing", "loss"), [(0.1, 1.068938), (0.0, 1.043938)])
def test_label_smoothing_gives_the_published_loss(smoothing: float, loss: float) -> None:
    model, place = Fixed(), Place(torch.device("cpu"), bf16=False, channels_last=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = [(torch.zeros(2, 1), torch.tensor([2, 1]))]
    rest = {"place": place, "lr": lambda _: 0.0, "label_smoothing": smoothing}
    result = train_epoch(model, optimizer, batches, **rest)  # type: ignore[arg-type]
    assert result.loss == pytest.approx(loss, abs=6e-7)


def test_the_published_steps_of_the_learning_rate() -> None:
    optim = OptimConfig(lr=0.1, schedule="step", milestones=(0.3, 0.6, 0.9), lr_decay=0.1)
    for epoch, lr in {5: 0.1, 29: 0.1, 30: 0.01, 60: 0.001, 90: 0.0001}.items():
        assert rate(optim, epoch, 100) == pytest.approx(lr)
