"""The engine's invariants under every optimizer, and what it does at its edges."""

from __future__ import annotations

import copy
import io
import math
import pickle
import warnings

import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain.finite import FiniteCheck
from sparsetrain.optimizers import same_shaped_state
from sparsetrain.types import Masks, Memory, View
from tests.nets import OPTIMIZERS, Moving, batch, convnet, kept, loss_of, mlp, train


def assert_zeros_are_zero(
    sparsifier: st.Sparsifier, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    parameters = dict(model.named_parameters())
    for name, mask in sparsifier.masks.items():
        assert not parameters[name][~mask].any(), name
        for key, state in same_shaped_state(optimizer, parameters[name]).items():
            assert not state[~mask].any(), (name, key)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_zeros_stay_zero_and_counts_exact_under_every_optimizer(name: str) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[name](model)
    sparsifier = st.Sparsifier(model, optimizer, Moving())
    total = sum(m.numel() for m in sparsifier.masks.values())
    for step in range(6):
        before = {n: m.clone() for n, m in sparsifier.masks.items()}
        train(model, optimizer, 1, start=step)
        assert_zeros_are_zero(sparsifier, model, optimizer)
        assert kept(sparsifier.masks) == st.masks.kept(total, 0.5)
        for n, p in model.named_parameters():
            if n in before:  # grown weights start at zero
                assert not p[sparsifier.masks[n] & ~before[n]].any()
    assert any(p.detach().abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_active_weights_move_exactly_as_in_a_loop_that_masks_by_hand(name: str) -> None:
    ours, theirs = mlp(), mlp()
    optimizer, reference = OPTIMIZERS[name](ours), OPTIMIZERS[name](theirs)
    sparsifier = st.Sparsifier(ours, optimizer, st.methods.static(sparsity=0.7))
    parameters = dict(theirs.named_parameters())

    def mask_by_hand() -> None:
        with torch.no_grad():
            for n, mask in sparsifier.masks.items():
                parameters[n][~mask] = 0
                for state in same_shaped_state(reference, parameters[n]).values():
                    state[~mask] = 0

    mask_by_hand()
    for step in range(5):
        train(ours, optimizer, 1, start=step)
        train(theirs, reference, 1, start=step)
        mask_by_hand()
    for (n, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q), n


def test_grown_weights_get_the_optimizers_initial_state() -> None:
    for name, key, initial in (("rprop", "step_size", 0.01), ("adagrad", "sum", 0.1)):
        model = mlp()
        optimizer = OPTIMIZERS[name](model)
        sparsifier = st.Sparsifier(model, optimizer, Moving(interval=3))
        train(model, optimizer, 2)
        before = {n: m.clone() for n, m in sparsifier.masks.items()}
        train(model, optimizer, 1, start=2)
        for n, p in model.named_parameters():
            if n in before:
                grown = sparsifier.masks[n] & ~before[n]
                assert grown.any()
                assert optimizer.state[p][key][grown] == pytest.approx(initial), (name, n)


def test_the_model_is_left_untouched() -> None:
    model = mlp()
    keys, modules = list(model.state_dict()), [type(m) for m in model.modules()]
    sparsifier = st.Sparsifier(model, OPTIMIZERS["sgd"](model), st.methods.static(sparsity=0.5))
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == modules
    twin = copy.deepcopy(model)
    assert all(
        torch.equal(a, b) for a, b in zip(twin.parameters(), model.parameters(), strict=True)
    )
    mlp().load_state_dict(model.state_dict())
    assert sparsifier.sparsity == pytest.approx(0.5, abs=0.01)


def test_accumulated_backwards_are_one_step() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, Moving())
    for _ in range(3):
        for micro in range(4):
            loss_of(model, seed=micro).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert sparsifier.step == 3


def test_several_parameter_groups_are_all_masked() -> None:
    model = mlp()
    groups = [
        {"params": model[0].parameters(), "lr": 0.1},
        {"params": model[2].parameters()},
        {"params": model[4].parameters(), "weight_decay": 0.1},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.8))
    train(model, optimizer, 3)
    assert_zeros_are_zero(sparsifier, model, optimizer)


