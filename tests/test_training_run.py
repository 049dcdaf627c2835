"""Whole runs on a tiny data set: records, exact sparsity, resume, interruption."""

from __future__ import annotations

import errno
import json

import pytest
import torch
from safetensors.torch import load_file

from sparsetrain import masks
from sparsetrain.training import checkpoint
from sparsetrain.training.errors import BadInput, Interrupted, RunFailed
from sparsetrain.training.progress import Reporter
from sparsetrain.training.reevaluate import reevaluate
from sparsetrain.training.summary import summary
from tests.training_tools import ART, fake_load, run, run_telling

METHODS = {
    "dense": {"method": "dense"},
    "static": {"method": "static"},
    "magnitude": {"method": "magnitude", "at": 7},
    "art": ART,
    "art-paper": ART | {"compat": "paper", "finetune_epochs": 3, "validation": 0.0},
    "art-recalibrated": ART | {"recalibrate": True, "model": "resnet8", "batch_size": 24},
}
STEPS_AN_EPOCH = 3  # 64 images, a quarter held out, batches of 16


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


def _metrics(path):
    lines = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def _interrupt_after(monkeypatch, batches):
    """Ctrl-C in the middle of an epoch."""
    left = iter(range(batches))

    def advance(_):
        if next(left, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr(Reporter, "advance", advance)


@pytest.mark.parametrize("name", METHODS)
def test_exactly_the_kept_count_of_weights_is_left_in_the_file(tmp_path, name):
    record = run(tmp_path / "a", **METHODS[name])
    weights = load_file(tmp_path / "a" / "model.safetensors")
    total = sum(weights[n].numel() for n in record["sparsity"]["per_layer"])
    alive = sum(int(weights[n].count_nonzero()) for n in record["sparsity"]["per_layer"])
    expected = total if name == "dense" else masks.kept(total, 0.9)
    assert alive == record["kept_weights"]
    if name == "art-paper":  # the published rule prunes the border weight too, and its ties
        assert expected - 5 < alive < expected
    else:
        assert alive == expected
    assert record["prunable_weights"] == total


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("epochs_before", [1, 2, 3])
def test_resume_is_bit_identical_to_the_undisturbed_run(tmp_path, monkeypatch, name, epochs_before):
    whole_record = run(tmp_path / "whole", **METHODS[name])
    steps_an_epoch = whole_record["steps"] // whole_record["epochs"]
    with monkeypatch.context() as patch:
        _interrupt_after(patch, epochs_before * steps_an_epoch + 1)
        with pytest.raises(Interrupted, match=f"stopped after epoch {epochs_before} of"):
            run(tmp_path / "broken", **METHODS[name])
    assert not (tmp_path / "broken" / "record.json").exists()
    record, said = run_telling(tmp_path / "broken", **METHODS[name])
    assert f"continuing after epoch {epochs_before}." in said
    whole = load_file(tmp_path / "whole" / "model.safetensors")
    broken = load_file(tmp_path / "broken" / "model.safetensors")
    assert all(torch.equal(whole[n], broken[n]) for n in whole)
    assert _metrics(tmp_path / "whole") == _metrics(tmp_path / "broken")
    assert {**record, "seconds": None} == {**whole_record, "seconds": None}


def test_a_damaged_newest_checkpoint_costs_one_epoch_and_no_accuracy(tmp_path, monkeypatch):
    run(tmp_path / "whole", **ART)
    with monkeypatch.context() as patch:
        _interrupt_after(patch, 3 * STEPS_AN_EPOCH)
        with pytest.raises(Interrupted):
            run(tmp_path / "broken", **ART)
    newest = checkpoint.listed(tmp_path / "broken" / "checkpoint")[0]
    newest.write_bytes(newest.read_bytes()[:-10])
    _, said = run_telling(tmp_path / "broken", **ART)
    assert "is damaged and was skipped" in said
    assert "continuing after epoch 2." in said
    assert _metrics(tmp_path / "whole") == _metrics(tmp_path / "broken")


def test_a_finished_run_is_reported_and_not_touched(tmp_path):
    first = run(tmp_path / "a", method="dense")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*")}
    second, said = run_telling(tmp_path / "a", method="dense")
    assert first == second
    assert "is finished" in said
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "a").rglob("*")}


