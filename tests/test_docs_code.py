"""Every block of code of docs/ runs, and every command; what its comments say, comes out."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparsetrain import cli, data
from tests.training_tools import fake_load

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(DOCS.rglob("*.md"))}
PAGES["README.md"] = (ROOT / "README.md").read_text()

OWN_TESTS = {
    "README.md": "test_readme.py",
    "docs/migrating.md": "test_migrating.py",
    "docs/integrations/accelerate.md": "test_integration_pages.py",
    "docs/integrations/lightning.md": "test_integration_pages.py",
    "docs/integrations/transformers.md": "test_integration_pages.py",
}
"""Pages whose Python and diffs are run elsewhere, as they need more around them."""

_BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_PROGRAMS = ("sparsetrain ", "torchrun ", "make ", "pip ", "git ", "python ")


def blocks(page: str, language: str) -> list[str]:
    found = _BLOCK.findall(PAGES[page])
    return [code for title, code in found if title.split()[:1] == [language]]


def commands(page: str) -> Iterator[str]:
    """Lines of blocks that call a program, without what is said behind two spaces."""
    for title, code in _BLOCK.findall(PAGES[page]):
        if title.split()[:1] in ([], ["console"], ["text"], ["bash"]):
            for line in code.splitlines():
                if line.startswith(_PROGRAMS):
                    yield re.split(r"\s{2,}", line)[0]


def said(code: str) -> list[str]:
    """What comments behind a print claim."""
    lines = [line for line in code.splitlines() if "print(" in line and "  # " in line]
    return [line.split("  # ", 1)[1] for line in lines]


def having(language: str) -> list[str]:
    return [page for page in PAGES if page not in OWN_TESTS and blocks(page, language)]


def test_pages_left_to_other_tests_are_named_in_them() -> None:
    for page, test in OWN_TESTS.items():
        text = (ROOT / "tests" / test).read_text()
        assert Path(page).name in text or f'"{Path(page).stem}"' in text


@pytest.mark.slow
@pytest.mark.parametrize("page", having("python"))
def test_the_python_of_a_page_runs_and_prints_what_it_says(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in re.findall(r'load_run\("([^"]+)"\)', PAGES[page]):  # a finished run of digits
        words = ["train", "--model", "resnet8", "--epochs", "4", "--device", "cpu", "--out", folder]
        assert cli.main(words) == 0
        capsys.readouterr()
    names: dict[str, Any] = {"__name__": "page"}
    claims = []
    for code in blocks(page, "python"):
        exec(compile(code, page, "exec", dont_inherit=True), names)
        claims += said(code)
    printed = iter(capsys.readouterr().out.splitlines())
    assert [claim for claim in claims if claim not in printed] == []  # in this order


@pytest.mark.slow
@pytest.mark.parametrize("side", ["-", "+"])
@pytest.mark.parametrize("page", having("diff"))
def test_both_sides_of_a_diff_run_and_only_ours_is_sparse(page: str, side: str) -> None:
    for diff in blocks(page, "diff"):
        lines = [line[1:] for line in diff.splitlines() if line[:1] in (" ", side) or not line]
        names: dict[str, Any] = {
            "model": nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)),
            "loader": [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(4)],
            "loss_fn": nn.functional.cross_entropy,
            "epochs": 3,
        }
        exec(compile("\n".join(lines), page, "exec"), names)
        zeros = sum(int((p == 0).sum()) for p in names["model"].parameters() if p.ndim > 1)
        assert zeros >= 162 if side == "+" else zeros == 0  # 90 % of 6 x 20 + 20 x 3


LONG = {
    "sparsetrain sweep recipes/methods-digits.yaml": [
        "sparsetrain sweep recipes/methods-digits.yaml --dry-run"
    ],
    "sparsetrain sweep recipes/equal-budget/stage-a.yaml": [],  # test_equal_budget.py
    "sparsetrain sweep recipes/equal-budget/stage-b.yaml": [],  # it, too
    "sparsetrain sweep recipes/equal-budget/stage-c.yaml": [],
    "sparsetrain sweep recipes/equal-budget/revival.yaml": [],
    "sparsetrain sweep recipes/revival-digits.yaml": [
        "sparsetrain sweep recipes/revival-digits.yaml --dry-run"
    ],
    "sparsetrain train --dataset fashion-mnist --model resnet20 --method art --sparsity 0.98": [
        "sparsetrain train --dataset fashion-mnist --model resnet8 --method art --epochs 4"
    ],
    "sparsetrain train --config recipes/fashion-mnist-art.yaml --sparsity 0.98 --out runs/fm98": [
        "sparsetrain train --config recipes/fashion-mnist-art.yaml --sparsity 0.98 --model resnet8 "
        "--width 1 --dense-epochs 1 --max-regularize-epochs 1 --finetune-epochs 1 --out runs/fm98"
    ],
    "torchrun --nproc-per-node 4 -m sparsetrain train --parallel ddp --dataset cifar10 "
    "--model vgg19": [
        "torchrun --nproc-per-node 2 -m sparsetrain train --parallel ddp --epochs 4 --model mlp"
    ],
    "sparsetrain search recipes/search/hypersparse.yaml --trials 30 --jobs 2": [
        "sparsetrain search search.yaml --trials 2"
    ],
    "sparsetrain methods | models | datasets": [
        "sparsetrain methods",
        "sparsetrain models",
        "sparsetrain datasets",
    ],
    **{
        f"sparsetrain sweep recipes/equal-budget/stage-{stage}.yaml "
        "--records benchmarks/records/equal-budget "
        f"--save benchmarks/records/equal-budget-{stage}.json": []  # test_equal_budget.py
        for stage in "abc"
    },
    "sparsetrain report runs/stage-b benchmarks/records/equal-budget --out report.html": [
        "sparsetrain report runs/methods-digits benchmarks/records/equal-budget --out report.html"
    ],
    "sparsetrain plasticity pets-dense": [  # test_plasticity.py
        "sparsetrain plasticity pets-dense --fractions 0.5 --every 20 --recover 1"
    ],
    "sparsetrain sweep FILE --ray": [],  # test_sweep_cluster.py
}
"""Command -> what is run in its place: the same in little, or with data that are there."""

RECIPE = """
defaults: {dataset: digits, model: mlp, epochs: 2, precision: fp32, device: cpu}
grid: {method: [static, set], sparsity: [0.9]}
"""
SEARCH = """
defaults: {dataset: digits, model: mlp, method: set, sparsity: 0.9, epochs: 2, device: cpu}
space: {lr: {low: 0.01, high: 0.1, log: true}}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Path:
    """A folder with what the commands name: RUN, FILE, DIR, recipes, a finished sweep."""
    monkeypatch.chdir(tmp_path)
    loaders = {"digits": data.load}  # other data sets are not here
    monkeypatch.setattr(data, "load", lambda name, **how: loaders.get(name, fake_load)(name, **how))
    for folder in ("recipes", "benchmarks/records"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "FILE").write_text(RECIPE)
    (tmp_path / "search.yaml").write_text(SEARCH)
    (tmp_path / "DIR").mkdir()
    for run in ("RUN", "runs/methods-digits/one"):
        words = ["train", "--model", "resnet8", "--epochs", "4", "--device", "cpu", "--out", run]
        assert cli.main(words) == 0
    capsys.readouterr()
    return tmp_path


