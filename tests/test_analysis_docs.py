"""docs/analysis.md: its code gives what its comments say, and it names every function."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sparsetrain import analysis
from sparsetrain.report.figures.every import _ALL

TEXT = (Path(__file__).parent.parent / "docs" / "analysis.md").read_text()


def test_the_code_gives_what_its_comments_say():
    block = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    names: dict[str, object] = {}
    exec(block, names)
    said = re.findall(r"^(st\..*?)  # (.*)$", block, flags=re.MULTILINE)
    assert len(said) == 4
    for call, shown in said:
        assert repr(eval(call, names)) == shown


def test_every_public_function_is_named():
    functions = [n for n in dir(analysis) if n.islower() and callable(getattr(analysis, n))]
    assert functions
    assert [name for name in functions if f"`{name}" not in TEXT] == []


@pytest.mark.parametrize("page", ["CHANGELOG.md", "README.md"])
def test_there_are_as_many_figures_as_are_promised(page):
    text = (Path(__file__).parents[1] / page).read_text()
    assert len(_ALL) == 21 and "twenty-one figures" in " ".join(text.split())
