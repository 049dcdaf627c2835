"""Fully connected networks and LeNet-5: the small ones that pruning papers start with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import cast

from torch import nn

from .common import whole


def mlp(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (256, 256),
) -> nn.Module:
    """Build linear layers with ReLU between them, on the flattened image.

    Initialised by torch's defaults, from its global generator. Layers are fc1, fc2, …

    Args:
        num_classes: outputs, >= 1.
        in_channels: image channels, >= 1.
        image_size: side in pixels, >= 1, of every image the network will see.
        hidden: units of each hidden layer, each >= 1; () is softmax regression.

    Returns:
        [N, in_channels, image_size, image_size] images -> [N, num_classes] logits.

    Raises:
        ValueError: an argument outside its range.
    """
    sizes = [in_channels * image_size**2, *_units(hidden), num_classes]
    parts: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for index, (inputs, outputs) in enumerate(pairwise(sizes), start=1):
        if index > 1:
            parts[f"relu{index - 1}"] = nn.ReLU()
        parts[f"fc{index}"] = nn.Linear(inputs, outputs)
    return nn.Sequential(parts)


def lenet_300_100(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build LeNet-300-100: an `mlp` with 300 and 100 hidden units, 266,610 parameters on MNIST.

    Args:
        num_classes: outputs, >= 1.
        in_channels: image channels, >= 1.
        image_size: side in pixels, >= 1, of every image the network will see.

    Returns:
        [N, in_channels, image_size, image_size] images -> [N, num_classes] logits.

    Raises:
        ValueError: an argument outside its range.

    Source: LeCun et al. 1998; Han et al. 2015, arXiv 1506.02626, table 3.
    """
    return mlp(
        num_classes=num_classes,
        in_channels=in_channels,
        image_size=image_size,
        hidden=(300, 100),
    )


def lenet5(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build LeNet-5 as pruning papers use it: 20 and 50 filters of 5x5, then 500 units.

    431,080 parameters on MNIST. Initialised by torch's defaults, from its global generator.

    Args:
        num_classes: outputs, >= 1.
        in_channels: image channels, >= 1.
        image_size: side in pixels, >= 16, of every image the network will see.

    Returns:
        [N, in_channels, image_size, image_size] images -> [N, num_classes] logits.

    Raises:
        ValueError: an argument outside its range.

    Source: Caffe's LeNet, as in Han et al. 2015, arXiv 1506.02626, table 4. Deviates: ReLU after
        the convolutions too.
    """
    side = whole(
        "image_size",
        image_size,
        minimum=16,
        hint="Two unpadded 5x5 convolutions with pooling leave nothing of less; "
        "take lenet-300-100, mlp or resnet8.",
    )
    for _ in range(2):
        side = (side - 4) // 2
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv1"], parts["relu1"] = nn.Conv2d(in_channels, 20, 5), nn.ReLU()
    parts["pool1"] = nn.MaxPool2d(2)
    parts["conv2"], parts["relu2"] = nn.Conv2d(20, 50, 5), nn.ReLU()
    parts["pool2"] = nn.MaxPool2d(2)
    parts["flatten"] = nn.Flatten()
    parts["fc1"], parts["relu3"] = nn.Linear(50 * side**2, 500), nn.ReLU()
    parts["fc2"] = nn.Linear(500, num_classes)
    return nn.Sequential(parts)


def _units(hidden: object) -> list[int]:
    """Sizes of the hidden layers, checked; a YAML list is as good as a tuple."""
    if isinstance(hidden, str) or not isinstance(hidden, Iterable):
        raise ValueError(
            f"hidden must be a sequence of layer sizes such as (300, 100), got {hidden!r}."
        )
    return [whole("hidden", size) for size in cast("Iterable[object]", hidden)]
