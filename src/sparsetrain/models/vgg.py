"""VGG with batch norm for small images: four poolings and one linear layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from .common import GlobalAverage, he_init_, whole

# Convolutions in each of the five groups (configurations A, B, D, E); a pooling between groups.
_GROUPS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)


def vgg(depth: int, /, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build a VGG with batch norm, without the last max-pool and the two hidden linear layers.

    Convolutions have a bias. The mean over the map that is left (2x2 of 32x32 images, 4x4 of
    64x64) feeds the classifier, so any number of classes and any larger image will do.
    Initialised by `he_init_` with fan_in, from torch's global generator.

    Args:
        depth: 11, 13, 16 or 19, in the paper's count.
        num_classes: outputs, >= 1.
        in_channels: image channels, >= 1.
        image_size: side in pixels, >= 16, for four poolings halve it; 28 to 64 is usual.

    Returns:
        [N, in_channels, H, W] images -> [N, num_classes] logits.

    Raises:
        ValueError: an argument outside its range.

    Source: Simonyan & Zisserman 2015, arXiv 1409.1556, table 1, as cut down by GraSP, GraNet and
        HyperSparse.
    """
    if depth not in _GROUPS:
        raise ValueError(f"depth must be 11, 13, 16 or 19, got {depth}.")
    whole(
        "image_size",
        image_size,
        minimum=16,
        hint="VGG halves it four times; take a ResNet or an mlp, or enlarge the images.",
    )
    layers: list[nn.Module] = []
    inputs = in_channels
    for group, (count, width) in enumerate(zip(_GROUPS[depth], _WIDTHS, strict=True)):
        if group > 0:
            layers.append(nn.MaxPool2d(2))
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            inputs = width
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["features"] = nn.Sequential(*layers)
    parts["pool"] = GlobalAverage()
    parts["classifier"] = nn.Linear(inputs, num_classes)
    model = nn.Sequential(parts)
    he_init_(model, fan="fan_in")
    return model
