"""Drop and grow: the published cases, and where ours differ by the rules of counting."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain.types import View
from tests.nets import kept
from tests.oracles.cases import A, B, G, V, W, bits, grid, moved, regrow


@pytest.mark.parametrize(("fraction", "mask"), [(0.5, "111010100111"), (0.3, "111010101011")])
def test_neuroregeneration_gives_the_published_masks(fraction: float, mask: str) -> None:
    assert moved(regrow(fraction)) == mask


@pytest.mark.parametrize(
    ("drop", "left"),
    [("magnitude", "110010000001"), ("set", "110010000001"), ("taylor", "011010001000")],
)
def test_drop_criteria_leave_the_published_weights(drop: str, left: str) -> None:
    # A gradient that falls from left to right regrows the first four places that are free.
    falling = [12.0 - i for i in range(12)]
    masks = {"w": grid(W) != 0}
    view = View(1, {"w": grid(W)}, {"w": grid(G)}, {}, torch.Generator())
    score = {"magnitude": "magnitude", "set": "sign_aware", "taylor": "taylor"}[drop]
    dropped = st.masks.drop(masks, getattr(st.criteria, score)(view), {"w": 4})["w"]
    assert bits(dropped) == left
    if drop != "taylor":  # taylor reads the gradient for dropping, too
        free = [i for i in range(12) if left[i] == "0"][:4]
        wanted = "".join("1" if i in free else left[i] for i in range(12))
        assert moved(regrow(0.5, drop=drop), grads=falling) == wanted


def test_a_zero_gradient_loses_no_weight() -> None:
    # The published code ends with 6 of 8 (111110000001): growth picks active places there.
    assert moved(regrow(0.5), grads=[0.0] * 12) == "111111100001"


def test_ties_drop_exactly_half_from_the_back() -> None:
    # The published threshold drops all eight and regrows by gradient: 011011101110. Here four go,
    # the higher indices 4, 8, 9, 11, and 10, 6, 9, 5 come by gradient.
    tied = [0.5 if w else 0.0 for w in W]
    assert moved(regrow(0.5), weights=tied) == "111101100110"


def test_one_step_of_sgd_and_itop_gives_the_published_tensors() -> None:
    layer = nn.Linear(4, 3, bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    method = st.methods.itop(sparsity=1 / 3, total_steps=10, update_every=1)
    assert method.fraction(1) == pytest.approx(0.487886, abs=1e-6)
    sparsifier = st.Sparsifier(layer, optimizer, method)
    sparsifier.load_state_dict(sparsifier.state_dict() | {"masks": {"weight": grid(W) != 0}})
    with torch.no_grad():
        layer.weight.copy_(grid(W))
    optimizer.state[layer.weight]["momentum_buffer"] = grid(V)
    layer.weight.grad = grid(G)
    optimizer.step()
    assert bits(sparsifier.masks["weight"]) == "111010100111"
    w = [0.845, -0.811, 0.523, 0, 0.706, 0, 0, 0, 0, 0.228, 0, -0.656]
    v = [0.55, 0.11, -4.73, 0, -0.06, 0, 0, 0, 0, -0.78, 0, 0.56]
    torch.testing.assert_close(layer.weight.detach(), grid(w))
    torch.testing.assert_close(optimizer.state[layer.weight]["momentum_buffer"], grid(v))


def test_paper_compatibility_repeats_the_published_ties_and_losses() -> None:
    def paper(weights: list[float], grads: list[float], fraction: float) -> str:
        method = st.methods.granet(0.5, 10, stop=0, drop_fraction=fraction, compat="paper")
        masks = {"w": grid(weights) != 0}
        view = View(0, {"w": grid(weights)}, {"w": grid(grads)}, {}, torch.Generator())
        return bits(method.update(view, masks, {})[0]["w"])

    assert paper(W, G, 0.5) == "111010100111"
    assert paper(W, G, 0.3) == "111010101011"
    assert paper(W, [0.0] * 12, 0.5) == "111110000001"
    assert paper([0.5 if w else 0.0 for w in W], G, 0.5) == "011011101110"


def test_rigl_anneals_to_nothing_at_its_stop() -> None:
    method = st.methods.rigl(sparsity=0.9, total_steps=1000)
    assert [method.fraction(step) for step in (0, 750)] == [0.3, 0.0]
    assert method.fraction(375) == pytest.approx(0.15)
    assert [step for step in range(1001) if method.when(step)] == list(range(0, 751, 50))


def test_the_classifier_rule_holds_the_head_at_twenty_percent() -> None:
    # Published (feature, classifier) counts of a 10x10 and a 5x10 layer over ten updates; theirs
    # round down layer by layer, ours are exact in total, so each may hold one more.
    published = [(75, 37), (56, 28), (40, 20), (29, 14), (21, 10), (13, 10), (8, 10), (6, 10)]
    published += [(5, 10), (4, 10)]
    weights = {"feature": torch.rand(10, 10), "classifier": torch.rand(5, 10)}
    method = st.methods.gmp(0.9, 10, stop=10, scope="layer", classifier_sparsity=0.8)
    masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in weights.items()}
    for step, theirs in enumerate(published, start=1):
        view = View(step, weights, {}, {}, torch.Generator())
        masks, _ = method.update(view, masks, {})
        ours = tuple(st.masks.count_active(masks).values())
        assert sum(ours) == st.masks.kept(150, method.sparsity_at(step))
        assert all(0 <= a - b <= 1 for a, b in zip(ours, theirs, strict=True)), (step, ours)
    assert ours == (5, 10)


def test_pruning_and_growing_half_gives_the_published_masks_of_two_layers() -> None:
    weights = {"a": grid(A), "b": torch.tensor(B)}
    grads = {"a": grid(G), "b": torch.tensor([1, -2, 0.5, 0.1, 0.2, 0.3])}
    masks = {n: w != 0 for n, w in weights.items()}
    view = View(1, weights, grads, {}, torch.Generator())
    grown, _ = regrow(0.5).update(view, masks, {})
    assert (bits(grown["a"]), bits(grown["b"])) == ("111010100111", "111011")


def test_given_masks_are_the_start_and_their_count_is_checked() -> None:
    model = nn.ModuleList([nn.Linear(4, 3, bias=False), nn.Linear(6, 1, bias=False)])
    with torch.no_grad():
        for p, values in zip(model.parameters(), (A, B), strict=True):
            p.copy_(torch.tensor(values).view_as(p))
    masks = st.prune(model, 0.667)
    # The published one-shot pruning of half of the 13 that are not zero: 6 are left.
    assert [bits(mask) for mask in masks.values()] == ["110010000001", "000011"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.rigl(0.667, 9, masks=masks))
    assert all(torch.equal(sparsifier.masks[n], mask) for n, mask in masks.items())
    sparsifier.finalize()
    with pytest.raises(ValueError, match=r"masks must hold 9 weights.* got 6 \(0.666667\)"):
        st.Sparsifier(model, optimizer, st.methods.granet(0.9, 9, masks=masks))


def test_paper_compatibility_of_gmp_leaves_the_published_survivors() -> None:
    # From dense to 95 %, in updates of 1000 steps, 28 of them and the last not made.
    densities = {1: 0.901806, 7: 0.450781, 14: 0.168750, 20: 0.072157, 27: 0.050043}
    method = st.methods.gmp(0.95, 28_000, update_every=1000, start=0, stop=28_000, compat="paper")
    weights = {"w": torch.randperm(10**6) + 1.0}
    dense = {"w": torch.ones(10**6, dtype=torch.bool)}
    for k, density in densities.items():
        view = View(k * 1000, weights, {}, {}, torch.Generator())
        assert method.when(view.step)
        left = kept(method.update(view, dense, {})[0])
        exact = 0.05 + 0.95 * (1 - k / 28) ** 3
        assert exact == pytest.approx(density, abs=1e-6)
        # Strictly above the K-th largest: one fewer than int(N d).
        assert left == int(10**6 * exact + 1e-6) - 1
        ours = st.methods.gmp(0.95, 28_000, update_every=1000, stop=28_000)
        assert kept(ours.update(view, dense, {})[0]) == st.masks.kept(
            10**6, ours.sparsity_at(view.step)
        )
    view = View(28_000, weights, {}, {}, torch.Generator())
    assert kept(method.update(view, dense, {})[0]) == 10**6


@pytest.mark.parametrize("compat", [None, "none", "paper"])
def test_itop_takes_the_published_ties_and_losses_on_request(compat: str | None) -> None:
    def moved_by(weights: list[float], grads: list[float]) -> str:
        method = st.methods.itop(4 / 12, 10**6, update_every=1, drop_fraction=0.5, compat=compat)  # type: ignore[arg-type]
        masks = {"w": grid(weights) != 0}
        view = View(0, {"w": grid(weights)}, {"w": grid(grads)}, {}, torch.Generator())
        return bits(method.update(view, masks, {})[0]["w"])

    tied = [0.5 if w else 0.0 for w in W]
    paper = compat == "paper"
    assert moved_by(W, G) == "111010100111"
    assert moved_by(W, [0.0] * 12) == ("111110000001" if paper else "111111100001")
    assert moved_by(tied, G) == ("011011101110" if paper else "111101100110")
    with pytest.raises(ValueError, match="compat must be one of None, 'none', 'paper'"):
        st.methods.itop(0.5, 10, compat="published")  # type: ignore[arg-type]