def test_other_settings_are_refused_by_name_and_the_folder_stays(tmp_path):
    run(tmp_path / "a", method="dense")
    with pytest.raises(BadInput, match=r"other settings: lr 0\.05 there and 0\.1 here\. Give"):
        run(tmp_path / "a", method="dense", lr=0.1)
    with pytest.raises(BadInput, match="method dense there and magnitude here"):
        run(tmp_path / "a", method="magnitude")
    assert (tmp_path / "a" / "record.json").exists()


def test_resume_never_refuses_a_folder_that_exists(tmp_path):
    run(tmp_path / "a", method="dense", resume="never")
    with pytest.raises(BadInput, match="exists; with --resume never give another --out"):
        run(tmp_path / "a", method="dense", resume="never")


def test_a_folder_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(BadInput, match="not empty and not a run folder"):
        run(tmp_path, method="dense")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_art_takes_the_epochs_it_is_given_in_three_phases(tmp_path):
    record = run(tmp_path / "a", **ART)
    phases = [line["phase"] for line in _metrics(tmp_path / "a")]
    assert phases == ["dense", "regularize", "regularize", "finetune"]
    assert (record["epochs"], record["steps"]) == (4, 4 * STEPS_AN_EPOCH)
    assert record["outcome"] in ("cap", "collapsed", "converged")
    assert record["dense_epochs"] == 1


def test_strength_grows_geometrically_and_pulls_in_total_as_the_source_at_this_sparsity(tmp_path):
    run(tmp_path / "a", **(ART | {"max_regularize_epochs": 3, "epochs": 5}))
    found = [m["strength"] for m in _metrics(tmp_path / "a") if "strength" in m]
    source = [5e-6 * 1.05**epoch for epoch in range(64)]
    ratio = (source[-1] / source[0]) ** 0.5
    pull = sum(source) * 782 / STEPS_AN_EPOCH * 0.1**0.5  # the root of 1 % over 10 % kept
    first = pull / (1 + ratio + ratio**2)
    assert found == pytest.approx([first, first * ratio, first * ratio**2][: len(found)])


def test_learning_rate_decays_in_the_last_phase_only(tmp_path):
    run(tmp_path / "a", **(ART | {"finetune_epochs": 4}))
    rates = {m["phase"]: [] for m in _metrics(tmp_path / "a")}
    for m in _metrics(tmp_path / "a"):
        rates[m["phase"]].append(m["lr"])
    assert set(rates["dense"] + rates["regularize"]) == {0.05}
    assert rates["finetune"] == pytest.approx([0.05, 0.05, 0.005, 0.0005])


def test_the_record_has_every_promised_field(tmp_path):
    record = run(tmp_path / "a", **ART)
    promised = (
        "schema_version method options model dataset seed sparsity kept_weights prunable_weights "
        "units epochs steps dense_train_accuracy test_accuracy test_accuracy_selected flops "
        "seconds device versions commit command"
    )
    assert set(promised.split()) <= set(record)
    assert set(record["sparsity"]) == {"target", "achieved", "per_layer"}
    assert set(record["seconds"]) == {"train", "eval", "mask_updates", "total", "processor"}
    flops = record["flops"]
    assert 0 < flops["inference_sparse"] < 0.5 * flops["inference_dense"]
    assert flops["train_dense"] == 3 * flops["inference_dense"] * 48 * 4
    assert record == json.loads((tmp_path / "a" / "record.json").read_text())


