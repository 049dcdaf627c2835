"""What the tests of interruptions and hostile files share."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsetrain.training.progress import Reporter


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.target),))


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], object]) -> None:
    """Do something at the end of the n-th step, before its checkpoint."""
    left = iter(range(number, -1, -1))

    def advance(_: Reporter) -> None:
        if next(left, None) == 1:
            act()

    monkeypatch.setattr(Reporter, "advance", advance)


def metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without their times."""
    lines = [json.loads(row) for row in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]
