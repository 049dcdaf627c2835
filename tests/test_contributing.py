"""The walk of CONTRIBUTING.md: its method runs and keeps what every method must keep."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

import sparsetrain as st

from .nets import kept

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def walked() -> dict[str, Any]:
    torch.manual_seed(0)
    names: dict[str, Any] = {"__name__": "walk"}
    for code in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(compile(code, "CONTRIBUTING.md", "exec", dont_inherit=True), names)
    return names


def step(names: dict[str, Any], times: int, *, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(times):
        names["optimizer"].zero_grad()
        names["model"](torch.randn(16, 8, generator=generator)).square().sum().backward()
        names["optimizer"].step()


def test_the_methods_masks_move_and_its_count_stays_exact() -> None:
    names = walked()
    sparsifier = names["sparsifier"]
    before = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    counts = st.masks.count_active(before)
    step(names, 10)
    assert isinstance(names["Swap"](sparsity=0.5, total_steps=1), st.Method)
    assert st.masks.count_active(sparsifier.masks) == counts
    assert kept(sparsifier.masks) == 96  # a quarter of 8 x 32 + 32 x 4
    for name, mask in sparsifier.masks.items():
        came = int((mask & ~before[name]).sum())
        assert came == counts[name] // 10
        assert not names["model"].get_parameter(name)[~mask].any()


def test_it_resumes_to_the_bit() -> None:
    whole, again = walked(), walked()
    step(whole, 15)
    state = whole["sparsifier"].state_dict()
    again["model"].load_state_dict(whole["model"].state_dict())
    again["sparsifier"].load_state_dict(state)
    for names in (whole, again):
        step(names, 15, seed=1)
    for name, mask in whole["sparsifier"].masks.items():
        assert torch.equal(mask, again["sparsifier"].masks[name])
        assert torch.equal(*(n["model"].get_parameter(name) for n in (whole, again)))


def test_the_walk_is_at_most_50_lines_of_code() -> None:
    code = "".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 50
