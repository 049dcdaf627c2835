"""How many weights each layer keeps."""

from __future__ import annotations

from typing import NamedTuple

from ..masks import count_active
from ..types import Tensors


class LayerDensity(NamedTuple):
    """One layer under its mask.

    Attributes:
        kept: active weights.
        weights: of the dense layer.
    """

    kept: int
    weights: int

    @property
    def sparsity(self) -> float:
        """The fraction of zeros; 0 for a layer without weights."""
        return 1 - self.kept / self.weights if self.weights else 0.0


def layers(masks: Tensors) -> dict[str, LayerDensity]:
    """Kept and all weights of each layer, in the order of `masks`.

    Args:
        masks: name -> bool mask, True where the weight is active.
    """
    return {
        name: LayerDensity(kept, masks[name].numel()) for name, kept in count_active(masks).items()
    }
