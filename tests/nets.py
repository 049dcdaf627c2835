"""Small networks, data and methods that many tests share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sparsetrain import masks as mask_algebra
from sparsetrain.prune import keep_largest
from sparsetrain.types import Masks, Memory, View


def mlp(*, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    return net.to(dtype)


def convnet(*, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def batch(
    *, seed: int = 0, n: int = 16, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator).to(dtype)
    return x, torch.randint(0, 3, (n,), generator=generator)


def loss_of(model: nn.Module, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    x, y = batch(seed=seed, dtype=dtype)
    return nn.functional.cross_entropy(model(x).float(), y)


def train(model: nn.Module, optimizer: Optimizer, steps: int, *, start: int = 0) -> None:
    dtype = next(model.parameters()).dtype
    for step in range(start, start + steps):
        optimizer.zero_grad()
        loss_of(model, seed=step, dtype=dtype).backward()
        optimizer.step()


@dataclass(frozen=True)
class Moving:
    """A method for tests: every `interval` steps half of each layer, drawn anew; it remembers."""

    interval: int = 2
    sparsity: float = 0.5

    def init(self, view: View) -> tuple[Masks, Memory]:
        return self._draw(view), {"updates": 0, "seen": torch.zeros(1)}

    def when(self, step: int) -> bool:
        return step % self.interval == 0

    def update(self, view: View, masks: Masks, memory: Memory) -> tuple[Masks, Memory]:
        grads = sum(g.abs().sum() for g in view.grads.values())
        seen = memory["seen"] + grads
        return self._draw(view), {"updates": memory["updates"] + 1, "seen": seen}

    def _draw(self, view: View) -> Masks:
        scores = {
            name: torch.rand(w.shape, generator=view.generator) for name, w in view.weights.items()
        }
        return keep_largest(scores, self.sparsity, "layer")


OPTIMIZERS: dict[str, Callable[[nn.Module], Optimizer]] = {
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3),
    "sgd-fused": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, fused=True),
    "nesterov": lambda m: torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9, nesterov=True),
    "adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.01, weight_decay=1e-3),
    "adam-amsgrad-fused": lambda m: torch.optim.Adam(
        m.parameters(), lr=0.01, amsgrad=True, fused=True
    ),
    "adamw": lambda m: torch.optim.AdamW(m.parameters(), lr=0.01),
    "rmsprop": lambda m: torch.optim.RMSprop(m.parameters(), lr=0.01, momentum=0.9, centered=True),
    "nadam": lambda m: torch.optim.NAdam(m.parameters(), lr=0.01),
    "radam": lambda m: torch.optim.RAdam(m.parameters(), lr=0.01),
    "adamax": lambda m: torch.optim.Adamax(m.parameters(), lr=0.01),
    "adadelta": lambda m: torch.optim.Adadelta(m.parameters(), lr=1.0),
    "asgd": lambda m: torch.optim.ASGD(m.parameters(), lr=0.05),
    "adagrad": lambda m: torch.optim.Adagrad(
        m.parameters(), lr=0.05, initial_accumulator_value=0.1
    ),
    "rprop": lambda m: torch.optim.Rprop(m.parameters(), lr=0.01),
    "adafactor": lambda m: torch.optim.Adafactor(m.parameters(), lr=0.01),
    "muon": lambda m: torch.optim.Muon([p for p in m.parameters() if p.ndim == 2], lr=0.01),
}


def kept(sparsifier_masks: Masks) -> int:
    return sum(mask_algebra.count_active(sparsifier_masks).values())
