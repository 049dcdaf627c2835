"""Networks of timm by its names, where it is installed."""

from __future__ import annotations

import importlib
from difflib import get_close_matches
from typing import Any

from torch import nn

PREFIX = "timm:"


def check(name: str) -> None:
    """Refuse a network that cannot be built, without building it.

    Args:
        name: timm's name, without the prefix; ".TAG" of pretrained weights may follow.
    Raises:
        ValueError: timm is not there or has no such network; the nearest are named.
    """
    known = _library(name).list_models()
    bare = name.partition(".")[0]
    if bare in known:
        return
    near = get_close_matches(bare, known, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ValueError(f"timm has no network {bare!r}. {hint}timm.list_models() has all names.")


def build(name: str, *, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """The network with fresh weights; none are downloaded.

    Args:
        name: as for `check`.
        num_classes: outputs.
        in_channels: image channels.
        image_size: side of the square images in pixels; told to networks that are made for one
            size, as vision transformers are.
    Raises:
        ValueError: as from `check`, or timm cannot build the network for such images.
    """
    check(name)
    create = _library(name).create_model
    given: dict[str, Any] = {"num_classes": num_classes, "in_chans": in_channels}
    given["pretrained"] = False
    try:
        try:
            return create(name, img_size=image_size, **given)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            return create(name, **given)  # takes any size
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(
            f"timm cannot build {name} for {in_channels} x {image_size} x {image_size} images: "
            f"{error}"
        ) from error


def _library(name: str) -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name == "timm":
            raise ValueError(f"model {PREFIX}{name} needs timm: pip install timm.") from error
        raise ValueError(_broken(name, error)) from error
    except (ImportError, RuntimeError, AttributeError) as error:
        raise ValueError(_broken(name, error)) from error


def _broken(name: str, error: Exception) -> str:
    return (
        f"model {PREFIX}{name} needs timm, which is installed but cannot be imported "
        f"({error}); mostly its torchvision is for another torch."
    )
