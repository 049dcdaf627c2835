"""Helpers shared by the methods' dataclasses."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def option(default: Any, help_text: str) -> Any:
    """A dataclass field that is an option of its method, with one line of help for the CLI."""
    return field(default=default, metadata={"help": help_text})


def check_total_steps(total_steps: int) -> None:
    """Raise ValueError unless `total_steps` is a positive int."""
    if not isinstance(total_steps, int) or isinstance(total_steps, bool) or total_steps < 1:
        raise ValueError(
            f"total_steps must be a positive int, got {total_steps!r}; it counts optimizer steps, "
            "epochs x batches an epoch"
        )
