"""`sparsetrain bench`: every engine timed, a verdict, and one sentence for wrong input."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsetrain.bench import run as bench_run
from sparsetrain.bench.engines import dense_engines
from sparsetrain.bench.networks import of_name, of_run, sparsity_of
from sparsetrain.bench.verdict import Findings, verdict
from sparsetrain.cli import main
from sparsetrain.training.errors import BadInput
from tests.training_tools import run

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
    assert sum(result["layers"].values()) == 10  # seven, two shortcuts, one linear
    assert result["breakeven"] is None and not result["breakeven_sought"]
    assert "any sparsity" not in result["verdict"]
    assert result["verdict"].endswith(".")
    assert torch.get_num_threads() == threads
    assert main(words) == 0
    said = capsys.readouterr().out.rstrip().splitlines()
    assert said[-1].endswith(".")
    assert re.search(r"kernels: sparse in \d+ of 10 layers", "\n".join(said))


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


def found(ratio: float, breakeven: float | None = None, **more: Any) -> str:
    """The verdict of a network of ten layers, all sparse, against the engine "eager"."""
    known = {"sparse": 10, "layers": 10, "sought": True} | more
    return verdict(Findings(ratio, "eager", breakeven=breakeven, **known))


def test_the_verdict_is_plain_in_each_case() -> None:
    fast = found(4.26, 0.8, sparse=7)
    assert fast.startswith("Sparse is 4.3 times as fast here as the fastest dense engine, eager")
    assert "sparse kernels in 7 of 10 layers" in fast
    assert "the same time here" in found(1, 0.8)
    assert "zeros pay from about 80 %" in found(1, 0.8)
    assert "zeros pay from at most 50 %" in found(1, 0.5)
    slow = found(0.5)
    assert slow.startswith("Dense is faster here: eager takes 50 % of our time")
    assert "did not win at any sparsity tried" in slow


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_where_no_layer_took_sparse_kernels_dense_is_said_to_win(ratio: float) -> None:
    said = found(ratio, 0.9, sparse=0)
    assert said.startswith("Dense is faster here: sparse kernels brought nothing in any of the 10")
    words = {
        0.5: "slower than eager, which takes 50 %",
        1.0: "as long as",
        2.0: "2.0 times as fast",
    }
    assert words[ratio] in said


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("sparse", [0, 10])
def test_a_break_even_that_nobody_sought_is_not_spoken_of(ratio: float, sparse: int) -> None:
    said = found(ratio, sparse=sparse, sought=False)
    assert "any sparsity" not in said and "pay" not in said
    assert said.endswith(".")


def test_a_run_trained_in_channels_last_is_timed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    options = {"model": "resnet8", "method": "static", "sparsity": 0.95, "batch_size": 512}
    run(folder, **options, epochs=1, channels_last=True)
    assert main(["bench", str(folder), *QUICK[:-2], "--no-breakeven", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["masks"] == "trained"
    assert result["sparsity"] == pytest.approx(0.95, abs=1e-3)
    assert result["bytes"]["compressed"] < result["bytes"]["dense"]
    assert sum(result["layers"].values()) == 10  # seven, two shortcuts, one linear
    subject = of_run(folder, 2)
    assert bench_run.breakeven(subject, 1e9) == 0.5  # which redraws the weights


def test_engines_with_wrong_results_are_not_timed() -> None:
    right = torch.tensor([1.0, -2.0])
    runs = {
        "eager": lambda: right,
        "rounded": lambda: right + 1e-6,
        "half": lambda: right + 1e-2,
        "other": lambda: right[:1],
        "nan": lambda: right * float("nan"),
        "ours": lambda: right,
    }
    good, wrong = bench_run.checked(runs, right)
    assert set(good) == {"eager", "rounded", "ours"}
    assert wrong["half"].endswith("differ from eager PyTorch's by 5e-03 of the largest")
    with pytest.raises(BadInput, match="our results differ"):
        bench_run.checked(runs | {"ours": lambda: right + 1}, right)
    with pytest.raises(BadInput, match="not finite"):
        bench_run.checked(runs, right / 0)


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


@pytest.mark.filterwarnings("ignore")
def test_a_network_that_openvino_cannot_convert_silences_nobody() -> None:
    pytest.importorskip("openvino")
    from sparsetrain.bench import engines

    class Fails(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("not to be converted")

    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    with pytest.raises(Exception, match="not to be converted"):
        engines._openvino(Fails(), torch.randn(2, 4))
    assert (root.level, root.filters, root.handlers) == before


def test_random_zeros_are_exactly_as_many_as_asked_for() -> None:
    subject = of_name("resnet8", 0.95, batch=1, image_size=8, width=2)
    assert sparsity_of(subject.model) == pytest.approx(0.95, abs=1e-5)


def test_the_code_of_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "inference.md").read_text(), re.S)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/inference.md", "exec"), {})
    assert "sparsity" in capsys.readouterr().out
