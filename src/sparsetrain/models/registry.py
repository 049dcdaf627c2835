"""Names of the networks, and the one function that builds them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

import torch
from torch import nn

from . import from_timm
from .common import whole
from .imagenet import imagenet_resnet
from .resnet import cifar_resnet, stem_resnet
from .small import lenet5, lenet_300_100, mlp
from .vgg import vgg

Builder: TypeAlias = Callable[..., nn.Module]


class ModelInfo(NamedTuple):
    """One row of the table of networks.

    Attributes:
        name: what `create` takes.
        options: what else `create` takes, with defaults ("width=1"); empty where nothing.
        summary: the network in one line.
    """

    name: str
    options: str
    summary: str


def names() -> tuple[str, ...]:
    """The usual networks' names; `create` also takes `resnetN` for any depth N = 6n + 2 >= 8.

    And `timm:NAME` for any network of timm, where that is installed.
    """
    return tuple(_MODELS)


def create(
    name: str,
    *,
    num_classes: int = 10,
    in_channels: int = 3,
    image_size: int = 32,
    **options: object,
) -> nn.Module:
    """Build a network with fresh weights.

    Weights are drawn from torch's global generator on the default device: the same
    `torch.manual_seed` before the call gives the same network. Under `torch.device("meta")`
    nothing is allocated or drawn.

    Args:
        name: one of `names()`, `resnetN` with any N = 6n + 2 >= 8, or `timm:NAME` for a network of
            timm, which draws its weights its own way.
        num_classes: outputs, >= 1.
        in_channels: image channels, >= 1.
        image_size: side of the square images in pixels; each network states its least.
        options: the network's own, as listed by `describe()`; `width=2` for a CIFAR ResNet.

    Returns:
        [N, in_channels, image_size, image_size] images -> [N, num_classes] logits.

    Raises:
        ValueError: unknown name or option (the nearest is named), a size that makes no sense, or
            timm is not there.
    """
    build = _builder(name)
    _check_options(name, options, allowed=_options(build))
    return build(
        num_classes=whole("num_classes", num_classes),
        in_channels=whole("in_channels", in_channels),
        image_size=whole("image_size", image_size),
        **options,
    )


def check(name: str, **options: object) -> None:
    """Refuse a name or option that no network has; nothing is allocated or drawn.

    Raises:
        ValueError: from `create`.
    """
    if name.startswith(from_timm.PREFIX):
        # Some of its networks read numbers back while they are built, which "meta" has none of.
        _check_options(name, options, allowed={})
        from_timm.check(name.removeprefix(from_timm.PREFIX))
        return
    with torch.device("meta"):
        create(name, **options)  # pyright: ignore[reportArgumentType] - options are the network's


def describe() -> tuple[ModelInfo, ...]:
    """Rows of a table of the networks, in the order of `names()`."""
    return tuple(
        ModelInfo(name, ", ".join(f"{key}={value}" for key, value in _options(build).items()), line)
        for name, (build, line) in _MODELS.items()
    )


def _builder(name: str) -> Builder:
    if name in _MODELS:
        return _MODELS[name][0]
    if name.startswith(from_timm.PREFIX):
        return partial(from_timm.build, name.removeprefix(from_timm.PREFIX))
    match = re.fullmatch(r"resnet([1-9][0-9]*)", name)
    if match is None:
        near = _nearest(name.lower(), _MODELS)
        raise ValueError(
            f"unknown model {name!r}.{near} Known: {', '.join(_MODELS)}; resnetN with N = 6n + 2; "
            "timm:NAME for one of timm's."
        )
    return partial(cifar_resnet, int(match[1]))


def _options(build: Builder) -> dict[str, object]:
    """Option -> default: the builder's keywords without the three that every builder takes."""
    return {
        key: parameter.default
        for key, parameter in inspect.signature(build).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }


def _check_options(name: str, given: Iterable[str], *, allowed: Mapping[str, object]) -> None:
    for option in given:
        if option in allowed:
            continue
        if not allowed:
            raise ValueError(f"unknown option {option!r}: {name} takes none; leave it out.")
        near = _nearest(option, allowed)
        raise ValueError(
            f"unknown option {option!r} of {name}.{near} Allowed: {', '.join(allowed)}."
        )


def _nearest(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _imagenet(depth: int) -> tuple[Builder, str]:
    blocks = "bottlenecks, stride in the 3x3" if depth >= 50 else "basic blocks"
    return partial(imagenet_resnet, depth), f"ResNet-{depth} for 224 pixels, {blocks}"


def _cifar(depth: int) -> tuple[Builder, str]:
    blocks = (depth - 2) // 6
    summary = f"CIFAR ResNet, three stages of {blocks} basic block{'s' if blocks > 1 else ''}"
    return partial(cifar_resnet, depth), summary


_MODELS: Mapping[str, tuple[Builder, str]] = MappingProxyType(
    {f"resnet{depth}": _cifar(depth) for depth in (8, 14, 20, 32, 44, 56, 110)}
    | {
        "resnet18-cifar": (partial(stem_resnet, 18), "ResNet-18, 3x3 stem, basic blocks, 64 … 512"),
        "resnet34-cifar": (partial(stem_resnet, 34), "ResNet-34, 3x3 stem, basic blocks, 64 … 512"),
        "resnet50-cifar": (partial(stem_resnet, 50), "ResNet-50, 3x3 stem, bottlenecks, 64 … 2048"),
    }
    | {f"resnet{depth}-imagenet": _imagenet(depth) for depth in (18, 34, 50, 101)}
    | {
        f"vgg{depth}": (
            partial(vgg, depth),
            f"VGG-{depth} with batch norm, four poolings, one linear layer",
        )
        for depth in (11, 13, 16, 19)
    }
    | {
        "lenet-300-100": (lenet_300_100, "two hidden layers of 300 and 100 units"),
        "lenet5": (lenet5, "LeNet-5 of the pruning papers: 20 and 50 filters, 500 units"),
        "mlp": (mlp, "fully connected, hidden layers as given"),
    }
)
