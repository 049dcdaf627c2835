"""ResNets for images of 224 pixels, with torchvision's parameter names: its weights load here."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal, get_args

from torch import nn

from .common import GlobalAverage, whole
from .resnet import BasicBlock, Bottleneck, stages

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_WIDTHS = (64, 128, 256, 512)

Fan = Literal["fan_in", "fan_out"]


def imagenet_resnet(
    depth: int, /, *, num_classes: int, in_channels: int, image_size: int, init: Fan = "fan_out"
) -> nn.Module:
    """Build ResNet-18, -34, -50 or -101: a 7x7 stem with max-pool, then four stages.

    The bottlenecks of -50 and -101 stride in their 3x3 convolution ("v1.5"). Convolutions are
    N(0, 2 / fan), batch norms 1 and 0, the head torch's default, from its global generator.

    Args:
        depth: 18, 34 (basic blocks), 50 or 101 (bottlenecks).
        num_classes: outputs, >= 1.
        in_channels: image channels, >= 1.
        image_size: side in pixels, >= 32, for stem, max-pool and three stages halve it; 224 is
            usual, and any size runs.
        init: k² · C_out ("fan_out") or k² · C_in ("fan_in") of a k × k convolution as its fan;
            GraNet's ImageNet commands take fan_in.

    Returns:
        [N, in_channels, H, W] images -> [N, num_classes] logits.

    Raises:
        ValueError: an argument outside its range.

    Source: He et al. 2016, arXiv 1512.03385, table 1. Deviates: the place of the stride, as
        torchvision and GraNet have it.
    """
    if depth not in _DEPTHS:
        raise ValueError(f"depth must be 18, 34, 50 or 101, got {depth}.")
    if init not in get_args(Fan):
        raise ValueError(f'init must be "fan_in" or "fan_out", got {init!r}.')
    hint = f"The network halves it five times; resnet{min(depth, 50)}-cifar takes images of 8."
    whole("image_size", image_size, minimum=32, hint=hint)
    block = Bottleneck if depth >= 50 else BasicBlock
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv1"] = nn.Conv2d(in_channels, 64, 7, 2, padding=3, bias=False)
    parts["bn1"] = nn.BatchNorm2d(64)
    parts["relu"] = nn.ReLU()
    parts["maxpool"] = nn.MaxPool2d(3, 2, padding=1)
    parts |= stages(block, _WIDTHS, _DEPTHS[depth])
    parts["pool"] = GlobalAverage()
    parts["fc"] = nn.Linear(512 * block.expansion, num_classes)
    model = nn.Sequential(parts)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=init, nonlinearity="relu")
    return model
