"""Scores against autograd, finite differences and closed forms; nothing of the network moves."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain import saliency
from tests.nets import batch, convnet, kept, mlp

SCORERS = {"snip": saliency.snip, "grasp": saliency.grasp, "synflow": saliency.synflow}


def images(n: int = 8, *, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 1, 5, 5, generator=generator)
    y = torch.randint(0, 3, (n,), generator=generator)
    return [(x[: n // 2], y[: n // 2]), (x[n // 2 :], y[n // 2 :])]


def two_halves(dtype: torch.dtype = torch.float32) -> list[tuple[Tensor, Tensor]]:
    return [batch(seed=0, dtype=dtype), batch(seed=1, dtype=dtype)]


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("sparsity", [0.0, 0.29, 0.9, 0.99])
def test_exactly_the_kept_count_is_left(name: str, sparsity: float) -> None:
    model = convnet()
    total = sum(p.numel() for p in st.select(model).values())
    masks = SCORERS[name](model, F.cross_entropy, images(), sparsity)
    assert kept(masks) == st.masks.kept(total, sparsity)
    assert list(masks) == list(st.select(model))


@pytest.mark.parametrize("name", SCORERS)
def test_scoring_leaves_no_trace_on_the_network(name: str) -> None:
    model = nn.Sequential(convnet(), nn.Dropout(0.5))
    model[0][1].eval()
    F.cross_entropy(model(images()[0][0]), images()[0][1]).backward()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    flags = [m.training for m in model.modules()]
    needs = [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()
    with torch.no_grad():  # as a caller may have it
        SCORERS[name](model, F.cross_entropy, images(), 0.5)
    for n, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[n]), n
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), grads, strict=True))
    assert [m.training for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == needs
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_a_loss_that_raises_leaves_the_flags_as_they_were(name: str) -> None:
    model = convnet().eval()

    def broken(*_: Any) -> Tensor:
        raise RuntimeError("no loss")

    with pytest.raises(RuntimeError, match="no loss"):
        SCORERS[name](model, broken, images(), 0.5)
    assert not any(m.training for m in model.modules())


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_snip_is_the_weight_times_the_summed_gradient(mode: Any) -> None:
    model, twin = convnet(), convnet()
    twin.train(mode == "train")
    for x, y in images():
        F.cross_entropy(twin(x), y).backward()
    scores = saliency.snip_scores(model, F.cross_entropy, images(), mode=mode)
    for name, p in st.select(twin).items():
        assert p.grad is not None
        torch.testing.assert_close(scores[name], (p * p.grad).abs().detach())


def test_snip_is_the_gradient_of_a_gate_on_each_weight() -> None:
    model = mlp(dtype=torch.float64)
    own = {n: p.detach() for n, p in model.named_parameters()}
    gates = {n: torch.ones_like(own[n]).requires_grad_() for n in st.select(model)}
    gated = {n: own[n] * gates[n] if n in gates else own[n] for n in own}
    halves = two_halves(torch.float64)
    loss = sum(F.cross_entropy(functional_call(model, gated, (x,)), y) for x, y in halves)
    found = torch.autograd.grad(loss, list(gates.values()))  # type: ignore[arg-type]
    scores = saliency.snip_scores(model, F.cross_entropy, two_halves(torch.float64))
    for name, g in zip(gates, found, strict=True):
        torch.testing.assert_close(scores[name], g.abs())


@pytest.mark.parametrize("name", ["snip", "grasp"])
def test_masks_do_not_depend_on_the_scale_of_the_loss_or_on_sum_against_mean(name: str) -> None:
    model = mlp(dtype=torch.float64)
    halves = two_halves(torch.float64)

    def summed(out: Tensor, y: Tensor) -> Tensor:
        return 1024 * F.cross_entropy(out, y, reduction="sum")  # 16 images: 2^14 times the mean

    mean = SCORERS[name](model, F.cross_entropy, halves, 0.8)
    scaled = SCORERS[name](model, summed, halves, 0.8)
    assert all(torch.equal(mean[n], scaled[n]) for n in mean)


def test_grasp_is_the_weight_times_hg_by_finite_differences() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    halves, selected = two_halves(torch.float64), st.select(model)

    def gradient() -> list[Tensor]:
        loss = sum(F.cross_entropy(model(x) / 2.0, y) for x, y in halves)
        return list(torch.autograd.grad(loss, list(selected.values())))  # type: ignore[arg-type]

    scores = saliency.grasp_scores(model, F.cross_entropy, halves, temperature=2.0)
    start, g, eps = [p.detach().clone() for p in selected.values()], gradient(), 1e-5
    shifted = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, w, d in zip(selected.values(), start, g, strict=True):
                p.copy_(w + sign * eps * d)
        shifted.append(gradient())
    for name, w, plus, minus in zip(selected, start, *shifted, strict=True):
        torch.testing.assert_close(
            scores[name], w * (plus - minus) / (2 * eps), atol=1e-9, rtol=1e-6
        )


def test_temperature_orders_differently_until_it_is_large() -> None:
    model, halves = mlp(dtype=torch.float64), two_halves(torch.float64)
    kept_at = {
        t: saliency.grasp(model, F.cross_entropy, halves, 0.5, temperature=t)
        for t in (1.0, 200.0, 1e4, 2e4)
    }

    def shared(a: float, b: float) -> float:
        both = sum(int((kept_at[a][n] & kept_at[b][n]).sum()) for n in kept_at[a])
        return both / kept(kept_at[a])

    assert shared(1e4, 2e4) > 0.99
    assert shared(200.0, 1e4) > 0.95
    assert shared(1.0, 200.0) < 0.95


class _Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.5, -2.0]], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * x


def test_on_a_quadratic_no_weight_is_worth_removing() -> None:
    h = torch.tensor([[3.0, 0.5]], dtype=torch.float64)
    model = _Scalar()

    def loss(out: Tensor, _: None) -> Tensor:
        return (h * out**2).sum() / 2

    x = torch.ones(1, 2, dtype=torch.float64)
    scores = saliency.grasp_scores(model, loss, [(x, None)], temperature=1.0)
    # g = h w and H g = h^2 w, so w (H g) = h^2 w^2: kept first where it is large.
    torch.testing.assert_close(scores["weight"], h**2 * model.weight.detach() ** 2)
    assert saliency.grasp(model, loss, [(x, None)], 0.5)["weight"].tolist() == [[True, False]]


def test_grasp_works_through_fused_attention_and_recurrence() -> None:
    torch.manual_seed(0)

    class Sequence(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
            self.lstm = nn.LSTM(8, 6, batch_first=True)
            self.head = nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(self.attention(x))[0][:, -1])

    model, data = Sequence(), [(torch.randn(4, 5, 8), torch.tensor([0, 1, 2, 0]))]
    for name, scorer in SCORERS.items():
        masks = scorer(model, F.cross_entropy, data, 0.9)
        total = sum(m.numel() for m in masks.values())
        assert kept(masks) == st.masks.kept(total, 0.9), name
    scores = saliency.grasp_scores(model, F.cross_entropy, data)
    assert all(bool(s.any()) for s in scores.values())


def bias_free() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Conv2d(4, 6, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 25, 3, bias=False),
    )


def test_synflow_conserves_the_flow_through_every_layer() -> None:
    model = bias_free()
    scores = saliency.synflow_scores(model, images())
    twin = bias_free().double()
    with torch.no_grad():
        for p in twin.parameters():
            p.abs_()
        flow = twin(torch.ones(1, 1, 5, 5, dtype=torch.float64)).sum()
    assert all(s.dtype == torch.float64 for s in scores.values())
    for s in scores.values():
        torch.testing.assert_close(s.sum(), flow, rtol=1e-12, atol=0)


def test_synflow_takes_the_shape_of_the_data_and_nothing_else() -> None:
    model, other = convnet(), [(torch.full((3, 1, 5, 5), torch.nan), None)]
    masks = saliency.synflow(model, F.cross_entropy, images(), 0.9)
    again = saliency.synflow(model, None, other, 0.9)
    assert all(torch.equal(masks[n], again[n]) for n in masks)


def narrow() -> nn.Sequential:
    """A wide layer before a narrow one: scored once, the wide layer's weights lose."""
    torch.manual_seed(0)
    sizes = [20, 100, 100, 4, 100, 10]
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes)))


