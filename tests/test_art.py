"""The ART driver in a plain loop: phases, exact counts, nothing left behind, resume to the bit."""

from __future__ import annotations

import io
import logging
from typing import Any

import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain.snapshot import Snapshot
from tests.nets import convnet, kept, loss_of, mlp, train


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def art_on(model: nn.Module, optimizer: torch.optim.Optimizer, **changes: Any) -> st.ART:
    settings: dict[str, Any] = {
        "sparsity": 0.9,
        "dense_epochs": 1,
        "finetune_epochs": 2,
        "max_regularize_epochs": 6,
        "strength": 1e-3,
        "strength_factor": 2.0,
    }
    return st.ART(model, optimizer, **{**settings, **changes})


def run(
    art: st.ART,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    accuracies: list[float],
    *,
    start: int = 0,
    dense: float = 0.9,
) -> None:
    for epoch, pruned in enumerate(accuracies, start):
        train(model, optimizer, 2, start=2 * epoch)
        art.epoch_end(dense, lambda _, value=pruned: value)


def test_a_whole_run_passes_its_phases_and_ends_at_the_exact_count() -> None:
    model = mlp()
    optimizer = sgd(model)
    art = art_on(model, optimizer)
    seen: list[str] = []
    while art.phase != "done":
        seen.append(art.phase)
        train(model, optimizer, 2, start=len(seen))
        art.epoch_end(0.9, lambda _: 0.95)
    assert seen == ["dense", *["regularize"] * 3, *["finetune"] * 2]
    assert kept(art.masks) == st.masks.kept(400, 0.9)


def test_the_regulariser_acts_only_while_regularising() -> None:
    model, plain = mlp(), mlp()
    optimizer, reference = sgd(model), sgd(plain)
    art = art_on(model, optimizer)
    assert art.strength == 0.0
    train(model, optimizer, 2)
    train(plain, reference, 2)
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), plain.parameters(), strict=True)
    )
    art.epoch_end(0.9, lambda _: 0.0)
    assert (art.phase, art.strength) == ("regularize", 1e-3)
    train(model, optimizer, 1, start=2)
    weights = [p.detach() for p in st.select(plain).values()]
    reference.zero_grad()
    loss_of(plain, seed=2).backward()
    for p, g in zip(st.select(plain).values(), st.HyperSparse(0.9).grad(weights), strict=True):
        p.grad += 1e-3 * g
    reference.step()
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p, q)
    art.epoch_end(0.9, lambda _: 0.0)
    assert art.strength == pytest.approx(2e-3)


def test_evaluation_sees_the_pruned_copy_and_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = convnet()
    optimizer = sgd(model)
    art = art_on(model, optimizer, dense_epochs=0)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    seen: dict[str, Any] = {}

    def evaluate(network: nn.Module) -> float:
        seen["model"] = network is model
        seen["training"] = any(m.training for m in network.modules())
        seen["grad"] = torch.is_grad_enabled()
        seen["zeros"] = sum(int((p == 0).sum()) for p in st.select(network).values())
        network.train()
        network(torch.randn(4, 1, 5, 5))  # a careless user moves the running statistics
        return 0.5

    art.epoch_end(0.9, evaluate)
    total = sum(p.numel() for p in st.select(model).values())
    assert seen == {
        "model": True,
        "training": False,
        "grad": False,
        "zeros": total - st.masks.kept(total, 0.9),
    }
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(m.training for m in model.modules())


def test_an_evaluation_that_raises_leaves_the_weights_whole() -> None:
    model = mlp()
    art = art_on(model, sgd(model), dense_epochs=0)
    before = [p.detach().clone() for p in model.parameters()]

    def evaluate(_: nn.Module) -> float:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        art.epoch_end(0.9, evaluate)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert (art.phase, art.state.epoch) == ("regularize", 0)


