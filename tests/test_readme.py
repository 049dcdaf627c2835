"""The README's code runs, and its numbers are those of the records."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import sparsetrain as st

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_generated_blocks_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "readme.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.split("\n")[0])
def test_every_python_block_runs(
    code: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert "zeros" in capsys.readouterr().out


@pytest.mark.parametrize("side", ["-", "+"])
def test_both_sides_of_the_diff_run_and_only_ours_is_sparse(
    side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (diff,) = blocks("diff")
    code = "\n".join(line[1:] for line in diff.splitlines() if line[:1] in (" ", side) or not line)
    scope = {
        "MyNet": lambda: nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 3)),
        "loader": [(torch.randn(8, 6), torch.randint(0, 3, (8,))) for _ in range(4)],
        "loss_fn": nn.functional.cross_entropy,
        "epochs": 3,
    }
    exec(compile(code, "README.md", "exec"), scope)
    (saved,) = tmp_path.iterdir()
    weights = torch.load(saved, weights_only=True)
    zeros = sum(int((weights[f"{i}.weight"] == 0).sum()) for i in (0, 2))
    assert zeros == (162 if side == "+" else 0)  # 90 % of 6 x 20 + 20 x 3
    assert (saved.name == "sparse.pt") == (side == "+")


def test_the_page_of_methods_names_every_method_and_no_other() -> None:
    rows = re.findall(
        r"^\| \[`(\w+)`\]\(\S+\) \| ([\w-]+) \|",
        (ROOT / "docs" / "methods.md").read_text(),
        flags=re.MULTILINE,
    )
    assert dict(rows) == {name: st.methods.get(name).family for name in st.methods.names()}


@pytest.mark.parametrize(
    "page", ["README.md", "docs/architecture.md", "docs/methods.md", "docs/results.md"]
)
def test_every_link_leads_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("http") or (path.parent / target).exists(), target
