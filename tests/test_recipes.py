"""Every recipe parses, says what its source says, and runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparsetrain import cli, data, models
from sparsetrain.training.check import resolve
from sparsetrain.training.config import TrainConfig
from sparsetrain.training.settings import build, read
from tests.training_tools import tiny_dataset

FOLDER = Path(__file__).parents[1] / "recipes"
# Recipes of one run; those of sweeps and searches have tests of their own.
RECIPES = [
    path for path in sorted(FOLDER.rglob("*.yaml")) if not {"grid", "space"} & set(read(path))
]
CLASSES = {"cifar10": 10, "cifar100": 100, "tiny-imagenet": 200}
# tests/test_granet_imagenet.py runs the others.
IN_MEMORY = [path for path in RECIPES if path.parent.name != "granet-imagenet"]


def _name(path: Path) -> str:
    return str(path.relative_to(FOLDER))


def test_the_demo_is_the_defaults_spelled_out():
    assert build(read(FOLDER / "demo.yaml")) == TrainConfig()


def test_the_six_pairs_of_the_source_are_there():
    pairs = {f"hypersparse/{m}-{d}.yaml" for m in ("resnet32", "vgg19") for d in CLASSES}
    assert pairs <= set(map(_name, RECIPES))


@pytest.mark.parametrize("path", RECIPES, ids=_name)
def test_a_recipe_resolves_and_its_data_set_is_known(path):
    config = resolve(build(read(path)))
    assert config.data.dataset in data.names()


@pytest.mark.parametrize("path", sorted((FOLDER / "hypersparse").iterdir()), ids=_name)
def test_the_source_s_settings_are_the_source_s(path):
    # spec: the defaults of its command line, which no pair overrides.
    config = resolve(build(read(path)))
    o, optim, sparse = config.options, config.optim, config.sparse
    assert (o.dense_epochs, o.finetune_epochs, o.window) == (60, 160, 3)
    assert (o.strength, o.strength_factor, o.regularizer) == (5e-6, 1.05, "hypersparse")
    assert (optim.optimizer, optim.lr, optim.momentum, optim.nesterov) == ("sgd", 0.1, 0.9, False)
    assert (optim.weight_decay, optim.batch_size, optim.lr_decay) == (1e-4, 64, 0.1)
    assert [m * 160 for m in optim.milestones] == [80, 120]
    assert (sparse.compat, config.data.validation) == ("paper", 0)
    pixels = config.data
    assert (pixels.crop_padding, pixels.padding_mode, pixels.flip) == (4, "zero", True)
    assert config.model.width == (2 if config.model.model == "resnet32" else None)


@pytest.mark.parametrize("path", IN_MEMORY, ids=_name)
def test_a_recipe_runs_an_epoch_of_each_phase(path, tmp_path, monkeypatch, capsys):
    real = models.create

    def create(name: str, **options: object) -> torch.nn.Module:
        with torch.device("meta"):  # the recipe's own network is built, without memory
            real(name, **options)
        return real("resnet8", **options)

    monkeypatch.setattr(models, "create", create)
    _run(path, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("path", IN_MEMORY, ids=_name)
def test_a_recipe_runs_with_its_own_network(path, tmp_path, monkeypatch, capsys):
    _run(path, tmp_path, monkeypatch, capsys)


def _run(path, tmp_path, monkeypatch, capsys) -> None:
    config = build(read(path))
    rgb = config.data.dataset in CLASSES
    tiny = tiny_dataset(
        classes=CLASSES.get(config.data.dataset, 10),
        size=32 if rgb else 8,
        channels=3 if rgb else 1,
        train=40,
    )
    monkeypatch.setattr(data, "load", lambda *_, **__: tiny)
    art = config.sparse.method == "art"
    phases = "--epochs 1"
    if art:
        phases = "--dense-epochs 1 --max-regularize-epochs 1 --finetune-epochs 1"
    words = ["train", "--config", str(path), "--out", str(tmp_path / "a"), *phases.split()]
    assert cli.main([*words, "--json", "--device", "cpu", "--batch-size", "20"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["epochs"] == (3 if art else 1)
    assert record["model"] == config.model.model