def test_tied_weights_are_masked_and_counted_once() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    assert list(sparsifier.masks) == ["0.weight"]
    assert kept(sparsifier.masks) == 18


def test_parameters_frozen_later_stay_masked() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(
        model, optimizer, Moving(), regularizer=st.HyperSparse(0.5), strength=0.1
    )
    train(model, optimizer, 1)
    model[0].weight.requires_grad_(False)
    model[0].weight.grad = None
    frozen = model[0].weight.clone()
    train(model, optimizer, 2, start=1)
    mask = sparsifier.masks["0.weight"]
    assert torch.equal(
        model[0].weight[mask & (model[0].weight != 0)], frozen[mask & (model[0].weight != 0)]
    )
    assert_zeros_are_zero(sparsifier, model, optimizer)


def test_bfloat16_weights_keep_their_dtype_and_zeros() -> None:
    model = mlp(dtype=torch.bfloat16)
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(
        model, optimizer, Moving(), regularizer=st.HyperSparse(0.5), strength=0.01
    )
    train(model, optimizer, 4)
    assert model[0].weight.dtype == torch.bfloat16
    assert_zeros_are_zero(sparsifier, model, optimizer)


def test_channels_last_weights_stay_channels_last() -> None:
    model = convnet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    x = torch.randn(8, 1, 5, 5)
    nn.functional.cross_entropy(model(x), torch.zeros(8, dtype=torch.long)).backward()
    optimizer.step()
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert_zeros_are_zero(sparsifier, model, optimizer)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rprop", "adagrad"])
@pytest.mark.parametrize("loads_first", ["model", "sparsifier"])
def test_resume_in_mid_schedule_is_bit_identical(name: str, loads_first: str) -> None:
    model = mlp()
    optimizer = OPTIMIZERS[name](model)
    sparsifier = st.Sparsifier(model, optimizer, Moving(), seed=3)
    train(model, optimizer, 5)
    file = io.BytesIO()
    torch.save(
        {"m": model.state_dict(), "o": optimizer.state_dict(), "s": sparsifier.state_dict()}, file
    )
    train(model, optimizer, 5, start=5)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = mlp(seed=9)
    other = OPTIMIZERS[name](again)
    if loads_first == "model":
        again.load_state_dict(saved["m"])
        other.load_state_dict(saved["o"])
        resumed = st.Sparsifier(again, other, Moving(), seed=8)
    else:
        resumed = st.Sparsifier(again, other, Moving(), seed=8)
        again.load_state_dict(saved["m"])
        other.load_state_dict(saved["o"])
    resumed.load_state_dict(saved["s"])
    train(again, other, 5, start=5)
    for n in sparsifier.masks:
        assert torch.equal(sparsifier.masks[n], resumed.masks[n])
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
    assert resumed._memory["updates"] == sparsifier._memory["updates"] == 5
    assert torch.equal(resumed._memory["seen"], sparsifier._memory["seen"])


def test_state_of_another_method_or_layer_is_refused_and_changes_nothing() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, Moving())
    state = sparsifier.state_dict()
    weights = model[0].weight.clone()
    with pytest.raises(ValueError, match="method 'Static'"):
        sparsifier.load_state_dict({**state, "method": "Static"})
    with pytest.raises(ValueError, match="no mask for the selected layer"):
        sparsifier.load_state_dict({**state, "masks": {}})
    assert torch.equal(model[0].weight, weights)


