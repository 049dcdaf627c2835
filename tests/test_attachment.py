"""What a Sparsifier holds on to: whole states, parameters of its own, and those of the model."""

from __future__ import annotations

import copy

import pytest
import torch

import sparsetrain as st
from tests.nets import mlp


def attached() -> tuple[torch.nn.Sequential, torch.optim.SGD, st.Sparsifier]:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, optimizer, st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.9))


def art(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> st.ART:
    return st.ART(
        model, optimizer, sparsity=0.9, dense_epochs=1, max_regularize_epochs=3, finetune_epochs=1
    )


def imp(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> st.IMP:
    return st.IMP(model, optimizer, sparsity=0.9, epochs_per_round=2)


@pytest.mark.parametrize("part", ["method", "masks", "memory", "generator"])
def test_a_state_that_lacks_a_part_is_one_sentence_and_changes_nothing(part: str) -> None:
    _, _, sparsifier = attached()
    before = sparsifier.state_dict()
    state = {name: value for name, value in before.items() if name != part}
    with pytest.raises(ValueError, match=f"the state lacks {part}: give what `state_dict"):
        sparsifier.load_state_dict(state)
    after = sparsifier.state_dict()
    assert all(torch.equal(mask, before["masks"][name]) for name, mask in after["masks"].items())


def test_a_model_s_state_is_told_apart_by_the_engine_and_the_drivers() -> None:
    model, _, sparsifier = attached()
    with pytest.raises(ValueError, match="the state lacks method, step, masks"):
        sparsifier.load_state_dict(model.state_dict())
    for make in (art, imp):
        model = mlp()
        driver = make(model, torch.optim.SGD(model.parameters(), lr=0.1))
        with pytest.raises(ValueError, match="the state lacks"):
            driver.load_state_dict(model.state_dict())
        whole = driver.state_dict()
        with pytest.raises(ValueError, match="the state lacks masks"):
            engine = {n: v for n, v in whole["sparsifier"].items() if n != "masks"}
            driver.load_state_dict({**whole, "sparsifier": engine})
        driver.load_state_dict(whole)


def test_a_second_engine_is_refused_the_parameters_of_the_first_until_it_lets_go() -> None:
    model, optimizer, first = attached()
    method = st.methods.static(sparsity=0.5)
    other = torch.optim.Adam(model.parameters())
    for late in (optimizer, other):
        with pytest.raises(ValueError, match=r"masks 0\.weight already: finalize\(\) or detach"):
            st.Sparsifier(model, late, method)
    with pytest.raises(ValueError, match=r"another Sparsifier masks 4\.weight"):
        st.Sparsifier(model, other, method, include="4.weight")
    with pytest.raises(ValueError, match="another Sparsifier masks"):
        art(model, other)
    first.finalize()
    second = st.Sparsifier(model, optimizer, method)
    first.detach()  # as often as one likes
    with pytest.raises(ValueError, match="another Sparsifier masks"):
        first.attach(model, optimizer)
    second.detach()
    first.attach(model, optimizer)
    first.attach(model, other)  # its own parameters are no hindrance
    assert first.sparsity == pytest.approx(0.9, abs=0.01)


def test_engines_on_other_parameters_copies_and_forgotten_ones_are_no_hindrance() -> None:
    model, optimizer, _ = attached()
    method = st.methods.static(sparsity=0.5)
    copied = copy.deepcopy((model, optimizer, _))
    with pytest.raises(ValueError, match="another Sparsifier masks"):
        st.Sparsifier(copied[0], torch.optim.SGD(copied[0].parameters(), lr=0.1), method)
    optimizer, _ = torch.optim.SGD(model.parameters(), lr=0.1), None
    st.Sparsifier(model, optimizer, method)  # the first one and its optimizer are garbage
    net = mlp()
    halves = torch.optim.SGD(net.parameters(), lr=0.1)
    st.Sparsifier(net, halves, method, include="0.weight")
    st.Sparsifier(net, halves, method, exclude="0.weight")


def test_an_engine_that_could_not_be_made_takes_nothing() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match="no mask"):
        st.Sparsifier(model, optimizer, st.methods.static(masks={}))
    st.Sparsifier(model, optimizer, st.methods.static(sparsity=0.5))


def test_parameters_that_loading_replaced_are_told_instead_of_a_wrong_sparsity() -> None:
    model, _, sparsifier = attached()
    dense = mlp(seed=1).state_dict()
    model.load_state_dict(dense)
    assert sparsifier.sparsity == pytest.approx(0.9, abs=0.01)
    model.load_state_dict(dense, assign=True)
    for ask in (lambda: sparsifier.sparsity, sparsifier.summary, sparsifier.state_dict):
        with pytest.raises(ValueError, match=r"0\.weight was replaced .*: load without assign"):
            ask()
    with pytest.raises(ValueError, match="was replaced"):
        sparsifier.finalize()
    sparsifier.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert sparsifier.summary()
    zeros = sum(int((weight == 0).sum()) for weight in sparsifier.weights.values())
    assert zeros / sum(weight.numel() for weight in sparsifier.weights.values()) > 0.89
    sparsifier.finalize()


def test_a_mask_update_notices_replaced_parameters() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    st.Sparsifier(model, optimizer, st.methods.set(sparsity=0.8, total_steps=9, update_every=2))
    model.load_state_dict(mlp(seed=1).state_dict(), assign=True)
    optimizer.step()
    with pytest.raises(ValueError, match="was replaced"):
        optimizer.step()


def test_a_parametrization_moves_a_parameter_and_replaces_nothing() -> None:
    model, _, sparsifier = attached()
    torch.nn.utils.parametrizations.weight_norm(model[0])
    torch.nn.utils.parametrize.register_parametrization(model[2], "weight", torch.nn.Identity())
    assert sparsifier.summary()
