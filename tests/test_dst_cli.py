"""The growing methods through the settings of a run and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

import sparsetrain as st
from sparsetrain import cli, data
from tests.training_tools import fake_load, run

IN_LOOP = ["gmp", "set", "snfs", "rigl", "itop", "granet"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", fake_load)


@pytest.mark.parametrize("name", IN_LOOP)
def test_a_run_ends_with_exactly_the_kept_weights(name: str, tmp_path: Path) -> None:
    record = run(tmp_path / "run", method=name, sparsity=0.8, epochs=2)
    assert record["kept_weights"] == st.masks.kept(record["prunable_weights"], 0.8)


def test_options_of_a_method_are_settings(tmp_path: Path) -> None:
    options = {"stop": 4, "scope": "layer", "growth": "random-unfired", "initial_sparsity": 0.0}
    record = run(tmp_path / "run", method="granet", sparsity=0.8, epochs=2, **options)
    assert record["kept_weights"] == st.masks.kept(record["prunable_weights"], 0.8)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--method rigl --stop 1.5", "stop must be an optimizer step in"),
        ("--method rigl --growth momentun", "invalid choice 'momentun' for argument '--growth'"),
        ("--method rigl --threshold 0.1", "no other drop rule reads one"),
        ("--method granet --initial-sparsity 0.95", "must not be above sparsity=0.9"),
        ("--method rigl --initial-sparsity 0.5", "unknown option '--initial-sparsity'"),
    ],
)
def test_a_bad_option_is_one_sentence_and_exit_code_2(
    words: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--model", "mlp", "--epochs", "1", *words.split()]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
