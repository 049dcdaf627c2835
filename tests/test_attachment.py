"""What a Sparsifier holds on to: whole states, parameters of its own, and those of the model."""

from __future__ import annotations

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
