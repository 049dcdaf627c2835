"""`sparsetrain export`: files of a finished run, their sizes, one sentence for what cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import sparsetrain as st
from sparsetrain import cli
from tests.training_tools import run


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "a"
    run(folder, method="static", sparsity=0.98, epochs=1, batch_size=256)
    return folder


def exported(capsys, *words: str) -> dict:
    assert cli.main(["export", *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_compressed_is_the_default_and_holds_the_same_network(finished, capsys):
    result = exported(capsys, str(finished))
    path = Path(result["path"])
    assert path == finished / "model.compressed.safetensors"
    assert result["bytes"] == path.stat().st_size
    dense = (finished / "model.safetensors").stat().st_size
    assert result["dense_bytes"] == dense and result["ratio"] == result["bytes"] / dense < 0.1
    expected, state = load_file(finished / "model.safetensors"), st.compress.read(path)
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_rounded_values_are_smaller_and_the_place_is_the_user_s(finished, capsys, tmp_path):
    exact = exported(capsys, str(finished))["bytes"]
    words = ("--values", "bfloat16", "--out", str(tmp_path / "x"))
    assert exported(capsys, str(finished), *words)["bytes"] < exact
    assert st.compress.read(tmp_path / "x")


def test_dense_is_an_ordinary_file_with_zeros(finished, capsys, tmp_path):
    exported(capsys, str(finished), "--format", "dense", "--out", str(tmp_path / "x"))
    expected, state = load_file(finished / "model.safetensors"), load_file(tmp_path / "x")
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_without_json_one_line_tells_path_bytes_and_share(finished, capsys):
    assert cli.main(["export", str(finished)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{finished}/model.compressed.safetensors: ")
    assert " bytes, " in line and "% of the dense file's" in line


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("nowhere", "nowhere is not a run folder"),
        ("RUN --format tflite", "invalid choice 'tflite'"),
        ("RUN --format dense --values float16", "values is for --format compressed"),
        ("RUN --format 2:4", "2:4"),
        ("RUN --out /nowhere/x", "cannot write /nowhere/x: No such file or directory."),
    ],
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(finished, capsys, words, sentence):
    assert cli.main(["export", *words.replace("RUN", str(finished)).split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and sentence in err


def test_a_mask_is_2to4_where_no_four_neighbours_keep_three():
    good = torch.tensor([[1, 1, 0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 0, 0, 0]]).bool()
    bad = good.clone()
    bad[1, 5:7] = True
    across = torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0]]).bool()  # four in a row, two in each four
    masks = {"a": good, "b": bad, "c": across, "d": good[:, :6]}
    assert st.compress.layers_2to4(masks) == {"a": True, "b": False, "c": True, "d": False}


def test_the_reason_against_2to4_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    linear = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 10))
    pattern = torch.tensor([True, True, False, False])
    first, last = pattern.repeat(32, 16), pattern.repeat(10, 8)
    reason = st.compress.reason_against
    assert "needs a CUDA device" in str(reason(linear, {"0.weight": first}))
    assert "multiples of 32" in str(reason(linear, {"1.weight": last}))
    assert "no linear layer is 2:4" in str(reason(linear, {"0.weight": ~first | first}))
    assert "no masked linear layer" in str(reason(torch.nn.Conv2d(4, 4, 1), {}))
    with pytest.raises(ValueError, match="needs a CUDA device"):
        st.compress.convert_2to4_(linear, {"0.weight": first})