def test_finetuning_starts_from_the_windows_centre_with_a_fresh_optimizer() -> None:
    model = mlp()
    optimizer = sgd(model)
    art = art_on(model, optimizer, dense_epochs=0)
    copies = []
    for epoch, pruned in enumerate([0.5, 0.95, 0.95, 0.95]):
        train(model, optimizer, 2, start=2 * epoch)
        copies.append([p.detach().clone() for p in model.parameters()])
        for group in optimizer.param_groups:
            group["lr"] = 0.001 * epoch
        art.epoch_end(0.9, lambda _, value=pruned: value)
    assert (art.phase, art.outcome, art.state.chosen) == ("finetune", "converged", 3)
    assert art.phase_changed
    assert optimizer.param_groups[0]["lr"] == 0.05
    assert not optimizer.state
    wanted = mlp()
    with torch.no_grad():
        for p, q in zip(wanted.parameters(), copies[2], strict=True):
            p.copy_(q)
    masks = st.prune(wanted, 0.9)
    for name, mask in masks.items():
        assert torch.equal(mask, art.masks[name])
    for p, q in zip(model.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(p, q)
    train(model, optimizer, 3)
    for name, p in st.select(model).items():
        assert not p[~art.masks[name]].any()
    total = sum(m.numel() for m in art.masks.values())
    assert kept(art.masks) == st.masks.kept(total, 0.9)
    art.finalize()


def test_groups_added_later_keep_their_learning_rate_and_schedulers_their_first_one() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=torch.tensor(0.05))
    torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1)
    art = art_on(model, optimizer, dense_epochs=0, window=1)
    tensor = optimizer.param_groups[0]["lr"]
    extra = torch.nn.Parameter(torch.zeros(2))
    optimizer.add_param_group({"params": [extra], "lr": 0.7})
    run(art, model, optimizer, [0.95])
    assert art.phase == "finetune"
    assert optimizer.param_groups[0]["lr"] is tensor
    assert float(tensor) == pytest.approx(0.05)
    assert optimizer.param_groups[1]["lr"] == 0.7


def test_the_published_count_follows_binary_floating_point() -> None:
    model = nn.Linear(10, 10, bias=False)
    optimizer = sgd(model)
    art = art_on(model, optimizer, dense_epochs=0, window=1, sparsity=0.29, compat="paper")
    art.epoch_end(0.5, lambda _: 0.9)
    assert kept(art.masks) == 100 - int(0.29 * 100) - 1 == 71  # floor(28.999...) is 28


def test_non_persistent_and_replaced_buffers_are_put_back() -> None:
    model = mlp()
    model.register_buffer("calls", torch.zeros(1), persistent=False)
    buffer = model.calls
    art = art_on(model, sgd(model), dense_epochs=0)

    def evaluate(network: nn.Module) -> float:
        network.calls += 1
        network.calls = torch.ones(3)
        return 0.5

    art.epoch_end(0.9, evaluate)
    assert model.calls is buffer
    assert model.calls.item() == 0


def test_a_state_of_another_run_is_refused_and_changes_nothing() -> None:
    model = mlp()
    optimizer = sgd(model)
    art = art_on(model, optimizer)
    run(art, model, optimizer, [0.5])
    state = art.state_dict()
    other = convnet()
    fresh = art_on(other, sgd(other))
    with pytest.raises(ValueError, match=r"the mask of '0\.weight' must be bool"):
        fresh.load_state_dict(state)
    art.finalize()
    with pytest.raises(ValueError, match=r"sparsity 0\.9, this run's is 0\.5"):
        art_on(model, sgd(model), sparsity=0.5).load_state_dict(state)
    assert (fresh.phase, fresh.state.epoch) == ("dense", 0)


def test_a_nan_weight_stops_the_run_at_the_end_of_the_epoch() -> None:
    model = mlp()
    art = art_on(model, sgd(model))
    with torch.no_grad():
        model[0].weight[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"0\.weight"):
        art.epoch_end(0.9, lambda _: 0.5)


def test_the_published_rule_prunes_the_border_weight_too() -> None:
    model = mlp()
    optimizer = sgd(model)
    art = art_on(model, optimizer, dense_epochs=0, compat="paper")
    run(art, model, optimizer, [0.95, 0.95])
    total = sum(m.numel() for m in art.masks.values())
    assert kept(art.masks) == st.masks.kept(total, 0.9) - 1


