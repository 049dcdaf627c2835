"""The moving average of the weights, and steps computed in parts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from sparsetrain.data import Loader
from sparsetrain.training.average import Average
from sparsetrain.training.device import Place
from sparsetrain.training.errors import BadInput, Interrupted
from sparsetrain.training.loop import part_sizes, train_epoch
from sparsetrain.training.state import RunState
from tests.nets import mlp
from tests.test_train_parallel import assert_same_run, command, environment
from tests.training_tools import fake_load, run, tiny_dataset

HERE = Place(torch.device("cpu"), bf16=False, channels_last=False)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def test_the_average_is_that_of_the_formula_and_as_sparse_as_the_mask():
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = Average(model, 0.3)
    expected = {n: t.clone() for n, t in model.state_dict().items() if t.is_floating_point()}
    mask = torch.tensor([[True, False, True], [False, True, True]])
    for step in range(1, 5):
        with torch.no_grad():
            for tensor in expected:
                model.state_dict()[tensor].normal_()
            model[0].weight.mul_(mask)
        average.update({"0.weight": mask})
        decay = min(0.3, (1 + step) / (10 + step))
        expected = {n: decay * t + (1 - decay) * model.state_dict()[n] for n, t in expected.items()}
        expected["0.weight"] *= mask
    own = {n: t.clone() for n, t in model.state_dict().items()}

    with average.shown():
        torch.testing.assert_close(
            {n: t for n, t in model.state_dict().items() if t.is_floating_point()}, expected
        )
        assert not model[0].weight[~mask].any()
    assert all(torch.equal(t, own[n]) for n, t in model.state_dict().items())


def test_a_restart_forgets_and_a_state_brings_back():
    model = mlp()
    average = Average(model, 0.9)
    average.update({})
    state = average.state_dict()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    average.restart()
    with average.shown():
        assert not any(p.any() for p in model.parameters())
    average.load_state_dict(state)
    with average.shown():
        assert all(torch.equal(t, model.state_dict()[n]) for n, t in state["weights"].items())


@pytest.mark.parametrize(
    "more",
    [
        {"method": "granet", "sparsity": 0.8},
        {"method": "art", "dense_epochs": 1, "max_regularize_epochs": 1, "sparsity": 0.5},
    ],
    ids=["granet", "art"],
)
def test_a_run_saves_and_measures_the_average_and_resumes_it_exactly(more, tmp_path, monkeypatch):
    settings = {"ema": 0.95, "epochs": 3, "model": "resnet8"} | more
    record = run(tmp_path / "a", **settings)
    state_dict = RunState.state_dict

    def stop(self):
        state = state_dict(self)
        if self.step == 7:
            raise KeyboardInterrupt
        return state

    monkeypatch.setattr(RunState, "state_dict", stop)
    with pytest.raises(Interrupted):
        run(tmp_path / "b", **settings, checkpoint_every="1it")
    monkeypatch.setattr(RunState, "state_dict", state_dict)
    again = run(tmp_path / "b", **settings, checkpoint_every="1it")

    for key in ("test_accuracy", "test_accuracy_unaveraged", "val_accuracy", "kept_weights"):
        assert again[key] == record[key]
    whole, continued = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.items())
    zeros = sum(int((whole[name] == 0).sum()) for name in record["sparsity"]["per_layer"])
    assert zeros >= record["prunable_weights"] - record["kept_weights"]
    plain = run(tmp_path / "c", **{k: v for k, v in settings.items() if k != "ema"})
    assert plain["test_accuracy"] == record["test_accuracy_unaveraged"]
    assert not torch.equal(weights(tmp_path / "c")["conv1.weight"], whole["conv1.weight"])


def epoch(part_size: int | None) -> tuple[nn.Module, tuple[float, float]]:
    data = tiny_dataset()
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    loader = Loader(
        data.train_images,
        data.train_labels,
        batch_size=14,  # the last of 64 has 8
        mean=data.mean,
        std=data.std,
        shuffle=True,
        seed=0,
        device="cpu",
        dtype=torch.float64,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    result = train_epoch(
        model, optimizer, loader.batches(0), place=HERE, lr=lambda _: 0.1, part_size=part_size
    )
    return model, (result.loss, result.accuracy)


@pytest.mark.parametrize("part_size", [1, 3, 5, 7])
def test_steps_in_parts_are_the_steps_of_whole_batches(part_size):
    (whole, result), (parts, other) = epoch(None), epoch(part_size)

    assert other == pytest.approx(result, rel=1e-6)
    for one, two in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


def test_parts_are_even_and_none_is_smaller_than_asked_for():
    for batch in range(1, 40):
        for accumulate in range(1, batch + 1):
            size = max(1, batch // accumulate)
            pieces = {len(piece) for piece in torch.arange(batch).tensor_split(batch // size)}
            assert pieces == part_sizes(batch, accumulate)
            assert min(pieces) >= size


def test_a_sparse_run_in_parts_keeps_its_counts_and_steps(tmp_path):
    whole = run(tmp_path / "a", method="granet", sparsity=0.8)
    parts = run(tmp_path / "b", method="granet", sparsity=0.8, accumulate=4)

    for key in ("steps", "kept_weights"):
        assert parts[key] == whole[key]
    assert parts["train_accuracy"] == pytest.approx(whole["train_accuracy"], abs=0.1)


def test_values_out_of_range_are_refused(tmp_path):
    for settings, sentence in (
        ({"ema": 1.0}, r"ema must be in \[0, 1\), got 1"),
        ({"accumulate": 0}, r"accumulate must be in \[1, 16\], got 0"),
        ({"accumulate": 17}, r"accumulate must be in \[1, 16\], got 17"),
    ):
        with pytest.raises(BadInput, match=sentence):
            run(tmp_path / "a", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_average_and_accumulate_as_one(parallel, tmp_path):
    words = "--method granet --ema 0.9 --accumulate 4"
    for out, processes, more in (("one", 1, ""), ("two", 2, f" --parallel {parallel}")):
        done = subprocess.run(
            command(tmp_path / out, *f"{words}{more}".split(), processes=processes),
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "two")