@pytest.mark.parametrize(
    ("options", "hint"),
    [({}, "; try --no-revive"), ({"growth": "random"}, ""), ({"revive": False}, "")],
)
def test_many_dead_units_are_told(tmp_path, options, hint):
    record = run(tmp_path / "a", method="rigl", sparsity=0.98, **options)
    weights = load_file(tmp_path / "a" / "model.safetensors")
    alive = [weights[name].flatten(1).any(1) for name in record["sparsity"]["per_layer"]]
    assert record["units"]["all"] == sum(map(len, alive))
    if "growth" not in options:  # what has grown at random may be zero still
        assert record["units"]["dead"] == sum(int((~layer).sum()) for layer in alive)
    dead, count = record["units"]["dead"], record["units"]["all"]
    line = (
        f"dead units             {dead} of {count} channels and neurons have no weight left{hint}"
    )
    assert line in summary(record, tmp_path).splitlines()
    few = record | {"units": {"all": count, "dead": count // 11}}
    assert "dead units" not in summary(few, tmp_path)


def test_training_flops_count_each_epoch_at_its_own_density(tmp_path):
    record = run(tmp_path / "a", method="static")
    flops = record["flops"]
    assert flops["train_sparse"] / flops["train_dense"] == pytest.approx(
        flops["inference_sparse"] / flops["inference_dense"], rel=1e-4
    )


def test_training_flops_count_each_step_at_the_masks_of_its_passes(tmp_path):
    # 48 images in batches of 16, 4 epochs: 12 steps; pruned behind the sixth, so half are dense.
    record = run(tmp_path / "a", method="magnitude", sparsity=0.9, epochs=4, batch_size=16)
    flops = record["flops"]
    assert record["steps"] == 12 and flops["train_growth"] == 0
    left = flops["inference_sparse"] / flops["inference_dense"]
    assert flops["train_sparse"] / flops["train_dense"] == pytest.approx((1 + left) / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"method": "set"}, 0),
        ({"method": "set", "growth": "gradient"}, 6),
        ({"method": "rigl"}, 6),
        ({"method": "rigl", "growth": "random"}, 0),
        ({"method": "rigl", "growth": "momentum"}, 12),
        ({"method": "rigl", "redistribution": "momentum"}, 12),
        ({"method": "snfs"}, 12),
        ({"method": "gmp"}, 0),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else None,
)
def test_gradients_of_pruned_weights_count_where_the_options_read_them(tmp_path, options, steps):
    more = {} if options["method"] == "gmp" else {"update_every": 2, "stop": 1.0}
    record = run(tmp_path / "a", sparsity=0.9, epochs=4, batch_size=16, **more, **options)
    flops, dense = record["flops"], record["flops"]["inference_dense"]
    pruned = 1 - flops["train_sparse"] / flops["train_dense"]  # on average, by operations
    expected = steps / 12 * pruned * dense * 48 * 4
    assert flops["train_growth"] == pytest.approx(expected, rel=0.03)


def test_compat_paper_reads_the_test_set_every_epoch_and_keeps_the_best(tmp_path):
    record = run(tmp_path / "a", **METHODS["art-paper"], epochs=4)
    metrics = _metrics(tmp_path / "a")
    assert record["images"] == {"train": 64, "validation": 0, "test": 32}
    assert all("test_accuracy" in m and "val_accuracy" not in m for m in metrics)
    finetuned = [m["test_accuracy"] for m in metrics if m["phase"] == "finetune"]
    assert record["test_accuracy_best"] == max(finetuned)
    assert record["test_accuracy"] == finetuned[-1]


def test_compat_paper_with_a_split_holds_out_and_still_reads_the_test_set(tmp_path):
    record = run(tmp_path / "a", **METHODS["art-paper"] | {"validation": 0.25})
    assert record["images"] == {"train": 48, "validation": 16, "test": 32}
    assert all("test_accuracy" in m for m in _metrics(tmp_path / "a"))
    assert "test_accuracy_best" in record


