"""What the tests of compiled inference share: the oracle in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

TOLERANCE = 1e-5
"""Of the largest result."""


def assert_same(compiled: Callable[..., Any], model: nn.Module, *args: Any, **kwargs: Any) -> None:
    """The compiled network's results are those of the model in float64, to rounding."""
    found = pytree.tree_leaves(compiled(*args, **kwargs))
    wide = copy.deepcopy(model).double().eval()
    wide_args, wide_kwargs = pytree.tree_map(_double, (args, kwargs))
    with torch.no_grad():
        wanted = pytree.tree_leaves(wide(*wide_args, **wide_kwargs))
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype is torch.float32
        if theirs.numel():
            scale = theirs.abs().max().clamp(min=1e-3)
            assert (ours - theirs).abs().max() <= TOLERANCE * scale


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
