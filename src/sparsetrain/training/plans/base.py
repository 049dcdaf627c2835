"""What differs between methods in one loop: the phases of a run, its masks, and when it ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from ...phases import PhaseDriver
from ...sparsifier import Sparsifier


@dataclass(frozen=True)
class Phase:
    """A stretch of epochs with one learning-rate schedule.

    Attributes:
        name: as in the metrics.
        first: the run's epoch it began with, from 0.
        epochs: its length, or the most it can be.
        scheduled: whether the learning rate follows the schedule over it, or stays constant.
    """

    name: str
    first: int
    epochs: int
    scheduled: bool


class Plan(Protocol):
    """The phases of a run under one method."""

    @property
    def phase(self) -> Phase:
        """The phase that the next epoch belongs to."""
        ...

    @property
    def masks(self) -> Mapping[str, Tensor]:
        """name -> bool mask, True where the weight is active."""
        ...

    @property
    def engine(self) -> Sparsifier | PhaseDriver:
        """What keeps the masks."""
        ...

    @property
    def sparsity(self) -> float:
        """The fraction of zeros now."""
        ...

    @property
    def sparsifier(self) -> Sparsifier:
        """The engine at work; a phase may have its own."""
        ...

    def end_epoch(
        self, epoch: int, accuracy: float, evaluate: Callable[[nn.Module], float]
    ) -> dict[str, float]:
        """Note the end of epoch `epoch` (from 0); returns what the metrics line gains."""
        ...

    def end_after(self, epoch: int) -> int:
        """Epochs of the whole run, or the most it can take, once `epoch` are done."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the record gains."""
        ...

    @property
    def update_seconds(self) -> float:
        """Seconds that mask updates within the epochs have taken in this process."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything resume needs."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        ...

    def finalize(self) -> None:
        """Take the hooks off; the zeros stay."""
        ...
