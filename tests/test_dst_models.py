"""Beyond CNNs: fused attention, recurrence, 1-d and transposed convolutions train sparsely."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import sparsetrain as st
from tests.nets import kept

STEPS = 4


class LastState(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(6, nhead=2, dim_feedforward=12, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(30, 3))


def conv1d() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(5, 8, 3, padding=1), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)
    )


def transposed() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (5, 1)),
        nn.ConvTranspose2d(5, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "transformer": (encoder, "0.self_attn.in_proj_weight"),
    "lstm": (LastState, "lstm.weight_hh_l1"),
    "conv1d": (conv1d, "0.weight"),
    "conv-transpose": (transposed, "1.weight"),
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", st.methods.names("in-loop"))
def test_other_architectures_train_under_every_method(kind: str, name: str) -> None:
    make, selected = MODELS[kind]
    model = make()
    x, y = torch.randn(16, 5, 6), torch.randint(0, 3, (16,))
    model(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = st.methods.create(name, sparsity=0.8, total_steps=STEPS)
    sparsifier = st.Sparsifier(model, optimizer, method)
    first = {n: p.detach().clone() for n, p in st.select(model).items()}
    for _ in range(STEPS):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    total = st.masks.total(sparsifier.masks)
    assert kept(sparsifier.masks) == (total if name == "dense" else st.masks.kept(total, 0.8))
    assert selected in sparsifier.masks
    for n, p in st.select(model).items():
        assert not p[~sparsifier.masks[n]].any()
        assert torch.isfinite(p).all()
        assert not torch.equal(p, first[n])
