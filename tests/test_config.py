"""Settings: one tree, flat names, one sentence for each mistake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from sparsetrain.training.check import resolve
from sparsetrain.training.config import ArtOptions, TrainConfig
from sparsetrain.training.errors import BadInput
from sparsetrain.training.flags import parse_train
from sparsetrain.training.settings import build, fingerprint, flatten, read, to_yaml


def test_every_setting_survives_yaml():
    config = build({"method": "magnitude", "lr": 0.3, "milestones": [0.2], "flip": False, "at": 7})
    again = build(yaml.safe_load(to_yaml(config)))
    assert again == config
    assert again.options.at == 7


def test_flat_names_occur_once_in_the_tree():
    config = TrainConfig()
    parts = (config.data, config.model, config.sparse, config.options, config.optim, config.run)
    assert len(flatten(config)) == sum(len(vars(part)) for part in parts)


def test_yaml_numbers_without_a_dot_are_numbers():
    # YAML 1.1 reads 5e-6 as text.
    assert build({"strength": yaml.safe_load("5e-6")}).options.strength == 5e-6


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"lrr": 1}, "unknown setting of method 'art' 'lrr'. Did you mean 'lr'?"),
        ({"at": 3}, "unknown setting of method 'art' 'at'"),
        ({"method": "art2"}, "unknown method 'art2'. Did you mean 'art'?"),
        ({"method": 3}, "unknown method '3'"),
        ({"epochs": 2.5}, "epochs must be a whole number, got 2.5."),
        ({"epochs": "many"}, "epochs must be a whole number, got 'many'."),
        ({"epochs": True}, "epochs must be a whole number, got True."),
        ({"lr": "fast"}, "lr must be a number, got 'fast'."),
        ({"lr": None}, "lr must be a number, got None."),
        ({"nesterov": "yes please"}, "nesterov must be true or false"),
        ({"optimizer": "sdg"}, "optimizer must be one of sgd, adam, adamw, got 'sdg'."),
        ({"milestones": 0.5}, "milestones must be a list, each a number, got 0.5."),
        ({"padding_mode": "mirror"}, "padding_mode must be one of zero, reflect"),
        ({"width": "wide"}, "width must be a whole number"),
        ({"data_dir": 3}, "data_dir must be a path, got 3."),
    ],
)
def test_wrong_settings_are_named_with_what_is_allowed(values, sentence):
    with pytest.raises(BadInput) as caught:
        build(values)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"sparsity": 90.0}, "sparsity must be in [0, 1), got 90. Did you mean 0.9?"),
        ({"sparsity": 1.0}, "sparsity must be in [0, 1), got 1."),
        ({"sparsity": -0.1}, "sparsity must be in [0, 1), got -0.1."),
        ({"sparsity": float("nan")}, "sparsity must be in [0, 1), got nan."),
        ({"epochs": 0}, "epochs must be at least 1, got 0."),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0."),
        ({"validation": 1.0}, "validation must be in [0, 1), got 1."),
        ({"lr": 0.0}, "lr must be in (0, inf), got 0."),
        ({"lr": float("nan")}, "lr must be in (0, inf), got nan."),
        ({"milestones": [0.5, 1.5]}, "milestones must be in (0, 1), got 1.5."),
        ({"window": 4}, "window must be odd and at least 1, got 4."),
        ({"seed": -1}, "seed must be at least 0, got -1."),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov needs optimizer=sgd"),
        (
            {"epochs": 10, "dense_epochs": 5, "max_regularize_epochs": 5},
            "dense_epochs + max_regularize_epochs must be below epochs",
        ),
    ],
)
def test_values_out_of_range_are_refused(values, sentence):
    with pytest.raises(BadInput) as caught:
        resolve(build(values))
    assert str(caught.value).startswith(sentence)


def test_art_divides_the_epochs_and_leaves_some_to_fine_tune():
    for epochs in range(4, 60):
        options = resolve(build({"epochs": epochs})).options
        assert isinstance(options, ArtOptions)
        assert options.dense_epochs is not None and options.max_regularize_epochs is not None
        assert 0 < options.dense_epochs + options.max_regularize_epochs < epochs


def test_phases_given_one_by_one_replace_the_total():
    values = {"dense_epochs": 60, "max_regularize_epochs": 200, "finetune_epochs": 160}
    config = resolve(build(values))
    assert config.optim.epochs == 420
    assert resolve(config) == config


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        ({}, 0.1),
        ({"validation": 0.2}, 0.2),
        ({"compat": "paper"}, 0.0),
        # GraNet's source holds out a tenth of CIFAR-10 and reads the test set every epoch.
        ({"compat": "paper", "validation": 0.1}, 0.1),
        ({"compat": "paper", "validation": 0.0}, 0.0),
    ],
)
def test_compat_paper_trains_on_all_images_unless_told_otherwise(settings, share):
    assert resolve(build(settings)).data.validation == share


def test_the_hash_sees_settings_and_not_places():
    base = TrainConfig()
    moved = replace(base, run=replace(base.run, out=Path("x"), keep=5, resume="never"))
    assert fingerprint(moved) == fingerprint(base)
    assert fingerprint(build({"lr": 0.2})) != fingerprint(base)
    assert fingerprint(build({"strength": 1e-4})) != fingerprint(base)


def test_no_words_at_all_are_the_defaults():
    assert parse_train([]).settings == TrainConfig()


def test_flags_override_the_file_and_the_file_overrides_defaults(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("lr: 0.3\nepochs: 7\nstrength_factor: 1.5\n")
    config = parse_train(["--config", str(file), "--epochs", "9", "--seed=3"]).settings
    assert (config.optim.lr, config.optim.epochs, config.run.seed) == (0.3, 9, 3)
    assert config.options.strength_factor == 1.5


def test_another_method_on_the_command_line_drops_the_options_of_the_file_s(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("method: art\nlr: 0.3\nstrength: 1.0e-4\n")
    config = parse_train(["--config", str(file), "--method", "magnitude", "--at", "5"]).settings
    assert (config.sparse.method, config.optim.lr, config.options.at) == ("magnitude", 0.3, 5)


def test_a_method_takes_its_own_options_only():
    with pytest.raises(BadInput, match="unknown option '--strength'"):
        parse_train(["--method", "magnitude", "--strength", "1e-4"])


@pytest.mark.parametrize("text", ["- a\n- b\n", "lr: [1\n", "lr: !!python/object:os.system 1\n"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=r"a\.yaml"):
        read(file)


def test_another_method_keeps_only_options_that_mean_the_same_to_both(tmp_path: Path):
    file = tmp_path / "granet.yaml"
    file.write_text("method: granet\nstop: 0.5\nupdate_every: 7\n")
    itop = parse_train(["--config", str(file), "--method", "itop"]).settings.options
    assert (itop.update_every, itop.stop) == (7, 1.0)  # itop's stop is its last update
    gmp = parse_train(["--config", str(file), "--method", "gmp"]).settings.options
    assert (gmp.update_every, gmp.stop) == (7, 0.5)  # gmp's is where the pruning ends, as granet's
