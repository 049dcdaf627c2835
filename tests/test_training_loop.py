"""One epoch against a plain loop written out; the schedules against hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparsetrain.training.config import OptimConfig
from sparsetrain.training.device import Place
from sparsetrain.training.errors import RunFailed
from sparsetrain.training.flops import count_forward
from sparsetrain.training.loop import evaluate, train_epoch
from sparsetrain.training.optimizer import make_optimizer
from sparsetrain.training.schedule import rate, warmed

CPU = Place(torch.device("cpu"), bf16=False, channels_last=False)


def _task(sizes: tuple[int, ...] = (8, 8, 3)) -> tuple[nn.Module, list]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    return model, [(torch.randn(n, 4), torch.randint(3, (n,))) for n in sizes]


def test_an_epoch_equals_a_plain_loop():
    model, batches = _task()
    plain, _ = _task()
    optimizer = torch.optim.SGD(model.parameters(), lr=9.0, momentum=0.9)
    result = train_epoch(
        model, optimizer, batches, place=CPU, lr=lambda b: 0.1 / (b + 1), label_smoothing=0.1
    )
    reference = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9)
    losses, correct = [], 0
    for index, (x, y) in enumerate(batches):
        reference.param_groups[0]["lr"] = 0.1 / (index + 1)
        out = plain(x)
        loss = F.cross_entropy(out, y, label_smoothing=0.1)
        reference.zero_grad()
        loss.backward()
        reference.step()
        losses.append(loss.item() * len(y))
        correct += int((out.argmax(1) == y).sum())
    for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert result.loss == pytest.approx(sum(losses) / 19, rel=1e-6)
    assert result.accuracy == correct / 19


def test_evaluation_uses_running_statistics_and_restores_the_mode():
    model, batches = _task()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = evaluate(model, batches, place=CPU)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches)
    assert result.accuracy == correct / 19


def test_a_loss_that_is_not_finite_stops_the_epoch_with_a_sentence():
    model, batches = _task()
    batches[1] = (batches[1][0] * math.inf, batches[1][1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RunFailed, match="nan at step 2 of the run in the images of its batch"):
        train_epoch(model, optimizer, batches, place=CPU, lr=lambda _: 0.1)


def test_step_schedule_decays_at_the_source_s_epochs():
    optim = OptimConfig(lr=0.1, milestones=(0.5, 0.75), lr_decay=0.1)
    rates = [rate(optim, epoch * 782, 160 * 782) for epoch in range(160)]
    assert rates[:80] == [0.1] * 80
    assert rates[80:120] == pytest.approx([0.01] * 40)
    assert rates[120:] == pytest.approx([0.001] * 40)


def test_milestones_are_whole_steps_for_any_fraction():
    # 0.7 * 10 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996.
    for milestone, steps, first in ((0.7, 10, 7), (0.29, 100, 29), (0.57, 100, 57)):
        optim = OptimConfig(lr=1.0, milestones=(milestone,), lr_decay=0.5)
        rates = [rate(optim, step, steps) for step in range(steps)]
        assert rates == [1.0] * first + [0.5] * (steps - first)


def test_cosine_starts_at_lr_is_half_in_the_middle_and_never_zero():
    optim = OptimConfig(lr=0.2, schedule="cosine")
    assert rate(optim, 0, 100) == 0.2
    assert rate(optim, 50, 100) == pytest.approx(0.1)
    assert 0 < rate(optim, 99, 100) < 1e-4


def test_warm_up_of_a_step_an_epoch_is_that_of_granet_s_imagenet_code():
    # spec: lr 0.1, warm-up of 5 epochs: 0.016667, 0.033333, … 0.083333 at epoch 4, 0.1 at epoch 5.
    optim = OptimConfig(warmup=5.0)
    rates = [0.1 * warmed(optim, epoch, 1) for epoch in range(7)]
    assert rates == pytest.approx([0.1 / 6, 0.2 / 6, 0.05, 0.4 / 6, 0.5 / 6, 0.1, 0.1])
    assert [warmed(OptimConfig(), step, 10) for step in range(3)] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_without_decay_norms_only_weights_are_decayed(kind):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    before = [p.detach().clone() for p in model.parameters()]
    config = OptimConfig(optimizer=kind, lr=0.1, weight_decay=0.5, decay_norms=False)
    optimizer = make_optimizer(model, config, torch.device("cpu"))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    moved = [not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True)]
    assert moved == [True, False, False, False]


def test_constant_is_constant():
    optim = OptimConfig(lr=0.2, schedule="constant")
    assert {rate(optim, step, 10) for step in range(10)} == {0.2}


def test_flops_are_two_a_multiply_add_and_fall_with_each_layer_s_density():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 36, 5))
    counted = count_forward(model, torch.zeros(1, 3, 6, 6))
    conv, linear = 2 * 3 * 9 * 4 * 36, 2 * 144 * 5
    assert counted.total == conv + linear
    assert dict(counted.layers) == {"0.weight": conv, "2.weight": linear}
    masks = {
        "0.weight": torch.zeros(4, 3, 3, 3, dtype=torch.bool),
        "2.weight": torch.arange(720).reshape(5, 144) % 4 == 0,
    }
    assert counted.at(masks) == pytest.approx(linear / 4)
