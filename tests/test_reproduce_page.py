"""A published table as one page: what stands on it, and how it looks in a browser."""

from __future__ import annotations

import re
from html import unescape

import pytest

from sparsetrain import cli
from sparsetrain.experiments.reproduce.outcome import Outcome, outcomes
from sparsetrain.experiments.reproduce.plan import plan
from sparsetrain.experiments.reproduce.tables import Scale, table
from sparsetrain.report.reproduced import reproduced_figures, reproduced_page
from tests.browser_tools import CHROMIUM, look_at
from tests.sweep_tools import make_runs_quick

SEEDS = (0.0, 0.01, 0.02)


def _found(name: str, scale: Scale, accuracy: float = 0.9, *, dense: float = 0.95) -> list[Outcome]:
    """As if all cells that can be run had been, but for those of the last line."""
    cells = plan(table(name), scale)
    rows = {
        run.key: {"test_accuracy": (dense if cell.dense else accuracy) + more}
        for cell in cells
        for run, more in zip(cell.runs, SEEDS, strict=False)
        if cell.line != cells[-1].line
    }
    return outcomes(cells, rows, set(), scale)


def _cells(page: str) -> list[list[str]]:
    rows = re.findall(r"<tr>(<td.*?)</tr>", page)
    return [[unescape(c) for c in re.findall(r"<td[^>]*>(.*?)</td>", row)] for row in rows]


def test_the_page_has_published_ours_difference_and_what_was_not_run():
    page = reproduced_page(table("granet"), _found("granet", "full"), "full")
    cells = _cells(page)
    assert len(cells) == 100
    # spec: methods.md C2. Three seeds of 90, 91 and 92 %.
    assert [
        *("SNIP", "90 %", "93.63 [2]", "91.00 ± 1.00 (n=3)", "-2.63", "run", "160"),
    ] in cells
    assert ["GraNet from dense", "90 %", "93.80 ± 0.10 [1]", "-", "-", "not run", "160"] in cells
    assert "100 cells: 88 run, 12 not run." in page
    assert "(quoting arXiv 2106.10404 / arXiv 2002.07376) [second-hand]" in page
    assert "http" not in re.sub(r"http://www.w3.org/\S+", "", page)


def test_ours_are_points_with_spread_and_published_numbers_rings():
    (figure,) = reproduced_figures(_found("granet", "full"), "full")
    panels = {chart.title: {s.name: s for s in chart.series} for chart in figure.charts}
    assert len(panels) == 4
    vgg = panels["VGG-19, CIFAR-10"]
    ours, there = vgg["SNIP"], vgg["SNIP, published"]
    assert (ours.x, ours.form, ours.hollow) == ([0.9, 0.95, 0.98], "both", ())
    assert ours.y == pytest.approx([91.0] * 3) and ours.spread == pytest.approx([1.0] * 3)
    assert (there.x, there.y, there.hollow) == (ours.x, [93.63, 93.43, 92.05], (0, 1, 2))
    assert there.color == ours.color and not there.listed
    # Of a line that has not been run, the legend has the published numbers.
    assert "GraNet from dense" not in vgg and vgg["GraNet from dense, published"].listed
    assert (vgg["published dense"].y, vgg["published dense"].level) == ((93.85,), True)
    assert vgg["dense"].y == pytest.approx((96.0,))


def test_at_a_smaller_scale_what_sparsity_costs_is_drawn_for_both():
    found = _found("hypersparse-comparison", "small")
    accuracy, cost = reproduced_figures(found, "small")
    assert "ResNet-32 of double width, CIFAR-10; VGG-19, CIFAR-10." in accuracy.text
    panel = {s.name: s for s in cost.charts[1].series}
    assert panel["LTH"].y == pytest.approx([-5.0] * 5)
    assert panel["LTH, published"].y[0] == pytest.approx(93.51 - 94.23)
    assert "SNIP, published" not in panel  # its dense network is not known
    assert panel["dense"].y == (0.0,)
    assert [o.difference for o in found if o.cell.line == "LTH"].count(None) == 7


def test_the_command_writes_the_page_and_prints_it(monkeypatch, tmp_path, capsys):
    make_runs_quick(monkeypatch, tmp_path)
    words = ["reproduce", "hypersparse", "--epochs", "4"]
    assert cli.main([*words, "--dry-run", "--page", "page.html"]) == 0
    out, err = capsys.readouterr()
    page = (tmp_path / "page.html").read_text()
    assert "5 cells: 5 not run." in out and err.splitlines()[-1] == "page: page.html"
    assert _cells(page)[1] == ["ART, HyperSparse", "90 %", "94.22 [1]", "-", "-", "not run", "4"]
    assert cli.main([*words, "--format", "html"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("<!doctype html>") and "5 cells: 5 run." in printed
    assert cli.main([*words, "--page", "nowhere/page.html"]) == 2
    assert "cannot write nowhere/page.html: there is no folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt install chromium)")
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize(
    ("name", "scale", "panels"),
    [("granet", "full", 4), ("hypersparse-comparison", "small", 4), ("rigl-imagenet", "smoke", 2)],
)
def test_the_page_is_whole_and_readable(tmp_path, name, scale, panels, width):
    page = reproduced_page(table(name), _found(name, scale), scale)
    seen = look_at(page, tmp_path, width=width)
    assert (seen["width"], seen["pictures"]) == (width, panels)
    assert seen["errors"] == seen["loaded"] == seen["addresses"] == []
    assert seen["overlaps"] == seen["cut"] == seen["empty"] == []
    assert seen["scroll"] <= 0
    assert seen["tables"] and all(right for _, _, right in seen["tables"])
    assert all(rows > 1 for _, rows in seen["files"])
    assert seen["dark"] != seen["light"]
