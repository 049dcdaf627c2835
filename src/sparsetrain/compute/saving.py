"""Hooks on what autograd saves: activation checkpointing counts it, offloading moves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch._C import _autograd


def is_hooked() -> bool:
    """Whether tensors saved for the backward pass go through somebody's hooks."""
    return _autograd._top_saved_tensors_default_hooks(True) is not None


@contextmanager
def plain() -> Iterator[None]:
    """Within, tensors are saved as they are.

    What is made once and kept, at whatever place it is first asked for, is none of a checkpointed
    region's own: its second run would not make it again.
    """
    taken = []
    while (hooks := _autograd._top_saved_tensors_default_hooks(True)) is not None:
        taken.append(hooks)
        _autograd._pop_saved_tensors_default_hooks()
    try:
        yield
    finally:
        for pack, unpack in reversed(taken):
            _autograd._push_saved_tensors_default_hooks(pack, unpack)
