"""The options a method adds to the settings of a run, as a dataclass of its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

# Given by the run itself, never as an option of the method.
_FROM_THE_RUN = frozenset({"sparsity", "total_steps", "masks"})


@dataclass(frozen=True)
class ArtOptions:
    """ART's three phases, and the regulariser of the second.

    Source: Glandorf et al. 2023, arXiv 2308.07163. Deviates: the regularising phase has a cap.
    """

    dense_epochs: int | None = None
    """Epochs before the regulariser starts; None is a quarter of all."""
    max_regularize_epochs: int | None = None
    """Most epochs with the regulariser; None is half of what then remains."""
    finetune_epochs: int | None = None
    """Epochs with the fixed mask; None is what is left of `epochs`, a number replaces `epochs`."""
    regularizer: Literal["hypersparse", "l1", "l2"] = "hypersparse"
    """What drives weights to zero."""
    strength: float | None = None
    """Factor of the regulariser in its first epoch; None is the source's 5e-6 at its 782 steps an
    epoch, more where there are fewer."""
    strength_factor: float | None = None
    """Growth of that factor per epoch; None: 40 times the first in the last epoch allowed."""
    window: int = 3
    """Epochs over which the pruned copy's accuracy is averaged; odd."""
    recalibrate: bool = False
    """Recompute the pruned copy's batch-norm statistics before it is judged."""


@cache  # one class a method, so that equal settings are equal
def options_type(method: str) -> type:
    """The dataclass of a method's own options.

    Args:
        method: a name the registry knows.
    Returns:
        `ArtOptions` for ART, else a frozen dataclass made of the registry's entry.
    """
    if method == "art":
        return ArtOptions
    from sparsetrain import methods

    entry = methods.get(method)
    return _from_entry(entry.name, tuple(o for o in entry.options if o.name not in _FROM_THE_RUN))


def _from_entry(name: str, entries: tuple[Any, ...]) -> type:
    import tyro

    fields = [
        (
            o.name,
            Annotated[o.type, tyro.conf.arg(help=o.help)],
            dataclasses.field(default=o.default),
        )
        for o in entries
    ]
    title = "".join(part.capitalize() for part in name.split("-")) + "Options"
    return dataclasses.make_dataclass(title, fields, frozen=True)