def run(command: str, capsys: Any) -> None:
    """Run one line; those of the command itself in this process."""
    program, *words = shlex.split(command)
    if program == "sparsetrain":
        try:
            code = cli.main(words)
        except SystemExit as end:  # --help
            code = end.code
        out = capsys.readouterr()
        assert code == 0, command + "\n" + out.out + out.err
        assert out.out + out.err
    elif program == "torchrun":
        whole = [sys.executable, "-m", "torch.distributed.run", *words]
        done = subprocess.run(whole, capture_output=True, text=True, check=False, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
    elif program == "make":
        assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        assert (ROOT / words[0]).exists()  # benchmarks and figures: minutes
    else:
        assert program in ("pip", "git")  # test_release.py installs


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if list(commands(p)) and p != "docs/migrating.md"]
)
def test_the_commands_of_a_page_run_one_after_the_other(
    page: str, place: Path, capsys: Any
) -> None:
    for shown in commands(page):
        for command in LONG.get(shown, [shown]):
            run(command, capsys)


def test_every_command_that_is_replaced_is_on_a_page() -> None:
    assert set(LONG) <= {command for page in PAGES for command in commands(page)}


def test_every_extra_that_a_page_names_exists() -> None:
    known = (ROOT / "pyproject.toml").read_text()
    for page, text in PAGES.items():
        for extra in re.findall(r"sparsetrain\[([\w,]+)\]", text):
            for name in extra.split(","):
                assert re.search(rf"^{name} = \[", known, re.MULTILINE), (page, name)
