"""The page in a browser: it loads, sorts, shows its pictures, and no text lies on another."""

from __future__ import annotations

import itertools

import pytest

from sparsetrain.cli import main
from tests.browser_tools import CHROMIUM, look_at
from tests.report_tools import make_runs
from tests.training_tools import fake_load

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (Debian: apt install chromium)"),
]


def _curves() -> str:
    """Of a study of pruning plasticity, in every way to prune and to regrow."""
    ways = itertools.product(
        *((1, 8, 160), (0.2, 0.98), ("global", "layer", "channel"), ("none", "gradient", "random"))
    )
    rows = [
        f"{epoch},{fraction},{structure},{regrow},30,0.1,{-fraction * epoch / 200},{-fraction / 2}"
        for epoch, fraction, structure, regrow in ways
    ]
    head = "epoch,fraction,structure,regrow,recover,share,plasticity,gap"
    return "\n".join([head, *rows]) + "\n"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sparsetrain.data.load", fake_load)
        make_runs(folder)
    (folder / "curves.csv").write_text(_curves())
    out = folder.parent / "page.html"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    return out.read_text()


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_whole_and_readable(page, tmp_path, width):
    found = look_at(page, tmp_path, width=width)
    assert found["width"] == width
    assert found["errors"] == []
    assert found["loaded"] == found["addresses"] == []
    assert found["overlaps"] == []
    assert found["cut"] == []
    assert found["empty"] == []
    assert found["scroll"] <= 0
    assert found["pictures"] == page.count('<figure class="panel">') > 20
    assert page.count('<section id="plasticity') == 2
    assert len(found["tables"]) == 20
    assert all(right for _, _, right in found["tables"])
    assert all(rows > 1 for _, rows in found["files"])
    assert found["dark"] != found["light"]


def test_the_checks_see_what_is_wrong(page, tmp_path):
    """The checks themselves: a page that is broken in each way is found out."""
    broken = page.replace('<text class="label" x="2" y="12">', '<text class="label" x="2" y="25">')
    broken = broken.replace('class="note end"', 'class="note" data-was="end"')
    broken = broken.replace("<h2>Results</h2>", '<h2 style="width:3000px">Results</h2>')
    broken = broken.replace("(number ? x - y", "(number ? y - y")
    broken = broken.replace("<main>", "<main><script>nothing.here();</script>")
    found = look_at(broken, tmp_path, width=390)
    assert found["overlaps"]
    assert found["scroll"] > 0
    assert found["errors"]
    assert not all(right for _, _, right in found["tables"])
