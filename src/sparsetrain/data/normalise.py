"""Raw pixels to network inputs: scale to 0..1, subtract the mean, divide by the deviation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Normalise:
    """(x / 255 - mean) / std as one factor and one term for each channel; `normaliser` makes it.

    Attributes:
        scale: 1 / (255 std), repeated along a row of pixels, float32 or wider.
        shift: -mean / std, likewise.
        dtype: of the result; arithmetic is in the factors' type.
        channels_last: memory format of the result.
    """

    scale: Tensor
    shift: Tensor
    dtype: torch.dtype
    channels_last: bool

    def __call__(self, images: Tensor) -> Tensor:
        """Normalise a batch, uint8 [B, H, W, C] -> [B, C, H, W]."""
        batch, height, width, channels = images.shape
        rows = images.view(batch, height, width * channels).to(self.scale.dtype)
        rows = rows.mul_(self.scale).add_(self.shift).to(self.dtype)
        normalised = rows.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return normalised if self.channels_last else normalised.contiguous()


def normaliser(
    mean: Sequence[float],
    std: Sequence[float],
    *,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    channels_last: bool,
) -> Normalise:
    """Factors of the normalisation, computed in float64 and rounded once.

    Args:
        mean: of each channel, pixels scaled to 0..1.
        std: of each channel, pixels scaled to 0..1.
        width: pixels of an image's row.
        device: of the images.
        dtype: of the result.
        channels_last: memory format of the result.
    Returns:
        the normalisation, to be called on batches.
    Raises:
        ValueError: mean and std differ in length, or a std is not above 0.
    """
    if len(mean) != len(std) or not all(value > 0 for value in std):
        raise ValueError(
            "mean and std must have one number for each channel, std above 0, "
            f"got {tuple(mean)} and {tuple(std)}."
        )
    deviation = torch.tensor(std, dtype=torch.float64)
    shift = -torch.tensor(mean, dtype=torch.float64) / deviation
    wide = torch.promote_types(dtype, torch.float32)
    return Normalise(
        # A row of factors for a row of pixels: broadcasting over 3 channels alone is 3x slower.
        scale=(1 / (255 * deviation)).repeat(width).to(device=device, dtype=wide),
        shift=shift.repeat(width).to(device=device, dtype=wide),
        dtype=dtype,
        channels_last=channels_last,
    )
