"""Iterative pruning: the published rounds, nested exact masks, rewinding and resume to the bit."""

from __future__ import annotations

import copy
import io
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as hs
from torch import nn
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain.imp import IMP
from sparsetrain.imp_rule import ImpRule, ImpState, transition
from tests.nets import convnet, kept, mlp, train

STEPS = 3  # an epoch


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def imp_on(model: nn.Module, optimizer: torch.optim.Optimizer, **changes: Any) -> IMP:
    return IMP(model, optimizer, **{"sparsity": 0.9, "epochs_per_round": 1, **changes})


def epochs(imp: IMP, model: nn.Module, optimizer: Any, count: int, *, start: int = 0) -> None:
    for epoch in range(start, start + count):
        train(model, optimizer, STEPS, start=STEPS * epoch)
        imp.epoch_end()


@pytest.mark.parametrize(
    ("sparsity", "rounds"),
    [(0.9, 11), (0.95, 14), (0.98, 18), (0.99, 21), (0.995, 24), (0.998, 28)],
)
def test_a_fifth_a_round_takes_the_published_number_of_rounds(sparsity: float, rounds: int) -> None:
    rule = ImpRule(sparsity, epochs_per_round=1)
    assert rule.total_rounds == rounds
    n = 1_855_584
    counts = [rule.kept(n, r) for r in range(rounds + 1)]
    assert counts[0] == n
    assert counts[-1] == st.masks.kept(n, sparsity)
    assert counts[:-1] == pytest.approx([0.8**r * n for r in range(rounds)], abs=1)


def test_a_target_on_the_lattice_takes_no_round_too_many() -> None:
    assert ImpRule(0.36, epochs_per_round=1).total_rounds == 2
    assert ImpRule(0.488, epochs_per_round=1).total_rounds == 3
    assert ImpRule(0.0, epochs_per_round=1).total_rounds == 0
    assert ImpRule(0.5, epochs_per_round=1, fraction=0.5).total_rounds == 1


def test_given_rounds_remove_equal_shares() -> None:
    rule = ImpRule(0.999, epochs_per_round=1, rounds=3)
    assert [rule.kept(10**6, r) for r in range(4)] == [10**6, 10**5, 10**4, 10**3]


@settings(max_examples=60, deadline=None)
@given(
    n=hs.integers(1, 5000),
    sparsity=hs.integers(0, 999).map(lambda i: i / 1000),
    rounds=hs.none() | hs.integers(1, 6),
    fraction=hs.sampled_from([0.1, 0.2, 0.5, 0.9]),
)
def test_counts_fall_from_all_to_the_exact_target(
    n: int, sparsity: float, rounds: int | None, fraction: float
) -> None:
    rule = ImpRule(sparsity, epochs_per_round=2, rounds=rounds, fraction=fraction)
    counts = [rule.kept(n, r) for r in range(rule.total_rounds + 1)]
    assert counts[-1] == st.masks.kept(n, sparsity)
    assert counts == sorted(counts, reverse=True)
    assert rounds is not None or counts[0] == n


def test_transition_walks_through_every_epoch_of_every_round() -> None:
    rule = ImpRule(0.9, epochs_per_round=2, rounds=2, final_epochs=3)
    state, seen = ImpState(), []
    while not state.done:
        seen.append((state.round, state.epoch))
        state = transition(rule, state)
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert rule.total_epochs == len(seen)
    with pytest.raises(ValueError, match="the run is done"):
        transition(rule, state)


@pytest.mark.parametrize("rewind", ["start", 2, "learning-rate"])
def test_masks_are_nested_and_exact_after_each_round(rewind: Any) -> None:
    model = mlp()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer, sparsity=0.7, rewind=rewind)
    masks = [{n: m.clone() for n, m in imp.masks.items()}]
    phases = []
    while imp.phase != "done":
        phases.append((imp.phase, imp.round))
        epochs(imp, model, optimizer, 1, start=len(phases))
        assert imp.phase_changed
        masks.append({n: m.clone() for n, m in imp.masks.items()})
        for name, p in st.select(model).items():
            assert not p[~imp.masks[name]].any()
    rounds = imp.rule.total_rounds
    assert phases == [("dense", 0), *(("sparse", r) for r in range(1, rounds + 1))]
    assert rounds == math.ceil(math.log(0.3) / math.log(0.8))
    assert [kept(m) for m in masks[:-1]] == [imp.rule.kept(400, r) for r in range(rounds + 1)]
    assert kept(imp.masks) == st.masks.kept(400, 0.7)
    for outer, inner in pairwise(masks):
        assert all(not (inner[n] & ~outer[n]).any() for n in inner)