def test_attach_follows_copies_of_model_and_optimizer() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, Moving())
    train(model, optimizer, 3)
    twin, twin_optimizer = copy.deepcopy((model, optimizer))
    sparsifier.attach(twin, twin_optimizer)
    train(twin, twin_optimizer, 2, start=3)
    assert sparsifier.step == 5
    assert_zeros_are_zero(sparsifier, twin, twin_optimizer)
    train(model, optimizer, 1)
    assert sparsifier.step == 5  # the old optimizer is free


def test_finalize_takes_the_hooks_off_and_leaves_the_zeros() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    with st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.9)) as sparsifier:
        train(model, optimizer, 2)
    assert_zeros_are_zero(sparsifier, model, optimizer)
    train(model, optimizer, 2)
    assert sparsifier.step == 2
    assert model[0].weight[~sparsifier.masks["0.weight"]].any()


def test_mask_grads_zeroes_only_pruned_gradients() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    loss_of(model).backward()
    dense = model[0].weight.grad.clone()
    assert dense[~sparsifier.masks["0.weight"]].any()  # growth needs the dense gradient
    sparsifier.mask_grads_()
    assert torch.equal(model[0].weight.grad, dense * sparsifier.masks["0.weight"])


def test_a_nan_weight_stops_at_once_and_names_step_and_layer() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    train(model, optimizer, 2)
    optimizer.zero_grad()
    loss_of(model).backward()
    model[2].weight.grad[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match=r"step 3, in 2\.weight;"):
        optimizer.step()


def test_lbfgs_and_sparse_adam_are_refused_in_one_sentence() -> None:
    model = mlp()
    for optimizer in (
        torch.optim.LBFGS(model.parameters()),
        torch.optim.SparseAdam(list(model.parameters())),
    ):
        with pytest.raises(ValueError, match=f"{type(optimizer).__name__} is not supported"):
            st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
        assert not optimizer._optimizer_step_pre_hooks


def test_a_selected_parameter_outside_the_optimizer_is_an_error() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model[0].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"'2\.weight' and 1 more is not in the optimizer"):
        st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))


def test_a_given_mask_of_wrong_shape_is_refused_before_any_weight_changes() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    weights = model[0].weight.clone()
    masks = {n: torch.ones(2, 2, dtype=torch.bool) for n in st.select(model)}
    with pytest.raises(ValueError, match=r"must be bool of shape \(16, 6\)"):
        st.Sparsifier(model, optimizer, st.methods.static(masks=masks))
    assert torch.equal(model[0].weight, weights)
    assert not optimizer._optimizer_step_pre_hooks


def test_summary_counts_each_layer_and_the_total() -> None:
    model = mlp()
    sparsifier = st.Sparsifier(model, OPTIMIZERS["sgd"](model), st.methods.static(sparsity=0.9))
    lines = sparsifier.summary().splitlines()
    assert len(lines) == 5
    total = sum(m.numel() for m in sparsifier.masks.values())
    assert f"{st.masks.kept(total, 0.9):,}" in lines[-1]


def test_the_same_seed_gives_the_same_masks_whatever_else_draws() -> None:
    first = st.Sparsifier(m := mlp(), OPTIMIZERS["sgd"](m), Moving(), seed=5).masks
    torch.rand(100)
    second = st.Sparsifier(m := mlp(seed=4), OPTIMIZERS["sgd"](m), Moving(), seed=5).masks
    third = st.Sparsifier(m := mlp(), OPTIMIZERS["sgd"](m), Moving(), seed=6).masks
    assert all(torch.equal(first[n], second[n]) for n in first)
    assert not all(torch.equal(first[n], third[n]) for n in first)


def test_data_are_different_each_step() -> None:
    assert not torch.equal(batch(seed=0)[0], batch(seed=1)[0])


def test_masks_changed_by_hand_take_effect() -> None:
    for method in (st.methods.static(sparsity=0.5), st.methods.dense()):
        model = mlp()
        optimizer = OPTIMIZERS["sgd"](model)
        sparsifier = st.Sparsifier(model, optimizer, method)
        sparsifier.masks["0.weight"][:8] = False
        sparsifier.apply_()
        assert not model[0].weight[:8].any()
        train(model, optimizer, 2)
        assert_zeros_are_zero(sparsifier, model, optimizer)


