"""A step is a step of the weights: scalers, closures, nesting, failures, compilers."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import nn

import sparsetrain as st
from tests.nets import OPTIMIZERS, Moving, batch, loss_of, mlp, train


def attached(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, strength: float = 0.5
) -> st.Sparsifier:
    return st.Sparsifier(
        model, optimizer, Moving(interval=100), regularizer=st.L1(), strength=strength
    )


def sgd(model: nn.Module, *, fused: bool = False) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)


def expected_after_one_step(*, strength: float) -> list[torch.Tensor]:
    """One plain SGD step with the regulariser added by hand, then the masks."""
    model = mlp()
    masks = st.Sparsifier(model, sgd(model), Moving()).masks
    loss_of(model).backward()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name in masks:
                p -= 0.1 * (p.grad + strength * p.sign())
                p *= masks[name]
            else:
                p -= 0.1 * p.grad
    return [p.detach() for p in model.parameters()]


def assert_close(model: nn.Module, wanted: list[torch.Tensor]) -> None:
    for p, q in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.detach(), q)


def test_the_regulariser_is_added_before_a_plain_step() -> None:
    model = mlp()
    optimizer = sgd(model)
    attached(model, optimizer)
    loss_of(model).backward()
    optimizer.step()
    assert_close(model, expected_after_one_step(strength=0.5))


@pytest.mark.parametrize("as_keyword", [False, True])
def test_the_regulariser_is_added_after_the_closure_has_made_the_gradients(
    as_keyword: bool,
) -> None:
    model = mlp()
    optimizer = sgd(model)
    sparsifier = attached(model, optimizer)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss

    loss = optimizer.step(closure=closure) if as_keyword else optimizer.step(closure)
    assert loss.item() > 0
    assert sparsifier.step == 1
    assert_close(model, expected_after_one_step(strength=0.5))


@pytest.mark.parametrize("fused", [False, True])
def test_a_grad_scaler_changes_nothing(fused: bool) -> None:
    model = mlp()
    optimizer = sgd(model, fused=fused)
    sparsifier = attached(model, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(loss_of(model)).backward()
    scaler.step(optimizer)
    scaler.update()
    assert sparsifier.step == 1
    assert_close(model, expected_after_one_step(strength=0.5))


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_the_scaler_skips_is_none(fused: bool) -> None:
    model = mlp()
    optimizer = sgd(model, fused=fused)
    sparsifier = attached(model, optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(loss_of(model)).backward()
    model[0].weight.grad[0, 0] = math.inf
    scaler.step(optimizer)
    scaler.update()
    assert sparsifier.step == 0
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert scaler.get_scale() == 512.0


@pytest.mark.parametrize(
    "cls", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.Adagrad]
)
def test_methods_see_unscaled_gradients_under_a_fused_optimizer(cls: type) -> None:
    model = mlp()
    optimizer = cls(model.parameters(), lr=0.01, fused=True)
    sparsifier = st.Sparsifier(model, optimizer, Moving(interval=1))
    plain = mlp()
    plain.load_state_dict(model.state_dict())
    loss_of(plain).backward()
    wanted = sum(p.grad.abs().sum() for n, p in plain.named_parameters() if n in sparsifier.masks)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(loss_of(model)).backward()
    scaler.step(optimizer)
    torch.testing.assert_close(sparsifier._memory["seen"][0], wanted)


class NestedSGD(torch.optim.SGD):
    def step(self, closure=None):  # type: ignore[no-untyped-def]
        return super().step(closure)


def test_a_nested_super_step_counts_once_and_adds_once() -> None:
    sgd(mlp())  # makes torch hook SGD.step itself, so that both levels fire
    model = mlp()
    optimizer = NestedSGD(model.parameters(), lr=0.1)
    sparsifier = attached(model, optimizer)
    loss_of(model).backward()
    optimizer.step()
    assert sparsifier.step == 1
    assert_close(model, expected_after_one_step(strength=0.5))


def test_a_step_that_raised_is_none_and_the_next_one_counts() -> None:
    model = mlp()
    optimizer = NestedSGD(model.parameters(), lr=0.1)
    sparsifier = attached(model, optimizer)

    def broken() -> torch.Tensor:
        raise RuntimeError("out of memory")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory") as error:
            optimizer.step(broken)
        assert error.value is not None  # the failed step's frames are still alive here
    assert sparsifier.step == 0
    loss_of(model).backward()
    optimizer.step()
    assert sparsifier.step == 1
    assert_close(model, expected_after_one_step(strength=0.5))


def test_two_sparsifiers_on_disjoint_layers_share_an_optimizer() -> None:
    model = mlp()
    optimizer = sgd(model)
    first = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5), include="0.weight")
    second = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.9), include="2.weight")
    loss_of(model).backward()
    optimizer.step()
    assert (first.step, second.step) == (1, 1)
    assert not model[0].weight[~first.masks["0.weight"]].any()
    assert not model[2].weight[~second.masks["2.weight"]].any()


def test_a_scheduler_that_wraps_step_changes_nothing() -> None:
    model = mlp()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    sparsifier = attached(model, optimizer)
    loss_of(model).backward()
    optimizer.step()
    scheduler.step()
    assert sparsifier.step == 1
    assert_close(model, expected_after_one_step(strength=0.5))


WHAT = ["model", "optimizer", "whole"]


@pytest.mark.parametrize(
    ("backend", "what"),
    [
        pytest.param(b, w, marks=[pytest.mark.slow] if b == "inductor" else [])
        for b, w in itertools.product(["eager", "inductor"], WHAT)
    ],
)
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_training_keeps_regulariser_and_masks(backend: str, what: str) -> None:
    torch.compiler.reset()
    model = mlp()
    optimizer = sgd(model)
    network = torch.compile(model, backend=backend) if what == "model" else model
    sparsifier = st.Sparsifier(
        network, optimizer, Moving(interval=2), regularizer=st.L1(), strength=0.5
    )
    assert all("_orig_mod" not in name for name in sparsifier.masks)
    x, y = batch()

    def optimizer_step() -> None:
        optimizer.step()

    compiled_step = (
        torch.compile(optimizer_step, backend=backend) if what == "optimizer" else optimizer_step
    )

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        compiled_step()

    run = torch.compile(step, backend=backend) if what == "whole" else step
    plain = mlp()
    plain_optimizer = sgd(plain)
    st.Sparsifier(plain, plain_optimizer, Moving(interval=2), regularizer=st.L1(), strength=0.5)
    for _ in range(4):
        run()
        plain_optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x), y).backward()
        plain_optimizer.step()
    assert sparsifier.step == 4
    assert_close(model, [p.detach() for p in plain.parameters()])


@pytest.mark.filterwarnings("ignore")
def test_a_mask_update_recompiles_nothing() -> None:
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    model = mlp()
    optimizer = sgd(model)
    network = torch.compile(model, backend=counter)
    st.Sparsifier(network, optimizer, Moving(interval=1))
    x, y = batch()
    for _ in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()
    assert counter.frame_count == 1


@pytest.mark.parametrize("name", sorted(set(OPTIMIZERS) - {"muon"}))
def test_an_update_that_replaces_the_weight_step_moves_no_parameter(name: str) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[name](model)
    method = st.methods.rigl(0.5, 8, update_every=2, stop=1.0, skip_weight_step=True)
    sparsifier = st.Sparsifier(model, optimizer, method)
    for step in range(1, 9):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        masks = {n: m.clone() for n, m in sparsifier.masks.items()}
        state = copy.deepcopy(optimizer.state_dict()["state"])
        train(model, optimizer, 1, start=step)
        assert sparsifier.step == step
        moved = any(not torch.equal(before[n], p) for n, p in model.named_parameters() if "b" in n)
        assert moved == (step % 2 == 1)
        if step % 2:
            continue
        assert all(p.grad is not None for p in model.parameters())
        changed = 0
        for index, (n, p) in enumerate(model.named_parameters()):
            kept = sparsifier.masks.get(n, torch.ones_like(p, dtype=torch.bool))
            stays = kept & masks.get(n, kept)
            changed += int((kept != masks.get(n, kept)).sum())
            assert torch.equal(p[stays], before[n][stays])
            for key, value in optimizer.state_dict()["state"][index].items():
                same = state[index][key]
                if isinstance(value, torch.Tensor) and value.shape == p.shape:
                    value, same = value[stays], same[stays]
                assert torch.equal(torch.as_tensor(value), torch.as_tensor(same)), key
        assert changed > 0 or step == 8