def test_each_round_prunes_the_smallest_of_the_trained_survivors() -> None:
    model = mlp()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer, sparsity=0.5)
    for epoch in range(3):
        train(model, optimizer, STEPS, start=STEPS * epoch)
        trained = torch.cat([p.detach().abs().flatten() for p in st.select(model).values()])
        alive = torch.cat([m.flatten() for m in imp.masks.values()])
        imp.epoch_end()
        order = torch.where(alive, trained, -1.0).argsort(descending=True, stable=True)
        wanted = torch.zeros(400, dtype=torch.bool)
        wanted[order[: imp.rule.kept(400, epoch + 1)]] = True
        assert torch.equal(torch.cat([m.flatten() for m in imp.masks.values()]), wanted)


@pytest.mark.parametrize("rewind", ["start", 0, 2, 4])
def test_weights_and_buffers_go_back_to_the_bit(rewind: Any) -> None:
    model = convnet()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer, epochs_per_round=2, rewind=rewind)
    data = [(torch.randn(8, 1, 5, 5), torch.randint(0, 3, (8,))) for _ in range(6)]
    wanted = {n: t.clone() for n, t in model.state_dict().items()}
    for _ in range(3):
        for step, (x, y) in enumerate(data, 1):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
            if imp.round == 0 and step == rewind:
                wanted = {n: t.clone() for n, t in model.state_dict().items()}
            if step % 3 == 0:
                imp.epoch_end()
        for name, tensor in model.state_dict().items():
            expected = wanted[name]
            expected = torch.where(imp.masks[name], expected, 0) if name in imp.masks else expected
            assert torch.equal(tensor, expected), name


def test_learning_rate_rewinding_leaves_the_surviving_weights() -> None:
    model = mlp()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer, rewind="learning-rate")
    for epoch in range(3):
        train(model, optimizer, STEPS, start=STEPS * epoch)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        imp.epoch_end()
        for name, p in model.named_parameters():
            mask = imp.masks.get(name, torch.ones_like(p, dtype=torch.bool))
            assert torch.equal(p[mask], before[name][mask])
            assert not p[~mask].any()


@pytest.mark.parametrize("lr", [0.05, torch.tensor(0.05)])
def test_each_round_starts_with_a_clear_optimizer_and_the_first_rates(lr: Any) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    imp = imp_on(model, optimizer)
    for epoch in range(2):
        optimizer.param_groups[0]["lr"] = 0.001
        epochs(imp, model, optimizer, 1, start=epoch)
        assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.05)
        assert not optimizer.state


def test_one_round_is_one_shot_pruning_and_fine_tuning() -> None:
    model, twin = mlp(), mlp()
    optimizer, other = sgd(model), sgd(twin)
    imp = imp_on(model, optimizer, rounds=1, rewind="learning-rate", epochs_per_round=2)
    epochs(imp, model, optimizer, 4)
    assert imp.phase == "done"
    train(twin, other, 2 * STEPS)
    masks, fresh = st.prune(twin, 0.9), sgd(twin)
    with st.Sparsifier(twin, fresh, st.methods.static(masks=masks)):
        train(twin, fresh, 2 * STEPS, start=2 * STEPS)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_step_that_accumulates_counts_once_towards_the_rewinding_point() -> None:
    model = mlp()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer, rewind=2)
    at_two: list[torch.Tensor] = []
    for step in range(1, 4):
        for half in range(2):
            x = torch.randn(4, 6, generator=torch.Generator().manual_seed(10 * step + half))
            model(x).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if step == 2:
            at_two = [p.detach().clone() for p in st.select(model).values()]
    imp.epoch_end()
    for (name, p), wanted in zip(st.select(model).items(), at_two, strict=True):
        assert torch.equal(p.detach(), torch.where(imp.masks[name], wanted, 0))


