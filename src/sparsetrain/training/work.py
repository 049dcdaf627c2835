"""What the steps of an epoch computed with: weights of each layer, and gradients beyond them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import masks as mask_algebra
from ..types import observes
from .plans import Plan


class Work:
    """Counts step by step, in no time on a step that moves no mask.

    Args:
        plan: whose engine and masks they are.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._sizes = {name: mask.numel() for name, mask in plan.masks.items()}
        self.begin()

    def begin(self) -> None:
        """Start an epoch; before its first step. Collective where the masks are sharded."""
        self._steps, self._since = 0, 0
        self._worked = [0] * len(self._sizes)
        self._read = [0] * len(self._sizes)
        self._active = self._count()
        engine = self._plan.sparsifier  # a phase may have its own
        self._noted, self._observes = engine.updates, observes(engine.method)

    def after_step(self) -> None:
        """Count a step; its passes ran before the masks moved."""
        engine = self._plan.sparsifier
        moved = engine.updates != self._noted
        self._steps += 1
        self._since += 1
        grows = moved and getattr(engine.method, "growth", None) == "gradient"
        if self._observes or grows:  # the method looked at the gradient of every weight
            pruned = zip(self._read, self._sizes.values(), self._active, strict=True)
            self._read = [read + size - active for read, size, active in pruned]
        if moved:
            self._worked, self._since = self._sum(), 0
            self._active = self._count()
            self._noted = engine.updates

    @property
    def active(self) -> dict[str, float]:
        """Layer -> active weights in the passes of a step, mean over the epoch's steps so far."""
        if self._steps == 0:
            return dict(zip(self._sizes, map(float, self._active), strict=True))
        return {n: s / self._steps for n, s in zip(self._sizes, self._sum(), strict=True)}

    @property
    def read(self) -> dict[str, float]:
        """Layer -> pruned weights whose gradient the method read, mean over the steps."""
        steps = max(1, self._steps)
        return {n: s / steps for n, s in zip(self._sizes, self._read, strict=True)}

    def densities(self, of: Mapping[str, float]) -> dict[str, float]:
        """`active` or `read` as shares of a layer's weights."""
        return {name: count / self._sizes[name] for name, count in of.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the unfinished epoch needs to go on."""
        return {
            "steps": self._steps,
            "since": self._since,
            "worked": list(self._worked),
            "read": list(self._read),
            "active": list(self._active),
        }

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Continue where `state_dict` was taken, once the plan was loaded.

        Args:
            state: None, of an earlier version: the steps that are left stand for the epoch.
        """
        self.begin()
        if state is not None:
            self._steps, self._since = state["steps"], state["since"]
            self._worked, self._read = list(state["worked"]), list(state["read"])
            self._active = list(state["active"])

    def _sum(self) -> list[int]:
        return [w + a * self._since for w, a in zip(self._worked, self._active, strict=True)]

    def _count(self) -> list[int]:
        return list(mask_algebra.count_active(self._plan.masks).values())
