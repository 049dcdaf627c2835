"""The settings `include` and `exclude`: which weights a run prunes, under every family."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

import sparsetrain as st
from sparsetrain import data, models
from sparsetrain.training.config import TrainConfig
from sparsetrain.training.errors import BadInput
from sparsetrain.training.flags import parse_train
from sparsetrain.training.settings import build, fingerprint
from tests.training_tools import ART, fake_load, run

METHODS = {
    "static": {"epochs": 1},
    "granet": {"epochs": 2},
    "granet-regrown": {"method": "granet", "epochs": 2, "start_mask": "pruned-and-regrown"},
    "snip": {"epochs": 1},
    "grasp": {"epochs": 1},
    "synflow": {"epochs": 1, "rounds": 3},
    "smart_ratio": {"epochs": 1},
    "imp": {"epochs": 2, "rounds": 1},
    "art": ART | {"epochs": 4},
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "load", fake_load)


@pytest.mark.parametrize("name", METHODS)
def test_excluded_weights_stay_dense_and_the_target_counts_the_others(
    name: str, tmp_path: Path
) -> None:
    settings = {"method": name} | METHODS[name] | {"model": "resnet8", "sparsity": 0.5}
    record = run(tmp_path / "run", exclude=["conv1.weight", "layer3*"], **settings)
    network = models.create("resnet8", in_channels=1, num_classes=4, image_size=8)
    others = st.select(network, exclude=["conv1.weight", "layer3*"])
    assert 0 < len(others) < len(st.select(network))
    assert list(record["sparsity"]["per_layer"]) == list(others)
    assert record["kept_weights"] == st.masks.kept(sum(w.numel() for w in others.values()), 0.5)
    weights = load_file(tmp_path / "run" / "model.safetensors")
    assert int((weights["conv1.weight"] == 0).sum()) == 0


def test_only_included_weights_are_pruned(tmp_path: Path) -> None:
    record = run(tmp_path / "run", method="static", epochs=1, include=["fc2*", "fc3.weight"])
    assert set(record["sparsity"]["per_layer"]) == {"fc2.weight", "fc3.weight"}
    assert record["settings"]["include"] == ["fc2*", "fc3.weight"]


def test_all_methods_are_tried_but_the_variants_of_the_one_engine() -> None:
    tried = {st.methods.get(name.split("-")[0]).name for name in METHODS}
    assert set(st.methods.names("at-init")) | set(st.methods.names("phases")) <= tried


def test_flags_and_files_give_lists_of_names() -> None:
    words = ["--exclude", "conv1.weight", "fc.weight", "--include", "*weight"]
    sparse = parse_train(words).settings.sparse
    assert sparse.exclude == ("conv1.weight", "fc.weight")
    assert sparse.include == ("*weight",)
    assert build({"exclude": ["conv1.weight"]}).sparse.exclude == ("conv1.weight",)
    assert fingerprint(build({"exclude": ["a"]})) != fingerprint(TrainConfig())


def test_one_name_without_a_list_is_not_taken_for_its_letters() -> None:
    with pytest.raises(BadInput, match="exclude must be a list, each text, got 'fc'"):
        build({"exclude": "fc"})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"exclude": ["fc"]}, "no parameter is named exclude='fc'. Did you mean 'fc"),
        ({"include": ["conv*"]}, "no prunable weight matches include="),
        ({"exclude": ["fc*"]}, "no prunable weight matches include="),
    ],
)
def test_names_that_leave_nothing_are_refused_before_a_folder_is_made(
    settings: dict[str, list[str]], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(BadInput) as caught:
        run(tmp_path / "run", method="static", **settings)
    assert sentence in str(caught.value)
    assert not (tmp_path / "run").exists()
