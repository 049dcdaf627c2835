"""One hook pair on an optimizer that sees exactly the steps that were really taken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, cast

import torch
from torch.optim import Optimizer


class StepHooks:
    """Calls `before` ahead of each optimizer step and `after` behind it.

    A step is a step of the weights: a nested `super().step()` is part of the outer one, a step
    that a GradScaler skips is none (also with `fused=True`, where torch fires the hooks all the
    same), and a step that raised is none. With a closure, `before` runs after each of its
    evaluations, because only then are there gradients to add to.

    Args:
        optimizer: gets the hooks; they stay until `remove`.
        before: called with the factor by which the gradients are scaled at that moment (1.0
            unless a fused optimizer unscales them itself).
        after: called when the weights have moved; gradients are unscaled then.
    """

    def __init__(
        self, optimizer: Optimizer, before: Callable[[float], None], after: Callable[[], None]
    ) -> None:
        self._before = before
        self._after = after
        self._outer: FrameType | None = None  # the frame of the step that is being taken
        self._skip = False
        self._optimizer = optimizer
        # Hook bodies stay out of compiled graphs: they change Python state.
        self._handles = [
            optimizer.register_step_pre_hook(cast("Any", torch.compiler.disable(self._pre))),
            optimizer.register_step_post_hook(cast("Any", torch.compiler.disable(self._post))),
        ]

    def remove(self) -> None:
        """Take the hooks off the optimizer."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @property
    def adjacent(self) -> bool:
        """Whether nobody else's hook runs between `before`, the step itself and `after`."""
        before, after = (handle.id for handle in self._handles)
        return (
            next(reversed(self._optimizer._optimizer_step_pre_hooks), None) == before
            and next(iter(self._optimizer._optimizer_step_post_hooks), None) == after
        )

    def _pre(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        frame = _step_frame()
        if self._outer is not None and _on_stack(self._outer, frame.f_back):
            return None
        self._outer = frame
        found_inf, scale = _scaler_state(optimizer)
        self._skip = found_inf
        if found_inf:
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if not callable(closure):
            self._before(scale)
            return None

        def closure_then_before() -> Any:
            loss = closure()
            self._before(scale)
            return loss

        if "closure" in kwargs:
            return args, {**kwargs, "closure": closure_then_before}
        return (*args[:1], closure_then_before, *args[2:]), kwargs

    def _post(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self._outer is not None and _step_frame() is not self._outer:
            return  # the inner half of a nested step
        self._outer = None
        if not self._skip:
            self._after()


def _scaler_state(optimizer: Optimizer) -> tuple[bool, float]:
    """Whether a GradScaler makes a fused optimizer skip this step, and its scale.

    GradScaler sets both attributes only around the step of an optimizer that unscales inside its
    fused kernel; reading them costs the one synchronisation that the unfused path always has.
    """
    attributes = vars(optimizer)
    found_inf, scale = attributes.get("found_inf"), attributes.get("grad_scale")
    skip = found_inf is not None and bool(found_inf.item())
    return skip, 1.0 if scale is None else float(scale.item())


def _step_frame() -> FrameType:
    """The frame of `Optimizer.step` that is calling the hook: the first outside torch's compiler.

    Depth is told by frames, not by a counter: a step that raises never reaches the post-hook and
    would leave a counter wrong for ever.
    """
    frame = sys._getframe(2)
    while "_dynamo" in frame.f_code.co_filename and frame.f_back is not None:
        frame = frame.f_back
    return frame


def _on_stack(wanted: FrameType, frame: FrameType | None) -> bool:
    while frame is not None:
        if frame is wanted:
            return True
        frame = frame.f_back
    return False