@pytest.mark.parametrize("rewind", ["start", 2, 4, "learning-rate"])
@pytest.mark.parametrize("cut", [1, 2, 3, 5])
def test_resume_is_bit_identical_in_every_round(cut: int, rewind: Any) -> None:
    def fresh() -> tuple[nn.Module, torch.optim.SGD, IMP]:
        model = mlp()
        optimizer = sgd(model)
        return model, optimizer, imp_on(model, optimizer, epochs_per_round=2, rewind=rewind)

    model, optimizer, imp = fresh()
    epochs(imp, model, optimizer, cut)
    file = io.BytesIO()
    torch.save({"m": model.state_dict(), "o": optimizer.state_dict(), "i": imp.state_dict()}, file)
    epochs(imp, model, optimizer, 8 - cut, start=cut)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, other, resumed = fresh()
    with torch.no_grad():
        again[0].weight.add_(1.0)
    again.load_state_dict(saved["m"])
    other.load_state_dict(saved["o"])
    resumed.load_state_dict(saved["i"])
    epochs(resumed, again, other, 8 - cut, start=cut)
    assert resumed.state == imp.state == ImpState(round=4)
    for name in imp.masks:
        assert torch.equal(resumed.masks[name], imp.masks[name])
    for p, q in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(p, q)


def test_an_earlier_state_can_be_loaded_into_a_later_round() -> None:
    model = mlp()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer, rewind=2)
    train(model, optimizer, 1)
    saved = copy.deepcopy(
        {"m": model.state_dict(), "o": optimizer.state_dict(), "i": imp.state_dict()}
    )
    train(model, optimizer, 2, start=1)
    imp.epoch_end()
    wanted = copy.deepcopy(model.state_dict())
    imp.load_state_dict(saved["i"])
    model.load_state_dict(saved["m"])
    optimizer.load_state_dict(saved["o"])
    assert (imp.phase, imp.sparsity) == ("dense", 0.0)
    train(model, optimizer, 2, start=1)
    imp.epoch_end()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, wanted[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 0.8}, "the state is of sparsity=0.9, this run's is 0.8"),
        ({"rounds": 3}, "the state is of rounds=11, this run's is 3"),
        ({"rewind": 2}, "the state is of rewind='start', this run's is 2"),
        ({"exclude": "4.*"}, "4.weight"),
    ],
)
def test_a_state_of_another_plan_is_refused_and_nothing_changes(
    changes: dict[str, Any], message: str
) -> None:
    model, other = mlp(), mlp()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer)
    epochs(imp, model, optimizer, 1)
    fresh = imp_on(other, sgd(other), **changes)
    with pytest.raises(ValueError, match=message):
        fresh.load_state_dict(imp.state_dict())
    assert (fresh.phase, fresh.round, fresh.sparsity) == ("dense", 0, 0.0)


def test_a_scheduler_made_before_does_not_hide_the_first_learning_rate() -> None:
    model = mlp()
    optimizer = sgd(model)
    torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=5)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    imp = imp_on(model, optimizer)
    optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))], "lr": 0.3})
    epochs(imp, model, optimizer, 1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 0.3]


def test_selection_and_finalize() -> None:
    model = mlp()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer, exclude="4.*", rounds=1)
    epochs(imp, model, optimizer, 2)
    assert list(imp.masks) == ["0.weight", "2.weight"]
    assert bool(model[4].weight.all())
    imp.finalize()
    with torch.no_grad():
        for p in model.parameters():
            p.grad = torch.ones_like(p)
    optimizer.step()
    assert bool(model[2].weight.all())


def test_a_step_never_reached_is_said() -> None:
    model = mlp()
    optimizer = sgd(model)
    imp = imp_on(model, optimizer, rewind=500)
    with pytest.raises(ValueError, match="rewind=500 was not reached: the dense training took 3"):
        epochs(imp, model, optimizer, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 90}, r"Did you mean 0\.9"),
        ({"epochs_per_round": 0}, "epochs_per_round must be an int of at least 1"),
        ({"final_epochs": 0}, "final_epochs must be"),
        ({"rounds": 0}, "rounds must be"),
        ({"fraction": 20}, r"fraction must be in \(0, 1\)"),
        ({"rewind": "init"}, "rewind must be 'start'"),
        ({"rewind": -1}, "rewind must be 'start'"),
        ({"rewind": True}, "rewind must be 'start'"),
        ({"include": "fc*"}, "no prunable weight"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=message):
        imp_on(model, sgd(model), **changes)