def test_a_run_warms_up_once_in_its_first_epochs(tmp_path):
    # 3 steps an epoch, 2 epochs of warm-up: the first steps of epochs are steps 0, 3, 6, 9.
    run(tmp_path / "a", **METHODS["art"] | {"epochs": 6, "dense_epochs": 3, "warmup": 2.0})
    rates = [m["lr"] for m in _metrics(tmp_path / "a")]
    assert rates[:4] == pytest.approx([0.05 / 7, 0.05 * 4 / 7, 0.05, 0.05])


def test_selection_is_among_the_sparsest_epochs(tmp_path):
    record = run(tmp_path / "a", method="magnitude", at=5, epochs=4)
    assert record["selected_epoch"] >= 2
    sparse = [m for m in _metrics(tmp_path / "a") if m["sparsity"] > 0]
    best = max(m["val_accuracy"] for m in sparse)
    chosen = next(m for m in sparse if m["epoch"] == record["selected_epoch"])
    assert chosen["val_accuracy"] == best


def test_without_a_validation_split_the_final_network_is_the_answer(tmp_path):
    record = run(tmp_path / "a", method="dense", validation=0.0)
    assert "test_accuracy_selected" not in record
    assert record["images"]["train"] == 64


def test_eval_reproduces_the_record(tmp_path):
    record = run(tmp_path / "a", **ART)
    result = reevaluate(tmp_path / "a", device="cpu")
    assert result["test_accuracy"] == record["test_accuracy"]
    assert result["sparsity"] == record["sparsity"]["achieved"]


def test_divergence_is_a_failed_run_with_a_sentence(tmp_path):
    said = r"epoch 1: the loss became nan at step 2 .*in the output of fc2; try a lower"
    with pytest.raises(RunFailed, match=said):
        run(tmp_path / "a", method="dense", lr=1e30)
    assert not (tmp_path / "a" / "record.json").exists()


def test_a_full_disk_is_a_failed_run_that_keeps_the_epochs_before(tmp_path, monkeypatch):
    real = checkpoint.write_atomic

    def write(path, data):
        if path.name == "epoch-00003.pt":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomic", write)
        with pytest.raises(RunFailed, match="the disk is full"):
            run(tmp_path / "a", method="dense")
    _, said = run_telling(tmp_path / "a", method="dense")
    assert "continuing after epoch 2." in said


def test_a_last_batch_of_one_image_is_not_trained_on(tmp_path):
    # 48 images in batches of 47: batch norm would refuse the last.
    record = run(tmp_path / "a", method="dense", model="resnet8", batch_size=47, epochs=1)
    assert record["steps"] == 1


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_keeps_the_zeros(tmp_path, optimizer):
    record = run(tmp_path / "a", **ART, optimizer=optimizer)
    reevaluate(tmp_path / "a", device="cpu")
    assert record["sparsity"]["achieved"] == pytest.approx(0.9, abs=1e-4)


def test_bf16_trains_and_keeps_weights_in_fp32(tmp_path):
    record = run(tmp_path / "a", **ART, precision="bf16")
    assert record["precision"] == "bf16"
    weights = load_file(tmp_path / "a" / "model.safetensors")
    assert {w.dtype for w in weights.values() if w.is_floating_point()} == {torch.float32}


def test_a_validation_share_without_an_image_is_told(tmp_path):
    record, said = run_telling(tmp_path, method="static", epochs=1, validation=0.001)
    assert said.count("validation 0.001 of 64 images holds out none") == 1
    assert "val_accuracy" not in record
    assert " 1 epoch, seed 0" in said


def test_a_layer_that_loses_its_last_weight_is_told_once(tmp_path):
    # 3 of some thousand weights cannot be in every layer.
    _, said = run_telling(tmp_path, method="snip", epochs=1, sparsity=0.9999)
    assert said.count("no weight is left in") == 1
