"""`import sparsetrain` costs little more than the `import torch` inside it."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest


def processor_seconds(module: str) -> float:
    """Processor time of the import alone, in a new process; unlike a clock it bears other work."""
    code = (
        "import time; start = time.process_time(); "
        f"import {module}; print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.slow
def test_the_import_takes_at_most_three_tenths_more_than_torchs() -> None:
    pairs = [(processor_seconds("torch"), processor_seconds("sparsetrain")) for _ in range(6)][1:]
    torch_alone, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    assert ours <= 1.3 * torch_alone, f"{ours:.2f} s against {torch_alone:.2f} s"
