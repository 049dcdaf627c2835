"""A finished run's network in Python: the record's accuracy comes out of raw pixels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import sparsetrain as st
from sparsetrain.training.export import export
from tests.training_tools import fake_load, run, tiny_dataset


@pytest.fixture
def finished(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr("sparsetrain.data.load", fake_load)
    run(tmp_path / "a", method="static", sparsity=0.8, model="resnet8")
    return tmp_path / "a"


def test_raw_pixels_give_the_recorded_accuracy(finished):
    loaded, data = st.load_run(finished), tiny_dataset()
    record = json.loads((finished / "record.json").read_text())
    assert loaded.record == record
    assert not loaded.model.training
    with torch.no_grad():
        answers = loaded.model(loaded.prepare(data.test_images)).argmax(1)
    right = (answers == data.test_labels).float().mean().item()
    assert right == pytest.approx(record["test_accuracy"], abs=1e-6)
    assert loaded.inputs.classes == ("a", "b", "c", "d")
    assert loaded.inputs.shape == (1, 8, 8)
    kept = sum(int(mask.sum()) for mask in loaded.masks.values())
    assert kept == record["kept_weights"]


def test_pixels_are_scaled_as_in_training(finished):
    loaded, data = st.load_run(finished), tiny_dataset()
    feed = st.data.Loader(
        data.test_images,
        data.test_labels,
        batch_size=32,
        mean=data.mean,
        std=data.std,
        shuffle=False,
        seed=0,
        device="cpu",
    )
    images, _ = next(feed.batches(0))
    assert torch.equal(loaded.prepare(data.test_images), images)


def test_its_data_need_not_be_there(finished, monkeypatch):
    def gone(*_, **__):
        raise ValueError("no data here")

    monkeypatch.setattr("sparsetrain.data.load", gone)
    model = st.load_run(finished).model
    assert model(torch.zeros(1, 1, 8, 8)).shape == (1, 4)


def test_a_record_of_an_earlier_version_asks_the_data(finished):
    path = finished / "record.json"
    record = json.loads(path.read_text())
    del record["inputs"]
    path.write_text(json.dumps(record))
    assert st.load_run(finished).inputs.mean == (0.2,)


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 1, 8, 8), torch.zeros(8, 8).byte(), torch.zeros(1, 3, 8, 8).byte()],
)
def test_other_images_are_one_sentence(finished, images):
    with pytest.raises(ValueError, match=r"images must be uint8 of shape \[N, 1, H, W\]"):
        st.load_run(finished).prepare(images)


def test_what_is_no_finished_run_is_one_sentence(finished, tmp_path):
    with pytest.raises(ValueError, match="is not a run folder"):
        st.load_run(tmp_path / "nowhere")
    (finished / "record.json").unlink()
    with pytest.raises(ValueError, match="is not finished"):
        st.load_run(finished)


@pytest.mark.parametrize("damage", [b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_damaged_weights_are_one_sentence(finished, damage):
    (finished / "model.safetensors").write_bytes(damage)
    with pytest.raises(ValueError, match="cannot read the network of"):
        st.load_run(finished)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_onnx_file_says_what_its_images_must_be(finished):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    found = export(finished, format="onnx")
    about = {entry.key: entry.value for entry in onnx.load(found["path"]).metadata_props}
    assert json.loads(about["mean"]) == [0.2] and json.loads(about["std"]) == [0.2]
    assert json.loads(about["classes"]) == ["a", "b", "c", "d"]
    assert "(x / 255 - mean) / std" in about["images"]