@pytest.mark.parametrize(
    ("accuracies", "dense", "outcome", "words"),
    [
        ([0.1, 0.2, 0.3, 0.2, 0.1, 0.1], [0.9] * 6, "cap", "reached its cap"),
        ([0.1, 0.2, 0.3, 0.3], [0.9, 0.9, 0.9, 0.2], "collapsed", "saw the dense network collapse"),
    ],
)
def test_an_end_without_convergence_is_said(
    accuracies: list[float],
    dense: list[float],
    outcome: str,
    words: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = mlp()
    optimizer = sgd(model)
    art = art_on(model, optimizer, dense_epochs=0)
    with caplog.at_level(logging.WARNING, "sparsetrain"):
        for epoch, (pruned, value) in enumerate(zip(accuracies, dense, strict=True)):
            train(model, optimizer, 1, start=epoch)
            art.epoch_end(value, lambda _, a=pruned: a)
    assert (art.outcome, art.phase) == (outcome, "finetune")
    assert words in caplog.text
    assert art.sparsity == pytest.approx(0.9, abs=0.005)


def test_memory_holds_only_the_window_and_the_best() -> None:
    model = mlp()
    optimizer = sgd(model)
    art = art_on(model, optimizer, dense_epochs=0, max_regularize_epochs=20)
    run(art, model, optimizer, [0.5, 0.8, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1])
    assert sorted(art._snapshots) == [2, 6, 7, 8]
    assert art.state.best is not None
    assert art.state.best.epoch == 2
    sizes = [sum(v.numel() for v in s.values.values()) for s in art._snapshots.values()]
    assert sizes == [st.masks.kept(400, 0.9)] * 4


@pytest.mark.parametrize("cut", [1, 3, 5, 7])
def test_resume_is_bit_identical_in_every_phase(cut: int) -> None:
    accuracies = [0.5, 0.4, 0.6, 0.95, 0.95, 0.95, 0.9, 0.9]

    def fresh() -> tuple[nn.Module, torch.optim.SGD, st.ART]:
        model = mlp()
        optimizer = sgd(model)
        return model, optimizer, art_on(model, optimizer, finetune_epochs=3)

    model, optimizer, art = fresh()
    run(art, model, optimizer, accuracies[:cut])
    file = io.BytesIO()
    torch.save({"m": model.state_dict(), "o": optimizer.state_dict(), "a": art.state_dict()}, file)
    run(art, model, optimizer, accuracies[cut:], start=cut)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again, other, resumed = fresh()
    with torch.no_grad():
        again[0].weight.add_(1.0)
    again.load_state_dict(saved["m"])
    other.load_state_dict(saved["o"])
    resumed.load_state_dict(saved["a"])
    run(resumed, again, other, accuracies[cut:], start=cut)
    assert (resumed.state, resumed.last) == (art.state, art.last)
    assert art.outcome == "converged"
    for n in art.masks:
        assert torch.equal(resumed.masks[n], art.masks[n])
    assert all(
        torch.equal(p, q) for p, q in zip(model.parameters(), again.parameters(), strict=True)
    )


def test_batch_norm_is_recalibrated_on_the_pruned_copy_only() -> None:
    model = convnet()
    optimizer = sgd(model)
    images = torch.randn(64, 1, 5, 5)
    means = []

    def recalibrate(network: nn.Module) -> None:
        st.recalibrate_batchnorm_(network, images.split(16))

    art = art_on(model, optimizer, dense_epochs=0, window=1, sparsity=0.5, recalibrate=recalibrate)
    before = model[1].running_mean.clone()

    def evaluate(network: nn.Module) -> float:
        means.append(network[1].running_mean.clone())  # type: ignore[index]
        with torch.no_grad():
            wanted = network[0](images).mean((0, 2, 3))  # type: ignore[index]
        torch.testing.assert_close(means[-1], wanted, atol=1e-6, rtol=1e-4)
        return 0.5

    art.epoch_end(0.9, evaluate)
    assert torch.equal(model[1].running_mean, before)
    art.epoch_end(0.9, lambda _: 0.95)
    assert art.phase == "finetune"
    assert not torch.equal(model[1].running_mean, before)  # the chosen copy brings its own


def test_recalibration_without_a_batch_is_an_error_and_without_batch_norm_nothing() -> None:
    model = convnet()
    with pytest.raises(ValueError, match="no batch"):
        st.recalibrate_batchnorm_(model, [])
    assert model[1].momentum == 0.1
    model(torch.randn(8, 1, 5, 5))
    before = model[1].running_mean.clone()

    def broken() -> Any:
        yield torch.randn(8, 1, 5, 5)
        raise OSError("no more data")

    with pytest.raises(OSError, match="no more data"):
        st.recalibrate_batchnorm_(model, broken())
    with pytest.raises(ValueError, match="no batch"):
        st.recalibrate_batchnorm_(model, [])
    assert torch.equal(model[1].running_mean, before)
    st.recalibrate_batchnorm_(mlp(), [])


def test_a_snapshot_restores_what_it_took() -> None:
    model = convnet()
    parameters = st.select(model)
    masks = st.prune(model, 0.7)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    snapshot = Snapshot.take(model, parameters, masks)
    assert sum(v.numel() for v in snapshot.values.values()) == kept(masks)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    snapshot.restore_(model, parameters)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sparsity": 90}, "Did you mean 0.9"),
        ({"window": 4}, "window must be odd"),
        ({"strength": -1.0}, "strength must be at least 0"),
        ({"strength_factor": 0.0}, "strength_factor"),
        ({"max_regularize_epochs": 0}, "max_regularize_epochs"),
        ({"include": "fc*"}, "no prunable weight"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    model = mlp()
    with pytest.raises(ValueError, match=message):
        art_on(model, sgd(model), **changes)


def test_a_nan_accuracy_stops_the_run() -> None:
    model = mlp()
    art = art_on(model, sgd(model))
    with pytest.raises(ValueError, match="finite"):
        art.epoch_end(float("nan"), lambda _: 0.5)