def test_synflow_empties_no_layer_before_the_critical_compression() -> None:
    model = narrow()
    total = sum(p.numel() for p in model.parameters())
    sparsity = 1 - 40 / total  # five layers, eight weights each would do
    data = [(torch.randn(8, 20), torch.randint(0, 10, (8,)))]
    masks = saliency.synflow(model, None, data, round(sparsity, 4))
    assert all(bool(m.any()) for m in masks.values())
    # One scoring loses whole layers at the same sparsity: the reason for the rounds.
    once = saliency.synflow(model, None, data, round(sparsity, 4), rounds=1)
    assert not all(bool(m.any()) for m in once.values())


def test_synflow_rounds_are_nested_and_follow_the_exponential_schedule() -> None:
    model, counts, masks = bias_free(), [], []
    original = st.masks.keep_global

    def watched(scores: Any, count: int) -> Any:
        counts.append(count)
        masks.append(original(scores, count))
        return masks[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(st.masks, "keep_global", watched)
        saliency.synflow(model, None, images(), 0.9, rounds=10)
    total = sum(p.numel() for p in model.parameters())
    wanted = [total * 0.1 ** (i / 10) for i in range(1, 11)]
    assert counts == pytest.approx(wanted, abs=1)
    for outer, inner in pairwise(masks):
        assert all(not (inner[n] & ~outer[n]).any() for n in inner)


def test_synflow_does_not_overflow_where_float32_would() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(16, 16, bias=False) for _ in range(30)))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(100)
    scores = saliency.synflow_scores(model, [(torch.zeros(2, 16), None)])
    assert float(next(iter(scores.values())).sum()) > torch.finfo(torch.float32).max
    assert all(bool(s.isfinite().all()) for s in scores.values())


