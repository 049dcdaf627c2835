"""The command on folders of JPEGs: a network learns, resumes exactly, says what it cannot do."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sparsetrain import cli
from sparsetrain.masks import kept
from sparsetrain.training.errors import Interrupted, RunFailed
from sparsetrain.training.state import RunState
from tests.jpegs import write_folder
from tests.test_train_parallel import assert_same_run, command, environment
from tests.training_tools import run, run_telling

SMALL = {
    "dataset": "imagenet",
    "model": "mlp",
    "method": "granet",
    "image_size": 8,
    "batch_size": 8,
    "epochs": 3,
    "workers": 0,
    "lr": 0.1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"), classes=3, train=16, val=6)


def settings(folder: Path, **more: object) -> dict[str, object]:
    return SMALL | {"data_dir": str(folder)} | more


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


def test_a_network_learns_the_colours_and_the_record_counts_the_images(folder, tmp_path):
    record = run(tmp_path / "a", **settings(folder, epochs=10, workers=1, sparsity=0.5))

    assert record["dataset"] == "imagenet"
    assert record["images"] == {"train": 36, "validation": 12, "test": 18}
    assert record["test_accuracy"] > 0.6
    assert record["sparsity"]["achieved"] == pytest.approx(0.5, abs=1e-3)


def test_a_run_stopped_in_mid_epoch_ends_as_the_whole_one(folder, tmp_path, monkeypatch):
    run(tmp_path / "a", **settings(folder))
    steps = []
    state_dict = RunState.state_dict

    def stop_at_seven(self):
        steps.append(self.step)
        state = state_dict(self)
        if self.step == 7:
            raise KeyboardInterrupt
        return state

    monkeypatch.setattr(RunState, "state_dict", stop_at_seven)
    with pytest.raises(Interrupted):
        run(tmp_path / "b", **settings(folder, checkpoint_every="1it"))
    monkeypatch.undo()
    _, said = run_telling(tmp_path / "b", **settings(folder, checkpoint_every="1it", workers=1))

    assert steps == [1, 2, 3, 4, 5, 6, 7] and "after step 1 of 5" in said
    whole, continued = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert all(torch.equal(tensor, continued[name]) for name, tensor in whole.items())


def test_art_judges_and_evaluates_on_the_disk_too(folder, tmp_path):
    more = {"method": "art", "dense_epochs": 1, "max_regularize_epochs": 1, "sparsity": 0.5}
    record = run(tmp_path / "a", **settings(folder, epochs=3, **more))
    assert record["epochs"] == 3 and record["kept_weights"] * 2 == record["prunable_weights"]


def test_eval_reads_the_images_again(folder, tmp_path, capsys):
    run(tmp_path / "a", **settings(folder, epochs=1))
    assert cli.main(["eval", str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["difference"] == 0


def test_a_corrupt_image_ends_the_run_in_one_sentence(tmp_path):
    root = write_folder(tmp_path / "images", classes=2, train=8, val=2)
    bad = root / "train" / "c1" / "train_0003.JPEG"
    bad.write_bytes(b"no image")
    for workers in (0, 1):
        with pytest.raises(RunFailed) as error:
            run(tmp_path / f"{workers}", **settings(root, workers=workers))
        assert f"epoch 1: {bad} cannot be read as an image" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--crop-padding 4", "crop_padding and padding_mode are for data sets in memory"),
        ("--data-dir /nowhere", "give --data-dir FOLDER where train/CLASS"),
        ("--workers -1", "workers must be at least 0, got -1"),
        ("--prefetch 0", "prefetch must be at least 1, got 0"),
        ("--image-size 0", "image_size must be at least 1, got 0"),
        ("--init fan_in", "unknown option 'init' of resnet8"),
        ("--dataset hf:no/such/thing --no-download", "hf:no/such/thing"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(flags, sentence, folder, tmp_path, capsys):
    words = f"train --dataset imagenet --data-dir {folder} --image-size 32 {flags}".split()
    assert cli.main([*words, "--out", str(tmp_path / "a")]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_train_a_resnet_on_some_hundred_jpegs_and_repeat_it(parallel, tmp_path):
    # Batch norm sees half a batch on each process, so one process gives another network.
    root = write_folder(tmp_path / "images", classes=4, train=64, val=16)
    words = f"--dataset imagenet --data-dir {root} --image-size 32 --model resnet18-imagenet"
    words += " --method granet --sparsity 0.8 --epochs 2 --batch-size 32 --lr 0.02 --warmup 1"
    words += f" --label-smoothing 0.1 --no-decay-norms --init fan_in --parallel {parallel}"
    for out, workers in (("one", 1), ("again", 0)):
        done = subprocess.run(
            command(tmp_path / out, *words.split(), f"--workers={workers}", processes=2),
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
            env=environment(),
        )
        assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "one", tmp_path / "again")
    record = json.loads((tmp_path / "one" / "record.json").read_text())
    assert record["kept_weights"] == kept(record["prunable_weights"], 0.8)
    assert record["images"]["train"] == 230 and record["steps"] == 16
    assert record["train_accuracy"] > 0.4  # of four classes
