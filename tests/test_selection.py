"""Which parameters are prunable, by default and by name."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

import sparsetrain as st
from tests.nets import convnet, mlp


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(10, 8)
        self.position = nn.Parameter(torch.zeros(1, 4, 8))
        self.scale = nn.Parameter(torch.ones(8))
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.rnn = nn.LSTM(8, 8)
        self.up = nn.ConvTranspose1d(8, 4, 3)
        self.head = nn.Linear(8, 10, bias=False)


def test_convolutions_and_linears_in_model_order_first_and_last_included() -> None:
    assert list(st.select(convnet())) == ["0.weight", "5.weight"]


def test_attention_recurrent_and_transposed_weights_are_prunable_embeddings_and_norms_not() -> None:
    assert list(st.select(Transformer())) == [
        "encoder.self_attn.in_proj_weight",
        "encoder.self_attn.out_proj.weight",
        "encoder.linear1.weight",
        "encoder.linear2.weight",
        "rnn.weight_ih_l0",
        "rnn.weight_hh_l0",
        "up.weight",
        "head.weight",
    ]


def test_a_weight_tied_to_an_embedding_stays_dense() -> None:
    model = Transformer()
    model.head.weight = model.tokens.weight
    assert "head.weight" not in st.select(model)
    assert "tokens.weight" not in st.select(model)


def test_tied_weights_come_once_under_their_first_name() -> None:
    model = mlp()
    model[2].weight = nn.Parameter(torch.zeros(16, 16))
    model.append(nn.Linear(16, 16))
    model[5].weight = model[2].weight
    assert list(st.select(model)) == ["0.weight", "2.weight", "4.weight"]


def test_every_name_of_a_tied_weight_counts() -> None:
    model = mlp()
    model[0], model[4] = nn.Linear(16, 16), nn.Linear(16, 16)
    model[4].weight = model[0].weight
    assert list(st.select(model)) == ["0.weight", "2.weight"]
    assert list(st.select(model, exclude="4.weight")) == ["2.weight"]
    assert list(st.select(model, include="4.weight")) == ["4.weight"]
    assert list(st.select(model, include="4.*")) == ["0.weight"]
    model.register_parameter("w", model[2].weight)  # an alias without "weight" comes first
    assert list(st.select(model)) == ["2.weight", "0.weight"]


@pytest.mark.parametrize(
    "include",
    [
        "encoder.linear*",
        re.compile(r"linear\d"),
        ["encoder.linear1.weight", "encoder.linear2.weight"],
        lambda name, p: "linear" in name,
    ],
)
def test_include_takes_names_globs_regexes_and_predicates(include: object) -> None:
    chosen = st.select(Transformer(), include=include)  # type: ignore[arg-type]
    assert list(chosen) == ["encoder.linear1.weight", "encoder.linear2.weight"]


def test_a_glob_selects_no_bias_but_an_exact_name_selects_anything() -> None:
    assert list(st.select(mlp(), include="0.*")) == ["0.weight"]
    model = Transformer()
    assert list(st.select(model, include=["position", "scale", "tokens.weight"])) == [
        "position",
        "scale",
        "tokens.weight",
    ]


def test_exclude_takes_away() -> None:
    assert list(st.select(mlp(), exclude="4.weight")) == ["0.weight", "2.weight"]


def test_wrappers_leave_no_trace_in_names() -> None:
    model = mlp()
    compiled = torch.compile(model, backend="eager")
    assert list(st.select(compiled)) == list(st.select(model))
    model[0] = torch.compile(model[0], backend="eager")  # a compiled part inside
    assert list(st.select(model)) == ["0.weight", "2.weight", "4.weight"]
    assert list(st.select(nn.DataParallel(mlp()))) == ["0.weight", "2.weight", "4.weight"]
    assert list(st.select(model, include="_orig_mod.0.weight")) == ["0.weight"]


def test_a_network_that_calls_a_part_module_keeps_that_name() -> None:
    outer = nn.Module()
    outer.module = nn.Linear(3, 3)
    assert list(st.select(outer)) == ["module.weight"]


def test_nothing_left_names_what_is_prunable() -> None:
    with pytest.raises(
        ValueError, match=r"no prunable weight matches include='fc\*'\. Prunable here"
    ):
        st.select(mlp(), include="fc*")
    with pytest.raises(ValueError, match="nothing prunable"):
        st.select(nn.BatchNorm2d(3))


def test_a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"Did you mean '0\.weight'"):
        st.select(mlp(), include="0.weigth")
    with pytest.raises(ValueError, match="exclude="):
        st.select(mlp(), exclude="head.weight")