def test_an_overflowed_second_moment_does_not_stay_where_it_is_pruned() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    loss_of(model).backward()
    pruned = (~sparsifier.masks["0.weight"]).nonzero()[0]
    model[0].weight.grad[tuple(pruned)] = 1e22  # its square is infinite in float32
    optimizer.step()
    assert_zeros_are_zero(sparsifier, model, optimizer)
    train(model, optimizer, 2)
    assert torch.isfinite(model[0].weight).all()


def test_a_large_weight_whose_sum_overflows_is_no_failure() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    st.Sparsifier(model, optimizer, st.methods.dense())
    with torch.no_grad():
        model[0].weight.fill_(1e38)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()


def test_a_weight_without_entries_is_no_obstacle() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch: initializing zero-element tensors
        model = nn.Sequential(nn.Linear(6, 4), nn.Linear(0, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert "1.weight" in sparsifier.summary()


class Watching(Moving):
    """Counts the steps it sees, and whether it sees them before masking."""

    def init(self, view: View) -> tuple[Masks, Memory]:
        return super().init(view)[0], {"seen": 0, "unmasked": 0}

    def observe(self, view: View, memory: Memory) -> Memory:
        unmasked = int(view.weights["0.weight"].count_nonzero() > 48)
        return {"seen": memory["seen"] + 1, "unmasked": memory["unmasked"] + unmasked}

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        return masks, memory


def test_an_observer_sees_every_step_before_masking() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, Watching())
    train(model, optimizer, 5)
    assert sparsifier._memory == {"seen": 5, "unmasked": 5}


class Resting(Watching):
    observes = False


def test_a_method_whose_options_need_no_look_at_each_step_costs_none() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, Resting())
    train(model, optimizer, 5)
    assert sparsifier._memory == {"seen": 0, "unmasked": 0}
    options = {"sparsity": 0.9, "total_steps": 100}
    assert not st.methods.rigl(**options).observes
    assert st.methods.rigl(**options, growth="momentum").observes
    assert st.methods.snfs(**options).observes


def test_methods_see_the_loss_gradient_also_where_the_optimizer_overwrites_it() -> None:
    # SGD's foreach path with Nesterov momentum leaves g + momentum v in p.grad.
    model = mlp()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True
    )
    seen = []

    class Looking(Moving):
        def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
            seen.append(view.grads["0.weight"].clone())
            return masks, memory

    st.Sparsifier(model, optimizer, Looking(interval=1), regularizer=st.L1(), strength=5.0)
    for step in range(2):
        optimizer.zero_grad()
        loss_of(model, seed=step).backward()
        wanted = model[0].weight.grad.clone()
        optimizer.step()
        assert torch.equal(seen[-1], wanted)


def test_a_weight_without_gradient_still_feels_the_regulariser() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    st.Sparsifier(model, optimizer, st.methods.dense(), regularizer=st.L1(), strength=0.5)
    before = model[0].weight.detach().clone()
    optimizer.step()
    torch.testing.assert_close(model[0].weight.detach(), before - 0.05 * before.sign())


def test_a_frozen_weight_with_a_stale_gradient_gets_nothing_added() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    st.Sparsifier(model, optimizer, st.methods.dense(), regularizer=st.L1(), strength=0.5)
    loss_of(model).backward()
    model[0].weight.requires_grad_(False)
    stale = model[0].weight.grad.clone()
    optimizer.step()
    assert torch.equal(model[0].weight.grad, stale)


def test_the_copies_for_rollback_are_freed_by_the_first_step_and_by_finalize() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    stepped = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    assert stepped._masking._rollback._kept
    train(model, optimizer, 1)
    assert not stepped._masking._rollback._kept
    finished = st.Sparsifier(
        mlp_ := mlp(), OPTIMIZERS["sgd"](mlp_), st.methods.static(sparsity=0.5)
    )
    finished.finalize()
    assert not finished._masking._rollback._kept


