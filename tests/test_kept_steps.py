"""Steps of SGD over kept weights alone are the optimizer's, to rounding; nothing else moves."""

from __future__ import annotations

import copy
import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sparsetrain as st
from sparsetrain.kernels import native
from sparsetrain.kernels.native import Step
from sparsetrain.training.fused import FusedSGD

built = pytest.mark.skipif(native.library() is None, reason="the C++ kernels are not built")
KINDS: list[dict[str, Any]] = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "nesterov": True, "weight_decay": 1e-2},
    {"weight_decay": 1e-2, "maximize": True},
]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(64, 128, 3, padding=1)
        self.second = nn.Conv2d(128, 64, 3, padding=1)
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(F.relu(self.first(x))).mean((2, 3)))


class Trained:
    """A network with its engine, trained a step at a time, in sparse passes or not."""

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer, *, sparse: bool) -> None:
        self.net, self.optimizer = net, optimizer
        shapes = {name: tuple(w.shape) for name, w in st.select(net).items()}
        torch.manual_seed(1)
        counts = st.distributions.uniform(shapes, 0.95)
        scores = {name: torch.rand(shape) for name, shape in shapes.items()}
        masks = st.masks.keep_layerwise(scores, counts)
        self.engine = st.Sparsifier(net, optimizer, st.methods.static(masks=masks))
        self.compute = st.SparseCompute(self.engine, mode="sparse") if sparse else None

    def step(self) -> None:
        x, labels = torch.randn(4, 64, 5, 5), torch.randint(0, 10, (4,))
        if self.compute is None:
            loss = F.cross_entropy(self.net(x), labels)
        else:
            with self.compute:
                loss = F.cross_entropy(self.net(x), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def twins(kind: dict[str, Any], make: Any = torch.optim.SGD) -> tuple[Trained, Trained]:
    torch.manual_seed(0)
    net = Net().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    nets = net, copy.deepcopy(net)
    options = [{"lr": 0.1, **kind} for _ in nets]
    plain = torch.optim.SGD(nets[0].parameters(), **options[0])
    return Trained(nets[0], plain, sparse=False), Trained(
        nets[1], make(nets[1].parameters(), **options[1]), sparse=True
    )


def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each step moved without the optimizer."""
    found: list[int] = []
    real = native.sgd_

    def noted(rows: list[Step]) -> list[bool]:
        found.append(len(rows))
        return real(rows)

    monkeypatch.setattr(native, "sgd_", noted)
    return found


@built
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [torch.optim.SGD, FusedSGD])
def test_training_is_that_of_the_optimizer(
    kind: dict[str, Any], make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = taken(monkeypatch)
    dense, sparse = twins(kind, make)
    for number in range(4):
        for one in (dense, sparse):
            torch.manual_seed(number)
            one.step()
    assert steps == ([2] * 3 if kind.get("momentum") else [2] * 4)  # the first makes the buffers
    mine = dict(sparse.net.named_parameters())
    for name, expected in dense.net.named_parameters():
        torch.testing.assert_close(mine[name], expected, rtol=2e-5, atol=2e-6)
        assert mine[name].grad is not None
        masks = sparse.engine.masks
        if name in masks:
            assert not mine[name][~masks[name]].any()
            for tensor in sparse.optimizer.state.get(mine[name], {}).values():
                assert not tensor[~masks[name]].any()


@built
def test_what_others_write_to_pruned_weights_is_gone_after_the_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = taken(monkeypatch)
    _, sparse = twins({"momentum": 0.9})
    sparse.step()
    with torch.no_grad():
        sparse.engine.weights["first.weight"].add_(1.0)
    sparse.step()
    mask = sparse.engine.masks["second.weight"]
    mask.copy_(mask.roll(1, 0))  # by hand: what it prunes must go
    sparse.step()
    assert steps == [2]
    for name, weight in sparse.engine.weights.items():
        assert not weight[~sparse.engine.masks[name]].any()
    sparse.step()
    assert steps == [2, 2]


@built
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_resumed_run_ends_the_same_in_any_order_of_loading(order: tuple[int, ...]) -> None:
    def parts(one: Trained) -> tuple[Any, ...]:
        return one.net, one.optimizer, one.engine

    _, whole = twins({"momentum": 0.9})
    states: list[Any] = []
    for number in range(5):
        if number == 3:
            states = copy.deepcopy([part.state_dict() for part in parts(whole)])
        torch.manual_seed(number)
        whole.step()
    _, resumed = twins({"momentum": 0.9})
    for i in order:
        parts(resumed)[i].load_state_dict(states[i])
    for number in (3, 4):
        torch.manual_seed(number)
        resumed.step()
    expected = whole.net.state_dict()
    for name, value in resumed.net.state_dict().items():
        assert torch.equal(value, expected[name])


@built
def test_other_hooks_find_gradients_before_the_step_and_moved_weights_after_it() -> None:
    _, sparse = twins({})
    weight, old = sparse.engine.weights["first.weight"], torch.empty(0)
    moved: list[bool] = []

    def clip(*_: object) -> None:
        nonlocal old
        torch.nn.utils.clip_grad_norm_(sparse.net.parameters(), 1e-4)
        old = weight.detach().clone()

    def look(*_: object) -> None:
        moved.append(not torch.equal(weight, old) and weight.grad is not None)

    sparse.optimizer.register_step_pre_hook(clip)
    hook = sparse.optimizer.register_step_post_hook(look)
    own = sparse.optimizer._optimizer_step_post_hooks
    own.move_to_end(hook.id, last=False)  # pyright: ignore[reportAttributeAccessIssue]
    for number in range(3):
        before = weight.detach().clone()
        sparse.step()
        assert 0 < (weight - before).norm() <= 1.01e-5, number  # the learning rate is 0.1
    assert moved == [True] * 3


@built
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_bad_weight_is_named_at_its_step(value: float) -> None:
    _, sparse = twins({"momentum": 0.9})
    sparse.step()
    weight, mask = sparse.engine.weights["second.weight"], sparse.engine.masks["second.weight"]
    hooked = weight.register_hook(lambda grad: torch.where(mask, value, grad))
    with pytest.raises(FloatingPointError, match=r"step 2, in second\.weight"):
        sparse.step()
    hooked.remove()


@built
def test_a_step_that_failed_leaves_no_gradient_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sparse = twins({"momentum": 0.9})
    sparse.step()
    weight = sparse.engine.weights["second.weight"]

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("out of paper")

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="paper"):
        patched.setattr(sys.modules[torch.optim.SGD.__module__], "sgd", fails)
        sparse.step()
    assert weight.grad is None  # taken, and not yet given back
    x, labels = torch.randn(4, 64, 5, 5), torch.randint(0, 10, (4,))
    assert sparse.compute is not None
    sparse.optimizer.zero_grad()
    with sparse.compute:
        loss = F.cross_entropy(sparse.net(x), labels)
    loss.backward()
    new = weight.grad
    sparse.optimizer.step()
    assert new is not None
    assert weight.grad is new


@built
def test_other_optimizers_step_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = taken(monkeypatch)

    class Mine(torch.optim.SGD):
        pass

    for make in (Mine, torch.optim.Adam):
        _, sparse = twins({}, make)
        for _ in range(3):
            sparse.step()
    _, sparse = twins({"momentum": 0.9, "dampening": 0.5})
    for _ in range(3):
        sparse.step()
    assert steps == []


@built
@pytest.mark.parametrize("n", [0, 1, 15, 16, 100, 70_001])
@pytest.mark.parametrize("level", ["generic", "v3", "v4"])
@pytest.mark.parametrize("threads", [1, 2])
def test_kernel_moves_kept_entries_alone(n: int, level: str, threads: int) -> None:
    found = native.library()
    assert found is not None
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    found.st_use_level({"generic": 0, "v3": 3, "v4": 4}[level])
    try:
        mask, weight, grad, buffer = torch.rand(n) < 0.1, *(torch.randn(n) for _ in range(3))
        expected = buffer * 0.9 + (grad + 0.01 * weight)
        moved = weight - 0.5 * (grad + 0.01 * weight + 0.9 * expected)
        old = weight.clone(), buffer.clone()
        rows = [Step(mask, weight, grad, buffer, (0.5, 0.9, 0.01), nesterov=True)]
        assert native.sgd_(rows) == [True]
        torch.testing.assert_close(weight, torch.where(mask, moved, old[0]))
        torch.testing.assert_close(buffer, torch.where(mask, expected, old[1]))
        assert torch.equal(weight[~mask], old[0][~mask])
        assert torch.equal(buffer[~mask], old[1][~mask])
    finally:
        found.st_use_level(4)
        torch.set_num_threads(before)
