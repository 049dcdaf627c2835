"""The registry, and contracts that every in-loop method passes: one row a method."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import sparsetrain as st
from tests.nets import OPTIMIZERS, kept, mlp, train
from tests.oracles import dst

TOTAL = 6 * 16 + 16 * 16 + 16 * 3
STEPS = 8

# name -> kept weights after each step; a method without a row fails the first test.
ROWS: dict[str, Callable[[int], int]] = {
    "dense": lambda step: TOTAL,
    "static": lambda step: st.masks.kept(TOTAL, 0.9),
    "magnitude": lambda step: TOTAL if step < STEPS // 2 else st.masks.kept(TOTAL, 0.9),
    "gmp": lambda step: dst.kept(TOTAL, dst.cubic(0.0, 0.9, step, 0, 6)),
    "set": lambda step: st.masks.kept(TOTAL, 0.9),
    "snfs": lambda step: st.masks.kept(TOTAL, 0.9),
    "rigl": lambda step: st.masks.kept(TOTAL, 0.9),
    "itop": lambda step: st.masks.kept(TOTAL, 0.9),
    "granet": lambda step: dst.kept(TOTAL, dst.cubic(0.5, 0.9, step, 0, 4)),
}


def make(name: str) -> st.Method:
    return st.methods.create(name, sparsity=0.9, total_steps=STEPS)


def test_every_in_loop_method_has_a_row() -> None:
    assert set(ROWS) == set(st.methods.names("in-loop"))


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize(
    "optimizer", ["sgd", "nesterov", "adam", "adamw", "rmsprop", "nadam", "adagrad", "rprop"]
)
def test_the_count_is_exact_at_each_step_and_zeros_stay(name: str, optimizer: str) -> None:
    model = mlp()
    opt = OPTIMIZERS[optimizer](model)
    sparsifier = st.Sparsifier(model, opt, make(name))
    assert kept(sparsifier.masks) == ROWS[name](0)
    for step in range(1, STEPS + 1):
        train(model, opt, 1, start=step)
        assert kept(sparsifier.masks) == ROWS[name](step), step
        for layer, p in st.select(model).items():
            assert not p[~sparsifier.masks[layer]].any()


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("cut", [0, 2, 4, 5])
def test_resume_is_bit_identical(name: str, cut: int) -> None:
    def run(steps: int, saved: dict | None = None, start: int = 0) -> tuple:
        model = mlp()
        optimizer = OPTIMIZERS["adam"](model)
        if saved is not None:
            model.load_state_dict(saved["m"])
            optimizer.load_state_dict(saved["o"])
        sparsifier = st.Sparsifier(model, optimizer, make(name), seed=0 if saved is None else 99)
        if saved is not None:
            sparsifier.load_state_dict(saved["s"])
        train(model, optimizer, steps, start=start)
        return model, {
            "m": model.state_dict(),
            "o": optimizer.state_dict(),
            "s": sparsifier.state_dict(),
        }

    whole, whole_state = run(STEPS)
    _, part = run(cut)
    resumed, state = run(STEPS - cut, part, cut)
    assert all(
        torch.equal(p, q) for p, q in zip(whole.parameters(), resumed.parameters(), strict=True)
    )
    for layer, mask in whole_state["s"]["masks"].items():
        assert torch.equal(mask, state["s"]["masks"][layer])


@pytest.mark.parametrize("name", ROWS)
def test_methods_are_frozen_values(name: str) -> None:
    method = make(name)
    with pytest.raises(AttributeError):
        method.sparsity = 0.5  # type: ignore[attr-defined]
    assert make(name) == method


@pytest.mark.parametrize("name", ROWS)
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


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"dense"}))
@pytest.mark.parametrize("sparsity", [90, -0.1, 1.0, float("nan")])
def test_a_sparsity_out_of_range_is_refused(name: str, sparsity: float) -> None:
    with pytest.raises(ValueError, match=r"sparsity must be in \[0, 1\)"):
        st.methods.create(name, sparsity=sparsity, total_steps=10)


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"dense", "static"}))
@pytest.mark.parametrize("steps", [0, -1, 2.5, True])
def test_total_steps_must_be_a_positive_int(name: str, steps: object) -> None:
    with pytest.raises(ValueError, match="total_steps must be a positive int"):
        st.methods.create(name, sparsity=0.5, total_steps=steps)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7])
def test_short_trainings_end_at_the_target_too(name: str, steps: int) -> None:
    model = mlp()
    optimizer = OPTIMIZERS["sgd"](model)
    method = st.methods.create(name, sparsity=0.9, total_steps=steps)
    sparsifier = st.Sparsifier(model, optimizer, method)
    train(model, optimizer, steps)
    assert kept(sparsifier.masks) == ROWS[name](STEPS)


@pytest.mark.parametrize("name", ROWS)
def test_dtypes_are_kept_in_bfloat16(name: str) -> None:
    model = mlp(dtype=torch.bfloat16)
    optimizer = OPTIMIZERS["sgd"](model)
    sparsifier = st.Sparsifier(model, optimizer, make(name))
    train(model, optimizer, STEPS)
    assert kept(sparsifier.masks) == ROWS[name](STEPS)
    assert all(p.dtype is torch.bfloat16 for p in model.parameters())
    assert all(mask.dtype is torch.bool for mask in sparsifier.masks.values())


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
    model = mlp()
    shapes = {n: tuple(p.shape) for n, p in st.select(model).items()}
    for name in ("uniform", "er", "erk"):
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
