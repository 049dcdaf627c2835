"""Tied tensors and smaller types in compressed files: stored once, by any name, never wrong."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import sparsetrain as st


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(30, 30), nn.Linear(30, 30)


def tied() -> Pair:
    model = Pair()
    model.two.weight = model.one.weight
    return model


def test_a_state_dict_s_ties_are_stored_once_like_the_model_s(tmp_path):
    model = tied()
    masks = st.prune(model, 0.9)
    from_model = st.compress.save(model, masks, tmp_path / "model")
    from_state = st.compress.save(model.state_dict(), masks, tmp_path / "state")
    assert from_state == from_model
    assert load_file(tmp_path / "state").keys() == load_file(tmp_path / "model").keys()
    back = st.compress.read(tmp_path / "state")
    assert back["two.weight"] is back["one.weight"]


def test_views_of_one_storage_that_differ_are_no_ties(tmp_path):
    whole = torch.randn(4, 4)
    state = {"whole": whole, "row": whole[0], "turned": whole.T, "none": torch.empty(0)}
    state |= {"other": whole[1], "nothing": torch.empty(0)}
    st.compress.save(state, {}, tmp_path / "views")
    back = st.compress.read(tmp_path / "views")
    assert len({id(tensor) for tensor in back.values()}) == len(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_a_mask_may_have_any_of_a_tie_s_names_and_comes_back_by_it(tmp_path):
    model = tied()
    masks = {"two.weight": torch.rand(30, 30) < 0.1}
    st.compress.save(model, masks, tmp_path / "second")
    fresh = tied()
    back = st.compress.load(tmp_path / "second", fresh)
    assert list(back) == ["two.weight"] and torch.equal(back["two.weight"], masks["two.weight"])
    assert torch.equal(fresh.one.weight, model.one.weight * masks["two.weight"])
    assert torch.equal(fresh.one.bias, model.one.bias)
    both = {"one.weight": masks["two.weight"], **masks}
    with pytest.raises(ValueError, match=r"'one.weight' and 'two.weight', one tensor; give one"):
        st.compress.save(model, both, tmp_path / "both")


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_a_value_too_large_for_the_model_s_type_is_refused_and_nothing_changed(tmp_path, sparsity):
    model = tied()
    with torch.no_grad():
        model.one.weight[3, 4] = 1e6
        model.two.bias[0] = torch.inf  # as infinite there as here
    masks = st.prune(model, sparsity) if sparsity else {}
    st.compress.save(model, masks, tmp_path / "large")
    half = copy.deepcopy(model).half()
    half.load_state_dict({name: torch.ones_like(t) for name, t in half.state_dict().items()})
    sentence = "one.weight holds 1e+06, too large for the model's float16; take bfloat16 or float32"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        st.compress.load(tmp_path / "large", half)
    assert all(bool((tensor == 1).all()) for tensor in half.state_dict().values())
    double = copy.deepcopy(model).double()
    with torch.no_grad():
        double.one.weight[3, 4] = 1e300
    st.compress.save(double, masks, tmp_path / "huge")
    with pytest.raises(ValueError, match="too large for the model's float32"):
        st.compress.load(tmp_path / "huge", tied())
    st.compress.load(tmp_path / "large", half.bfloat16())
    assert half.one.weight[3, 4].item() == pytest.approx(1e6, rel=0.01)


def test_unequal_weights_do_not_load_into_a_tied_network(tmp_path):
    untied = Pair()
    st.compress.save(untied, st.prune(untied, 0.9), tmp_path / "two")
    model = tied()
    before = model.one.weight.detach().clone()
    with pytest.raises(
        ValueError, match=r"one.weight and two.weight differ there and are one tensor"
    ):
        st.compress.load(tmp_path / "two", model)
    assert torch.equal(model.one.weight, before)
    with torch.no_grad():
        untied.two.weight.copy_(untied.one.weight)
    st.compress.save(untied, {}, tmp_path / "equal")
    st.compress.load(tmp_path / "equal", model)
    assert torch.equal(model.one.weight, untied.one.weight)
