"""What the drivers of phase methods share: one engine at a time, replaced between phases."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .masking import check_masks, check_state
from .sparsifier import STATE, Sparsifier
from .types import Masks


class PhaseDriver(ABC):
    """Holds the Sparsifier of the current phase; `ART` and `IMP` decide when it is replaced."""

    _parameters: dict[str, nn.Parameter]
    _sparsifier: Sparsifier

    @property
    def masks(self) -> Masks:
        """name -> bool mask; all True while the network is dense."""
        return self._sparsifier.masks

    @property
    def sparsity(self) -> float:
        """The fraction of zeros now; 0 while the network is dense."""
        return self._sparsifier.sparsity

    @property
    def sparsifier(self) -> Sparsifier:
        """The engine of the current phase."""
        return self._sparsifier

    @abstractmethod
    def _make_sparsifier(self, masks: Mapping[str, Tensor] | None) -> Sparsifier:
        """An engine for these masks, or for a dense network."""

    def _replace_sparsifier(self, masks: Mapping[str, Tensor] | None) -> None:
        self._sparsifier.detach()
        self._sparsifier = self._make_sparsifier(masks)

    def _load_sparsifier(self, state: Mapping[str, Any]) -> None:
        """Load an engine's state, of whichever phase; nothing is changed where it does not fit."""
        check_state(state, STATE)
        check_masks(state["masks"], self._parameters)
        if state["method"] != type(self._sparsifier.method).__name__:
            self._replace_sparsifier(state["masks"] if state["method"] == "Static" else None)
        self._sparsifier.load_state_dict(state)
