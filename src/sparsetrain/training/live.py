"""Each epoch's numbers for TensorBoard, as the run goes on."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from .errors import BadInput

Show: TypeAlias = Callable[[Mapping[str, Any]], None]


def check_installed() -> None:
    """Whether TensorBoard's writer is there.

    Raises:
        BadInput: it is not.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise BadInput(
            "tensorboard is not installed; run pip install 'sparsetrain[tensorboard]', or leave "
            "--tensorboard out."
        )


@contextmanager
def shown(folder: Path | None, *, epoch: int) -> Iterator[Show]:
    """Write each line of metrics that the body gives.

    Args:
        folder: where the event files lie; None shows nothing.
        epoch: epochs trained before; what was shown of later ones is forgotten.
    """
    if folder is None:
        yield lambda line: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=epoch + 1) as writer:

        def show(line: Mapping[str, Any]) -> None:
            for name, value in line.items():
                if isinstance(value, int | float) and name != "epoch":
                    writer.add_scalar(name, value, line["epoch"])
            writer.flush()

        yield show