@pytest.mark.parametrize("name", SCORERS)
def test_masks_train_under_static_and_selection_is_honoured(name: str) -> None:
    model = convnet()
    masks = SCORERS[name](model, F.cross_entropy, images(), 0.5, exclude=["5.*"])
    assert list(masks) == ["0.weight"]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with st.Sparsifier(model, optimizer, st.methods.static(masks=masks), include=list(masks)):
        F.cross_entropy(model(images()[0][0]), images()[0][1]).backward()
        optimizer.step()
    assert not model[0].weight[~masks["0.weight"]].any()


class _Tied(nn.Module):
    """One matrix used twice, under two names."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).tanh())


def test_a_tied_weight_is_scored_once_with_both_its_gradients() -> None:
    model = _Tied()
    F.cross_entropy(model(batch()[0]), batch()[1]).backward()
    weight = model.first.weight
    assert weight.grad is not None
    scores = saliency.snip_scores(model, F.cross_entropy, [batch()])
    assert list(scores) == ["first.weight"]
    torch.testing.assert_close(scores["first.weight"], (weight * weight.grad).abs().detach())


def test_names_are_those_of_the_network_inside_a_wrapper() -> None:
    plain = saliency.snip(mlp(), F.cross_entropy, two_halves(), 0.9)
    wrapped = saliency.snip(nn.DataParallel(mlp()), F.cross_entropy, two_halves(), 0.9)
    assert all(torch.equal(plain[n], wrapped[n]) for n in plain)
    assert list(plain) == list(wrapped)


def test_a_layer_that_was_emptied_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    model = mlp()
    with torch.no_grad():
        model[2].weight.mul_(1e-9)
    with caplog.at_level(logging.WARNING, "sparsetrain"):
        saliency.snip(model, F.cross_entropy, two_halves(), 0.95)
    assert "2.weight; the network is cut there" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparsity": 90}, "Did you mean 0.9"),
        ({"batches": []}, "batches is empty"),
        ({"batches": two_halves()[0]}, "single one is"),
        ({"mode": "test"}, "mode must be"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"loss_fn": lambda out, _: out}, "0-d loss"),
        ({"include": "fc*"}, "no prunable weight"),
    ],
)
def test_bad_input_raises_one_sentence(arguments: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {
        "loss_fn": F.cross_entropy,
        "batches": two_halves(),
        "sparsity": 0.5,
    }
    with pytest.raises(ValueError, match=message):
        saliency.grasp(mlp(), **{**settings, **arguments})


def test_zero_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds must be an int of at least 1"):
        saliency.synflow(mlp(), None, two_halves(), 0.5, rounds=0)
