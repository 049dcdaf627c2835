"""Attention, dropout, channel shuffle, strides: copies as another name, then torch's operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import sparsetrain as st
from sparsetrain.inference.choice import Choice

from .inference_nets import trained_looking_
from .inference_tools import assert_same


class Attends(nn.Module):
    """Attention of one sequence over another, with weights or without."""

    def __init__(self, *, weights: bool) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.weights = weights

    def forward(self, x: Tensor, y: Tensor) -> Any:
        return self.attention(x, y, y, need_weights=self.weights)[0]


class Shuffles(nn.Module):
    """ShuffleNet's channel shuffle between two convolutions with groups, and a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(8, 8, 1, groups=2), nn.Conv2d(8, 8, 3, 1, 1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        y = self.first(x).view(batch, 2, channels // 2, height, width)
        y = y.transpose(1, 2).contiguous().view(batch, channels, height, width)
        return torch.cat([x.clone(), self.second(y)], 1)


class Strides(nn.Module):
    """Windows of a convolution's result by its strides in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).as_strided((x.shape[0], 4, 2, 2), (256, 64, 16, 2))


def layer(kind: type[nn.Module]) -> nn.Module:
    return kind(16, 4, 32, batch_first=True)


TOKENS = ((5, 16), (6, 16))
NETS: dict[str, tuple[nn.Module, tuple[tuple[int, ...], ...]]] = {
    "dropout": (nn.Sequential(nn.Linear(8, 8), nn.Dropout(), nn.GELU()), ((8,),)),
    "attention": (Attends(weights=False), TOKENS),
    "attention with weights": (Attends(weights=True), TOKENS),
    "encoder": (layer(nn.TransformerEncoderLayer), TOKENS[:1]),
    "decoder": (layer(nn.TransformerDecoderLayer), TOKENS),
    "shuffle": (Shuffles(), ((8, 4, 6),)),
    "strides": (Strides(), ((3, 8, 8),)),
}


@pytest.mark.parametrize("choice", ["sparse", "dense"])
@pytest.mark.parametrize("name", NETS)
def test_results_are_the_models(name: str, choice: Choice) -> None:
    torch.manual_seed(0)
    model, shapes = NETS[name]
    trained_looking_(model, sparsity=0.7)
    compiled = st.compile_sparse(model, tuple(torch.randn(3, *s) for s in shapes), choice=choice)
    for batch in (1, 3, 9):
        assert_same(compiled, model, *(torch.randn(batch, *s) for s in shapes))