def test_finalize_and_attach_mask_what_was_changed_in_between() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))
    twin = mlp(seed=3)
    sparsifier.attach(twin, other := OPTIMIZERS["sgd"](twin))
    assert_zeros_are_zero(sparsifier, twin, other)
    with torch.no_grad():
        twin[0].weight.fill_(1.0)
    sparsifier.finalize()
    assert_zeros_are_zero(sparsifier, twin, other)


def test_attach_refuses_a_model_of_another_shape_and_changes_nothing() -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, Moving())
    other = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    with pytest.raises(ValueError, match=r"mask of '0\.weight' must be bool of shape \(8, 6\)"):
        sparsifier.attach(other, OPTIMIZERS["sgd"](other))
    train(model, optimizer, 2)
    assert sparsifier.step == 2


@pytest.mark.parametrize("how", ["pickle", "deepcopy"])
def test_model_optimizer_and_sparsifier_are_copied_together(how: str) -> None:
    model = mlp()
    optimizer = OPTIMIZERS["adam"](model)
    sparsifier = st.Sparsifier(model, optimizer, Moving())
    train(model, optimizer, 3)
    parts = (model, optimizer, sparsifier)
    copied = copy.deepcopy(parts) if how == "deepcopy" else pickle.loads(pickle.dumps(parts))
    train(copied[0], copied[1], 3, start=3)
    train(model, optimizer, 3, start=3)
    assert (sparsifier.step, copied[2].step) == (6, 6)
    for p, q in zip(model.parameters(), copied[0].parameters(), strict=True):
        assert torch.equal(p, q)


def test_state_dict_does_not_save_a_nan() -> None:
    model = mlp()
    sparsifier = st.Sparsifier(model, OPTIMIZERS["sgd"](model), st.methods.static(sparsity=0.5))
    with torch.no_grad():
        model[0].weight[sparsifier.masks["0.weight"]] = math.nan
    with pytest.raises(FloatingPointError, match=r"0\.weight"):
        sparsifier.state_dict()


def test_off_the_cpu_the_first_bad_step_is_flagged_without_reading_it() -> None:
    # The path of accelerators, on CPU tensors that claim to be elsewhere.
    weight = nn.Parameter(torch.ones(4))
    check = FiniteCheck(on_cpu=lambda tensors: False)
    for step in range(1, 6):
        if step == 3:
            with torch.no_grad():
                weight[1] = math.nan
        check.note({"w": weight}, step)
    with pytest.raises(FloatingPointError, match="step 3, in w"):
        check.check({"w": weight}, 5)


def test_arguments_of_another_kind_are_refused_in_a_sentence() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = st.methods.static(sparsity=0.5)
    with pytest.raises(TypeError, match=r"takes \(model, optimizer, method\), got \(SGD, Sequent"):
        st.Sparsifier(optimizer, model, method)  # type: ignore[arg-type]
    for wrong in ("rigl", st.methods.rigl):
        with pytest.raises(TypeError, match=r"make one, for example with st\.methods\.create"):
            st.Sparsifier(model, optimizer, wrong)  # type: ignore[arg-type]


def test_a_layer_that_loses_all_its_weights_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with torch.no_grad():
        model[4].weight.mul_(1e-6)
    method = st.methods.gmp(0.9, 6, update_every=1, stop=4)
    sparsifier = st.Sparsifier(model, optimizer, method)
    assert not caplog.records
    train(model, optimizer, 6)
    assert not sparsifier.masks["4.weight"].any()
    assert [r.getMessage() for r in caplog.records if "4.weight" in r.getMessage()][1:] == []
    assert "no weight is left in 4.weight" in caplog.text
    assert sparsifier.update_seconds > 0
