"""One small vision transformer, the digits in a fixed order, and one method, for every loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import Optimizer

import sparsetrain as st

SIZE, COUNT = 32, 256  # a batch, and the digits taken: 8 steps an epoch
STEPS = COUNT // SIZE

# Their own deprecations are not ours to mend; anything said by this package still fails a test.
LOUD = (
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.filterwarnings("error:::sparsetrain.*"),
)


class Plain(nn.Module):
    """A Hugging Face model in a plain module: its names are then saved as they are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> Any:
        return self.network(pixel_values=pixel_values, labels=labels)


def vit(*, seed: int = 0) -> nn.Module:
    """A ViT of the library's own classes, from a configuration: nothing is downloaded."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    network = ViTForImageClassification(
        ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            image_size=8,
            patch_size=2,
            num_channels=1,
            num_labels=10,
        )
    )
    return Plain(network)


def digits() -> list[dict[str, Tensor]]:
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images[:COUNT], dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels[:COUNT])
    return [{"pixel_values": a, "labels": b} for a, b in zip(x, y, strict=True)]


def batches() -> Iterator[dict[str, Tensor]]:
    items = digits()
    for at in range(0, COUNT, SIZE):
        part = items[at : at + SIZE]
        yield {key: torch.stack([item[key] for item in part]) for key in part[0]}


def accuracy(model: nn.Module) -> float:
    right = [
        (model(pixel_values=b["pixel_values"]).logits.argmax(1) == b["labels"]) for b in batches()
    ]
    return float(torch.cat(right).float().mean())


def sgd(model: nn.Module) -> Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def granet(model: nn.Module, optimizer: Optimizer, steps: int) -> st.Sparsifier:
    method = st.methods.granet(
        sparsity=0.9, initial_sparsity=0.5, total_steps=steps, update_every=3
    )
    return st.Sparsifier(model, optimizer, method, seed=1)


def art(model: nn.Module, optimizer: Optimizer, steps: int) -> st.ART:
    return st.ART(
        model,
        optimizer,
        sparsity=0.6,
        dense_epochs=1,
        max_regularize_epochs=3,
        finetune_epochs=2,
        strength=1e-4,
    )


def own_loop(attach: Callable[..., Any], *, epochs: int) -> tuple[nn.Module, Any]:
    """The reference: a loop as anybody writes it."""
    model = vit()
    optimizer = sgd(model)
    engine = attach(model, optimizer, epochs * STEPS)
    for _ in range(epochs):
        for batch in batches():
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
    engine.finalize()
    return model, engine


def assert_equal(
    first: nn.Module, first_engine: Any, second: nn.Module, second_engine: Any
) -> None:
    """Masks and every tensor of the model, to the bit."""
    for one, other in (
        (first_engine.masks, second_engine.masks),
        (first.state_dict(), second.state_dict()),
    ):
        assert one.keys() == other.keys()
        assert not [name for name in one if not torch.equal(one[name], other[name])]
