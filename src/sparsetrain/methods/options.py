"""Helpers shared by the methods' dataclasses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from numbers import Integral, Real
from typing import Any

from .. import masks as mask_algebra
from .. import schedules


def option(default: Any, help_text: str) -> Any:
    """A dataclass field that is an option of its method, with one line of help for the CLI."""
    return field(default=default, metadata={"help": help_text})


def check_total_steps(total_steps: int) -> None:
    """Raise ValueError unless `total_steps` is a positive int."""
    if not isinstance(total_steps, Integral) or isinstance(total_steps, bool) or total_steps < 1:
        raise ValueError(
            f"total_steps must be a positive int, got {total_steps!r}; it counts optimizer steps, "
            "epochs x batches an epoch"
        )


def check_choice(name: str, value: object, allowed: Sequence[object], why_not: str = "") -> None:
    """Raise ValueError, with a reason if there is one, unless `value` is one of those allowed."""
    if value not in allowed:
        known = ", ".join(repr(choice) for choice in allowed)
        raise ValueError(f"{name} must be one of {known}, got {value!r}{why_not}")


def check_fraction(name: str, value: float, *, top: float = 1.0) -> None:
    """Raise ValueError unless `value` is a number in [0, top]."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value <= top:
        raise ValueError(f"{name} must be in [0, {top:g}], got {value!r}")


def step_of(name: str, value: float, total_steps: int) -> int:
    """The optimizer step that an option means.

    Args:
        name: the option, for the message.
        value: an int counts optimizer steps; a float in [0, 1] is a fraction of `total_steps`,
            rounded down; a larger whole float is a step too, because YAML and flags give floats.
        total_steps: optimizer steps of the whole training.
    Raises:
        ValueError: neither a step in [0, total_steps] nor a fraction in [0, 1].
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if number and isinstance(value, float) and 0 <= value <= 1:
        return total_steps - mask_algebra.kept(total_steps, value) if value < 1 else total_steps
    if number and 0 <= value <= total_steps and value == int(value):
        return int(value)
    raise ValueError(
        f"{name} must be an optimizer step in [0, total_steps={total_steps}] or a fraction of the "
        f"training in [0.0, 1.0], got {value!r}"
    )


def interval_of(update_every: int | None, total_steps: int) -> int:
    """Steps between two updates: as given, or `schedules.default_interval`.

    Raises:
        ValueError: not a positive int.
    """
    if update_every is None:
        return schedules.default_interval(total_steps)
    if not isinstance(update_every, Integral) or isinstance(update_every, bool) or update_every < 1:
        raise ValueError(f"update_every must be a number of steps >= 1, got {update_every!r}")
    return update_every


def check_compat(compat: str | None, parts: Sequence[object], published: Sequence[object]) -> None:
    """Raise ValueError unless `compat` is None, "none" or "paper", the latter with published parts.

    Args:
        compat: the option.
        parts: the parts that the method is made of.
        published: those that the published code has a working rule for.
    """
    check_choice("compat", compat, (None, "none", "paper"))
    if compat == "paper" and tuple(parts) != tuple(published):
        raise ValueError(
            f"compat='paper' has no rule for {', '.join(map(repr, parts))}: the published code "
            "ignores or breaks on other parts than its defaults; leave compat out"
        )


def check_gradual(initial: float, final: float) -> None:
    """Raise ValueError unless sparsity rises, or stays, from `initial` to `final`."""
    mask_algebra.check_sparsity(initial, name="initial_sparsity")
    if initial > final:
        raise ValueError(
            f"initial_sparsity must not be above sparsity={final}, got {initial}; gradual pruning "
            "only takes weights away"
        )
