"""What a network takes and gives: the images' shape, how pixels are scaled, the classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..data.catalog import AnyDataset
from ..data.normalise import normaliser


@dataclass(frozen=True)
class Inputs:
    """What a network was trained on.

    Attributes:
        shape: channels, height, width of an image.
        mean: of each channel, pixels scaled to 0..1; subtracted.
        std: of each channel, pixels scaled to 0..1; divided by.
        classes: name of each class, in the order of the logits.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, dataset: AnyDataset) -> Inputs:
        """Those of a data set."""
        shape = (dataset.in_channels, *dataset.image_size)
        return cls(shape, tuple(dataset.mean), tuple(dataset.std), tuple(dataset.classes))

    @classmethod
    def of_record(cls, about: Mapping[str, Any]) -> Inputs:
        """Those that a record names.

        Args:
            about: the record's `inputs`.
        """
        channels, height, width = about["shape"]
        mean, std, classes = (tuple(about[name]) for name in ("mean", "std", "classes"))
        return cls((channels, height, width), mean, std, classes)

    def to_record(self) -> dict[str, Any]:
        """As JSON values, for `of_record`."""
        return {name: list(value) for name, value in vars(self).items()}

    def prepare(self, images: Tensor) -> Tensor:
        """Pixels as the network takes them: (x / 255 - mean) / std.

        Args:
            images: uint8 [N, C, H, W], pixels 0..255, of any size the network takes.
        Returns:
            float32 [N, C, H, W], on the device of `images`.
        Raises:
            ValueError: other tensors.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != self.shape[0]:
            raise ValueError(
                f"images must be uint8 of shape [N, {self.shape[0]}, H, W], pixels 0..255, got "
                f"{str(images.dtype).removeprefix('torch.')} of shape {list(images.shape)}."
            )
        normalise = normaliser(
            self.mean,
            self.std,
            width=images.shape[3],
            device=images.device,
            dtype=torch.float32,
            channels_last=False,
        )
        return normalise(images.permute(0, 2, 3, 1).contiguous())
