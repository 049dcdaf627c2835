"""ResNets for small images: three stages of basic blocks, or the ImageNet shapes on a 3x3 stem.

Parameter names are the usual ones: conv1, bn1, layer1.0.conv1, layer2.0.downsample.0, fc. ReLU is
never in place: that saves no training memory behind batch norm and breaks full backward hooks.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import relu

from .common import GlobalAverage, he_init_, whole

# Blocks in each of the four stages of the ImageNet shapes.
_STEM_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


def cifar_resnet(
    depth: int, /, *, num_classes: int, in_channels: int, image_size: int, width: int = 1
) -> nn.Module:
    """Build a CIFAR ResNet: (depth - 2) / 6 basic blocks in each of three stages.

    Initialised by `he_init_` with fan_out, from torch's global generator.

    Args:
        depth: weighted layers on the main path, 6n + 2 >= 8.
        num_classes: outputs, >= 1.
        in_channels: image channels, >= 1.
        image_size: side in pixels, >= 4, for stages two and three halve it.
        width: factor on the 16, 32 and 64 channels of the stages, >= 1; the HyperSparse and
            GraSP papers use 2.

    Returns:
        [N, in_channels, H, W] images -> [N, num_classes] logits.

    Raises:
        ValueError: an argument outside its range.

    Source: He et al. 2016, arXiv 1512.03385, section 4.2. Deviates: 1x1 convolution and batch norm
        on the shortcut where the shape changes, as the sparse-training papers have it.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(_wrong_depth(depth))
    factor = whole("width", width, hint="It multiplies the 16, 32 and 64 channels.")
    whole("image_size", image_size, minimum=4, hint="The network halves it twice.")
    model = _assemble(
        BasicBlock,
        [16 * factor, 32 * factor, 64 * factor],
        [(depth - 2) // 6] * 3,
        in_channels=in_channels,
        head=nn.Linear(64 * factor, num_classes),
    )
    he_init_(model, fan="fan_out")
    return model


def stem_resnet(depth: int, /, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Build ResNet-18, -34 or -50 for small images: 3x3 stem, no max-pool, widths 64 … 512.

    Initialised by torch's defaults, from its global generator. The head has no bias.

    Args:
        depth: 18, 34 (basic blocks) or 50 (bottlenecks, stride in the 3x3 convolution).
        num_classes: outputs, >= 1.
        in_channels: image channels, >= 1.
        image_size: side in pixels, >= 8, for three stages halve it.

    Returns:
        [N, in_channels, H, W] images -> [N, num_classes] logits.

    Raises:
        ValueError: an argument outside its range.

    Source: Liu et al. 2021 (GraNet), arXiv 2106.10404, whose CIFAR ResNet-50 this is.
    """
    if depth not in _STEM_BLOCKS:
        raise ValueError(f"depth must be 18, 34 or 50, got {depth}.")
    whole(
        "image_size",
        image_size,
        minimum=8,
        hint="The network halves it three times; resnet20 takes images of 4 pixels.",
    )
    block = Bottleneck if depth == 50 else BasicBlock
    return _assemble(
        block,
        [64, 128, 256, 512],
        _STEM_BLOCKS[depth],
        in_channels=in_channels,
        head=nn.Linear(512 * block.expansion, num_classes, bias=False),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; the first one strides."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3(inputs, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """relu(convolutions(x) + shortcut(x))."""
        out = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(out)) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions beside a shortcut; the 3x3 one strides."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = _shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """relu(convolutions(x) + shortcut(x))."""
        out = relu(self.bn1(self.conv1(x)))
        out = relu(self.bn2(self.conv2(out)))
        return relu(self.bn3(self.conv3(out)) + self.downsample(x))


def _assemble(
    block: type[BasicBlock] | type[Bottleneck],
    widths: Sequence[int],
    depths: Sequence[int],
    *,
    in_channels: int,
    head: nn.Linear,
) -> nn.Sequential:
    """Stem, one stage per width (all but the first halve the map), pooling, head."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv1"] = _conv3(in_channels, widths[0])
    parts["bn1"] = nn.BatchNorm2d(widths[0])
    parts["relu"] = nn.ReLU()
    parts |= stages(block, widths, depths)
    parts["pool"] = GlobalAverage()
    parts["fc"] = head
    return nn.Sequential(parts)


def stages(
    block: type[BasicBlock] | type[Bottleneck], widths: Sequence[int], depths: Sequence[int]
) -> dict[str, nn.Module]:
    """The stages behind a stem of `widths[0]` channels; all but the first halve the map.

    Args:
        block: what they are made of.
        widths: channels of each stage, before a bottleneck's expansion.
        depths: blocks of each stage.

    Returns:
        layer1, layer2, … in order.
    """
    made: dict[str, nn.Module] = {}
    inputs = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks: list[nn.Module] = []
        for index in range(depth):
            blocks.append(block(inputs, width, 2 if stage > 0 and index == 0 else 1))
            inputs = width * block.expansion
        made[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    return made


def _wrong_depth(depth: int) -> str:
    below = depth - (depth - 2) % 6
    valid = " or ".join(f"resnet{near}" for near in (below, below + 6) if near >= 8)
    stem = f", or resnet{depth}-cifar (ImageNet's shape)" if depth in _STEM_BLOCKS else ""
    stem += f", or resnet{depth}-imagenet" if depth in (18, 34, 101) else ""
    return f"a CIFAR ResNet has depth 6n + 2 >= 8, got resnet{depth}. Take {valid}{stem}."


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Nothing where the shape stays, else 1x1 convolution and batch norm."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
