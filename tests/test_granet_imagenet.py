"""The four ImageNet command lines of GraNet's source: what they mean, built whole, run on JPEGs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sparsetrain import cli, methods, models
from sparsetrain.masks import kept
from sparsetrain.selection import select
from sparsetrain.training.check import resolve
from sparsetrain.training.optimizer import make_optimizer
from sparsetrain.training.schedule import rate, warmed
from sparsetrain.training.session import model_options
from sparsetrain.training.settings import build, read
from tests.jpegs import write_folder

FOLDER = Path(__file__).parents[1] / "recipes" / "granet-imagenet"
NAMES = ("granet", "granet-dense-start", "gmp", "itop")
STEPS = 10009  # of an epoch: 1,281,167 images in batches of 128, less the last


def recipe(name: str):
    return resolve(build(read(FOLDER / f"{name}.yaml")))


def test_the_four_command_lines_are_there():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_says_what_its_command_line_means(name):
    config = recipe(name)
    optim = config.optim

    assert (optim.epochs, optim.batch_size, optim.lr, optim.warmup) == (100, 2 * 64, 0.1, 5)
    assert (optim.label_smoothing, optim.momentum, optim.nesterov) == (0.1, 0.9, False)
    assert (optim.weight_decay, optim.decay_norms, config.run.seed) == (1e-4, False, 17)
    assert (config.options.update_every, config.sparse.sparsity) == (4000, 0.8)
    for epoch, factor in ((4, 1.0), (29, 1.0), (30, 0.1), (60, 0.01), (90, 0.001)):
        assert rate(optim, epoch * STEPS, 100 * STEPS) == pytest.approx(0.1 * factor)
    assert warmed(optim, 0, STEPS) < 1e-4 and warmed(optim, 5 * STEPS, STEPS) == 1


@pytest.mark.parametrize("name", NAMES)
def test_its_network_is_built_whole_and_its_schedule_ends_at_the_sparsity(name):
    config = recipe(name)
    with torch.device("meta"):
        model = models.create(
            config.model.model, num_classes=1000, image_size=224, **model_options(config.model)
        )
    shapes = {key: weight.numel() for key, weight in select(model).items()}
    assert (len(shapes), sum(shapes.values())) == (54, 25_502_912)
    groups = make_optimizer(model, config.optim, torch.device("meta")).param_groups
    assert [len(group["params"]) for group in groups] == [54, 107]  # 106 of norms, a bias
    assert groups[1]["weight_decay"] == 0
    if name == "itop":
        return
    options = {k: v for k, v in vars(config.options).items() if k != "compat"}
    method = methods.create(config.sparse.method, sparsity=0.8, total_steps=100 * STEPS, **options)
    start = 0.5 if name == "granet" else 0.0
    assert method.sparsity_at(0) == start
    assert method.sparsity_at(30 * STEPS) == 0.8  # the window goes with the length of the training
    # spec: density .395289 at step 40,000 of .5 -> .2, where the window is 75 updates of 4,000;
    # here it is 300,270 steps.
    expected = 0.8 - (0.8 - start) * (1 - 40_000 / 300_270) ** 3
    assert method.sparsity_at(40_000) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_on_a_folder_of_jpegs(name, tmp_path, monkeypatch, capsys):
    real = models.create
    monkeypatch.setattr(models, "create", lambda _, **options: real("resnet18-imagenet", **options))
    root = write_folder(tmp_path / "images", classes=3, train=8, val=2)
    words = f"train --config {FOLDER / name}.yaml --data-dir {root} --image-size 32 --workers 0"
    words += f" --epochs 2 --warmup 1 --batch-size 8 --update-every 2 --out {tmp_path / 'run'}"
    assert cli.main([*words.split(), "--json", "--device", "cpu"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kept_weights"] == kept(record["prunable_weights"], 0.8)
    assert (record["steps"], record["images"]["test"]) == (6, 6)
