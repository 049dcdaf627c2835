"""The contracts that every method of every family passes, and what the registry refuses."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

import sparsetrain as st
from sparsetrain.optimizers import same_shaped_state
from tests.contracts import (
    AT_INIT,
    IN_LOOP,
    PHASES,
    ROWS,
    SPARSITY,
    STEPS,
    Engine,
    attached,
    initial_masks,
    network,
    steps,
)
from tests.nets import OPTIMIZERS, batch, kept, mlp, train

TOTAL = 6 * 16 + 16 * 16 + 16 * 3  # of `nets.mlp`


def make(name: str) -> st.Method:
    return st.methods.create(name, sparsity=SPARSITY, total_steps=STEPS)


def test_every_method_has_a_row() -> None:
    assert set(ROWS) == set(st.methods.names())
    assert sorted([*IN_LOOP, *AT_INIT, *PHASES]) == sorted(ROWS)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    "optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "nadam", "adagrad", "rprop"]
)
def test_the_count_is_exact_at_each_step_and_zeros_stay(name: str, optimizer: str) -> None:
    model, opt, engine = attached(name, optimizer)
    assert kept(engine.masks) == ROWS[name].kept(0)
    for step in range(STEPS):
        steps(model, opt, engine, step, step + 1)
        assert kept(engine.masks) == ROWS[name].kept(step + 1), step
        for layer, p in st.select(model).items():
            pruned = ~engine.masks[layer]
            assert not p[pruned].any()
            assert all(not value[pruned].any() for value in same_shaped_state(opt, p).values())
    assert all(torch.isfinite(p).all() for p in model.parameters())


def states(model: nn.Module, optimizer: Optimizer, engine: Engine) -> dict[str, dict]:
    parts = {"model": model, "optimizer": optimizer, "engine": engine}
    return {key: part.state_dict() for key, part in parts.items()}


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("cut", [0, 2, 4, 5])
def test_resume_is_bit_identical(name: str, cut: int) -> None:
    model, optimizer, engine = attached(name, "adam")
    steps(model, optimizer, engine, 0, cut)
    file = io.BytesIO()
    torch.save(states(model, optimizer, engine), file)
    steps(model, optimizer, engine, cut, STEPS)

    file.seek(0)
    again, other, resumed = attached(name, "adam", seed=1)
    saved = torch.load(file, weights_only=True)
    for key, part in {"model": again, "optimizer": other, "engine": resumed}.items():
        part.load_state_dict(saved[key])
    steps(again, other, resumed, cut, STEPS)
    assert all(torch.equal(mask, resumed.masks[n]) for n, mask in engine.masks.items())
    for tensor, same in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(tensor, same)


@pytest.mark.parametrize("name", ROWS)
def test_dtypes_are_kept_in_bfloat16(name: str) -> None:
    model, optimizer, engine = attached(name, "adam", dtype=torch.bfloat16)
    steps(model, optimizer, engine, 0, STEPS)
    assert kept(engine.masks) == ROWS[name].kept(STEPS)
    assert all(p.dtype is torch.bfloat16 for p in model.parameters())
    assert all(mask.dtype is torch.bool for mask in engine.masks.values())
    for p in st.select(model).values():
        assert {v.dtype for v in same_shaped_state(optimizer, p).values()} == {torch.bfloat16}


@pytest.mark.parametrize("name", AT_INIT)
@pytest.mark.parametrize("sparsity", [0.29, 0.9])
def test_masks_before_training_are_exact_and_leave_no_trace(name: str, sparsity: float) -> None:
    model = network()
    model(batch()[0])  # running statistics of some data
    before = {n: tensor.clone() for n, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    masks = initial_masks(name, model, sparsity)
    assert kept(masks) == st.masks.kept(792, sparsity)
    assert list(masks) == list(st.select(model))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", AT_INIT)
def test_masks_before_training_never_change(name: str) -> None:
    model, optimizer, engine = attached(name, "sgd")
    first = {n: mask.clone() for n, mask in engine.masks.items()}
    steps(model, optimizer, engine, 0, STEPS)
    assert all(torch.equal(mask, first[n]) for n, mask in engine.masks.items())


@pytest.mark.parametrize("name", PHASES)
def test_masks_of_phases_are_nested_and_the_run_ends(name: str) -> None:
    model, optimizer, engine = attached(name, "sgd")
    for step in range(STEPS):
        before = {n: mask.clone() for n, mask in engine.masks.items()}
        steps(model, optimizer, engine, step, step + 1)
        assert not any((engine.masks[n] & ~mask).any() for n, mask in before.items())
    assert engine.phase == "done"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", IN_LOOP)
def test_methods_are_frozen_values(name: str) -> None:
    method = make(name)
    with pytest.raises(AttributeError):
        method.sparsity = 0.5  # type: ignore[attr-defined]
    assert make(name) == method


@pytest.mark.parametrize("name", IN_LOOP)
def test_every_option_has_a_default_and_help(name: str) -> None:
    for option in st.methods.get(name).options:
        assert len(option.help) > 10
        st.methods.create(name, sparsity=0.5, total_steps=5, **{option.name: option.default})


def test_families_partition_the_names() -> None:
    parts = [st.methods.names(f) for f in ("in-loop", "at-init", "phases")]
    assert sorted(sum(parts, ())) == sorted(st.methods.names())
    assert "art" in st.methods.names("phases")
    with pytest.raises(ValueError, match="family must be one of"):
        st.methods.names("inloop")  # type: ignore[arg-type]


def test_a_method_of_another_family_names_the_call_to_use() -> None:
    with pytest.raises(ValueError, match=r"family 'phases'; use st\.ART"):
        st.methods.create("art", sparsity=0.9, total_steps=10)


def test_unknown_names_and_options_suggest_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'magnitude'"):
        st.methods.create("magnitud", sparsity=0.9, total_steps=10)
    with pytest.raises(ValueError, match="did you mean 'scope'"):
        st.methods.create("magnitude", sparsity=0.9, total_steps=10, scop="layer")
    with pytest.raises(ValueError, match="has no option"):
        st.methods.create("dense", sparsity=0.9, total_steps=10, scope="layer")


@pytest.mark.parametrize("name", sorted({*IN_LOOP} - {"dense"}))
@pytest.mark.parametrize("sparsity", [90, -0.1, 1.0, float("nan")])
def test_a_sparsity_out_of_range_is_refused(name: str, sparsity: float) -> None:
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\)"):
        st.methods.create(name, sparsity=sparsity, total_steps=10)


@pytest.mark.parametrize("name", sorted({*IN_LOOP} - {"dense", "static"}))
@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_total_steps_must_be_a_positive_int(name: str, steps: object) -> None:
    with pytest.raises(ValueError, match="total_steps must be a positive int"):
        st.methods.create(name, sparsity=0.5, total_steps=steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", IN_LOOP)
@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_short_trainings_end_at_the_target_too(name: str, total: int) -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    method = st.methods.create(name, sparsity=0.9, total_steps=total)
    sparsifier = st.Sparsifier(model, optimizer, method)
    train(model, optimizer, total)
    assert kept(sparsifier.masks) == (TOTAL if name == "dense" else 40)


def test_magnitude_prunes_at_the_step_it_is_told_and_keeps_the_largest() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    before = torch.cat([p.detach().abs().flatten() for p in st.select(model).values()])
    method = st.methods.magnitude(sparsity=0.8, total_steps=10, at=1)
    sparsifier = st.Sparsifier(model, optimizer, method)
    train(model, optimizer, 1)
    flat = torch.cat([m.flatten() for m in sparsifier.masks.values()])
    assert before[flat].min() >= before[~flat].max()


def test_static_counts_follow_its_distribution() -> None:
    shapes = {n: tuple(p.shape) for n, p in st.select(mlp()).items()}
    for name in ("uniform", "er", "erk"):
        model = mlp()
        method = st.methods.static(sparsity=0.8, distribution=name)
        sparsifier = st.Sparsifier(model, OPTIMIZERS["sgd"](model), method)
        wanted = getattr(st.distributions, name)(shapes, 0.8)
        assert st.masks.count_active(sparsifier.masks) == wanted


def test_masks_of_prune_train_under_static() -> None:
    model = mlp()
    masks = st.prune(model, 0.9)
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, st.methods.static(masks=masks))
    train(model, optimizer, 3)
    assert all(torch.equal(sparsifier.masks[n], masks[n]) for n in masks)


@pytest.mark.parametrize("name", ["dense", "static"])
def test_methods_without_use_for_an_argument_still_check_it(name: str) -> None:
    with pytest.raises(ValueError, match=r"got 90\. Did you mean"):
        st.methods.create(name, sparsity=90, total_steps=10)
    with pytest.raises(ValueError, match="total_steps must be a positive int"):
        st.methods.create(name, sparsity=0.5, total_steps=-3)


@pytest.mark.parametrize("name", ["static", "rigl"])
def test_methods_with_given_masks_are_made_by_name_and_stay_hashable(name: str) -> None:
    model = mlp()
    masks = st.prune(model, 0.9)
    method = st.methods.create(name, sparsity=0.9, total_steps=10, masks=masks)
    sparsifier = st.Sparsifier(model, OPTIMIZERS["sgd"](model), method)
    assert all(torch.equal(sparsifier.masks[n], masks[n]) for n in masks)
    assert hash(method) == hash(st.methods.create(name, sparsity=0.9, total_steps=10))


def test_magnitude_at_step_zero_prunes_before_the_first_step() -> None:
    model = mlp()
    method = st.methods.magnitude(sparsity=0.9, total_steps=10, at=0)
    sparsifier = st.Sparsifier(model, OPTIMIZERS["sgd"](model), method)
    assert kept(sparsifier.masks) == st.masks.kept(TOTAL, 0.9)
