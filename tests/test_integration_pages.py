"""The code of docs/integrations runs, both sides of each diff, and only ours is sparse."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import sparsetrain as st

from .integration_tools import LOUD
from .nets import batch, mlp

pytestmark = [pytest.mark.slow, *LOUD]

PAGES = Path(__file__).parent.parent / "docs" / "integrations"
X, Y = batch(n=64)


def scope(library: str) -> dict[str, Any]:
    """What the pages take as given: a model, data, and a way to measure."""
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=8)
    if library == "accelerate":
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return {
            "model": model,
            "optimizer": optimizer,
            "loader": loader,
            "epochs": 3,
            "loss_function": nn.functional.cross_entropy,
        }
    if library == "lightning":
        lightning = pytest.importorskip("lightning")

        class Module(lightning.LightningModule):
            def __init__(self) -> None:
                super().__init__()
                self.net = mlp()

            def training_step(self, batch: Any, index: int) -> Any:
                return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.1)

        module = Module()
        right = lambda m: float((m.net(X).argmax(1) == Y).float().mean())  # noqa: E731
        return {"module": module, "model": module, "loader": loader, "accuracy": right}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Any, labels: Any = None) -> Any:
            logits = self.net(x)
            return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}

    dataset = [{"x": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    right = lambda m: float((m.net(X).argmax(1) == Y).float().mean())  # noqa: E731
    return {"model": Net(), "dataset": dataset, "accuracy": right}


def blocks(library: str, language: str) -> list[str]:
    text = (PAGES / f"{library}.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("side", ["-", "+"])
@pytest.mark.parametrize("library", ["transformers", "lightning", "accelerate"])
def test_both_sides_of_the_diff_run_and_only_ours_is_sparse(
    library: str, side: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    (diff,) = blocks(library, "diff")
    lines = [line[1:] for line in diff.splitlines() if line[:1] in (" ", side) or not line]
    names, made = scope(library), []
    sparsifier = st.Sparsifier
    monkeypatch.setattr(
        st, "Sparsifier", lambda *args, **more: made.append(sparsifier(*args, **more)) or made[-1]
    )
    exec(compile("\n".join(lines), f"{library}.md", "exec"), names)
    weights = {n: p for n, p in names["model"].named_parameters() if n.endswith("weight")}
    zeros = sum(int((w == 0).sum()) for w in weights.values())
    if side == "-":
        assert zeros == 0
        return
    assert zeros >= 360  # 90 % of 6 x 16 + 16 x 16 + 16 x 3
    # A weight that was grown behind a dead unit is kept and still 0: count by the masks.
    masks = {name: mask for one in made for name, mask in one.masks.items()}
    kept = sum(int(mask.sum()) for mask in masks.values()) if masks else 400 - zeros
    assert kept == 40
    assert all(bool((weights[name][~mask] == 0).all()) for name, mask in masks.items())


@pytest.mark.parametrize("library", ["transformers", "lightning", "accelerate"])
def test_every_python_block_runs(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    for code in blocks(library, "python"):
        names = scope(library)
        exec(compile(code, f"{library}.md", "exec"), names)
        if "trainer" in names:
            zeros = sum(int((p == 0).sum()) for p in names["model"].parameters())
            assert zeros == 360
