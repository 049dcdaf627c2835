"""Growth in units that have no weight left: why it is refused on request, and that it is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain.types import View
from tests.oracles.cases import bits, grid, regrow

SHAPE = (6, 2, 3)
FRACTION = 0.6


def view(seed: int, active: float) -> tuple[View, dict[str, Tensor]]:
    """Few values, so that many tie; whole rows are empty, and one layer is nearly full."""
    generator = torch.Generator().manual_seed(seed)
    masks = {"a": torch.rand(SHAPE, generator=generator) < active}
    masks["a"][:2] = False
    masks["b"] = torch.ones(3, 4, dtype=torch.bool)
    masks["b"][2] = False
    draw = {n: torch.randint(1, 5, m.shape, generator=generator) * 0.5 for n, m in masks.items()}
    grads = {n: torch.randint(-4, 5, m.shape, generator=generator) * 0.5 for n, m in masks.items()}
    weights = {n: draw[n] * masks[n] for n in masks}
    return View(1, weights, grads, {}, generator), masks


def by_hand(weight: Tensor, grad: Tensor, mask: Tensor) -> list[bool]:
    """The mask after one update, place by place."""
    w, g, m = (t.flatten().numpy() for t in (weight, grad, mask))
    row = np.arange(len(m)) // int(np.prod(weight.shape[1:]))
    active = [i for i in range(len(m)) if m[i]]
    going = sorted(active, key=lambda i: (abs(w[i]), -i))[: int(np.ceil(FRACTION * len(active)))]
    left = set(active) - set(going)
    alive = {row[i] for i in left}
    free = [i for i in range(len(m)) if i not in left]
    coming = sorted(free, key=lambda i: (row[i] not in alive, -abs(g[i]), i))[: len(going)]
    return [i in left or i in coming for i in range(len(m))]


@pytest.mark.parametrize("seed", range(20))
def test_units_without_a_weight_are_grown_last(seed: int) -> None:
    seen, masks = view(seed, active=0.2 + 0.04 * seed)
    new, _ = regrow(FRACTION, revive=False).update(seen, masks, {})
    for name, mask in masks.items():
        wanted = by_hand(seen.weights[name], seen.grads[name], mask)
        assert new[name].flatten().tolist() == wanted, name


@pytest.mark.parametrize("growth", ["gradient", "random", "momentum", "random-unfired"])
def test_every_growth_rule_leaves_dead_units_alone(growth: str) -> None:
    torch.manual_seed(0)
    weights = {"w": torch.randn(8, 5, 3, 3)}
    masks = {"w": torch.rand(8, 5, 3, 3) < 0.2}
    masks["w"][3:] = False
    grads = {"w": torch.randn(8, 5, 3, 3)}
    grads["w"][3:] *= 1000  # what a batch norm makes of them
    seen = View(1, {"w": weights["w"] * masks["w"]}, grads, {}, torch.Generator())
    for revive in (True, False):
        method = st.methods.snfs(
            0.9,
            10,
            growth=growth,  # type: ignore[arg-type]
            redistribution="none",
            masks=masks,
            revive=revive,
        )
        memory = method.observe(seen, method._regrow.memory(masks))
        new, _ = method.update(seen, masks, memory)
        assert new["w"].sum() == masks["w"].sum()
        assert bool(new["w"][3:].any()) == revive


def test_a_layer_whose_last_weights_are_dropped_is_grown_all_the_same() -> None:
    seen, masks = view(0, active=0.5)
    method = regrow(1.0, revive=False)
    new, _ = method.update(seen, masks, {})
    assert st.masks.count_active(new) == st.masks.count_active(masks)


def test_what_the_drop_leaves_empty_is_dead_too() -> None:
    # The drop takes the last weights of the second and third row, which have the largest gradients.
    masks = {"w": grid([1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1]) != 0}
    weights = {"w": grid([0.9, 0.8, 0, 0, 0.7, 0, 0, 0, 0, 0, 0, 0.6])}
    grads = {"w": grid([0, 0, 1, 2, 0, 9, 8, 7, 3, 4, 5, 0])}
    seen = View(1, weights, grads, {}, torch.Generator())
    assert bits(regrow(0.5).update(seen, masks, {})[0]["w"]) == "110001100000"
    assert bits(regrow(0.5, revive=False).update(seen, masks, {})[0]["w"]) == "111100000000"


def test_behind_a_batch_norm_a_dead_channel_s_gradient_is_hundreds_of_times_as_large() -> None:
    # The reason: its output has no deviation, so the norm divides by sqrt(eps) = 1/316 instead.
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)
    with torch.no_grad():
        conv.weight[:3] = 0
    x, y = torch.randn(32, 4, 8, 8), torch.randn(32, 6, 6, 6)
    (norm(conv(x)) * y).sum().backward()
    assert conv.weight.grad is not None
    dead, live = conv.weight.grad.abs().mean((1, 2, 3)).split(3)
    deviation = conv(x)[:, 3:].detach().std()
    assert float(dead.mean() / live.mean()) > float(deviation) / norm.eps**0.5 > 150


def test_whole_channels_and_published_ties_cannot_be_had_without_revival() -> None:
    with pytest.raises(ValueError, match="revive=False with pattern='channel' makes no sense"):
        st.methods.rigl(0.5, 100, pattern="channel", revive=False)
    for make in (st.methods.itop, st.methods.granet):
        with pytest.raises(ValueError, match=r"no rule for .*'gradient without revival'"):
            make(0.5, 100, compat="paper", revive=False)
