"""`sparsetrain bench`: every engine timed, a verdict, and one sentence for wrong input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from sparsetrain.bench import run as bench_run
from sparsetrain.bench.engines import dense_engines
from sparsetrain.bench.networks import of_name, sparsity_of
from sparsetrain.bench.verdict import verdict
from sparsetrain.cli import main

ROOT = Path(__file__).parent.parent
QUICK = ["--engines", "eager", "--batch", "2", "--repeats", "2", "--image-size", "8"]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_command_times_dense_engines_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    words = ["bench", "--model", "resnet8", "--sparsity", "0.9", *QUICK, "--no-breakeven"]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["milliseconds"]) == {"eager", "channels-last", "ours"}
    assert result["sparsity"] == pytest.approx(0.9, abs=1e-4)
    assert result["bytes"]["dense"] > 4 * 77_000  # 78,042 parameters of ResNet-8, float32
    assert result["verdict"].endswith(".")
    assert torch.get_num_threads() == threads
    assert main(words) == 0
    assert capsys.readouterr().out.rstrip().splitlines()[-1].endswith(".")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give a finished run's folder or --model NAME"),
        (["somewhere", "--model", "mlp"], "one of the two"),
        (["--model", "resnet9"], "depth 6n + 2"),
        (["--model", "mlp", "--sparsity", "90"], "sparsity"),
        (["--model", "mlp", "--batch", "0"], "batch must be at least 1"),
        (["--model", "mlp", "--width", "2"], "unknown option 'width'"),
    ],
)
def test_wrong_input_ends_with_2_and_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *words]) == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Traceback" not in said


def test_the_verdict_is_plain_in_each_case() -> None:
    assert verdict(4.26, "inductor", 0.8).startswith("Sparse is 4.3 times as fast here")
    assert "the same time here; this network's zeros pay from about 80 %" in verdict(1, "a", 0.8)
    slow = verdict(0.5, "eager", None)
    assert slow.startswith("Dense is faster here: eager takes 50 % of our time")
    assert "did not win at any sparsity tried" in slow


def test_break_even_lies_between_the_sparsities_around_the_dense_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = of_name("mlp", 0.9, batch=1, image_size=4, width=1)
    spent = iter([10.0, 6.0, 2.0])
    monkeypatch.setattr(bench_run, "interleaved", lambda runs, repeats: {"ours": [next(spent)]})
    assert bench_run.breakeven(subject, 4.0) == pytest.approx(0.75)  # halfway from 70 to 80 %
    spent = iter([10.0] * 6)
    assert bench_run.breakeven(subject, 4.0) is None


def test_engines_that_are_not_installed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsetrain.bench import engines

    subject = of_name("mlp", 0.9, batch=2, image_size=4, width=1)
    monkeypatch.setattr(engines, "find_spec", lambda name: None)

    def breaks(model: object, images: object) -> None:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(engines, "_inductor", breaks)
    runs, left_out = dense_engines(subject.model, subject.images, built=True)
    assert set(runs) == {"eager", "channels-last"}
    assert left_out["inductor"] == "failed: no compiler"
    assert left_out["openvino"] == "openvino is not installed"


def test_random_zeros_are_exactly_as_many_as_asked_for() -> None:
    subject = of_name("resnet8", 0.95, batch=1, image_size=8, width=2)
    assert sparsity_of(subject.model) == pytest.approx(0.95, abs=1e-5)


def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "inference.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/inference.md", "exec"), {})
    assert "sparsity" in capsys.readouterr().out
