"""Whether a Ray cluster has a node that could hold a run at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_REMIND = 300.0  # seconds
_MOST = 3  # kinds of nodes that are named


class Room:
    """The nodes of a cluster, beside what each run needs of one of them.

    Args:
        ray: the module, connected.
        cpus: of a run.
        gpus: of a run.
    """

    def __init__(self, ray: Any, cpus: int, gpus: float) -> None:
        self._ray, self._cpus, self._gpus = ray, cpus, gpus
        self._said: float | None = None

    def lacking(self) -> str:
        """A sentence where no node, with nothing else on it, could hold a run; else nothing."""
        alive = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        nodes = sorted({(node.get("CPU", 0), node.get("GPU", 0)) for node in alive}, reverse=True)
        if any(cpus >= self._cpus and gpus >= self._gpus for cpus, gpus in nodes):
            return ""
        there = ", ".join(_resources(*node) for node in nodes[:_MOST])
        more = ", …" if len(nodes) > _MOST else ""
        return (
            f"a run needs a node of {_resources(self._cpus, self._gpus)}, and Ray's cluster has "
            f"none ({there}{more})."
        )

    def remind(self, say: Callable[[str], None]) -> None:
        """Say so, unless it was said in the last few minutes."""
        now = time.monotonic()
        if self._said is not None and now - self._said < _REMIND:
            return
        self._said = now
        if lacking := self.lacking():
            say(f"{lacking} Waiting for one; Ctrl-C ends, lower --cpus or --gpus need less.")


def _resources(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU{'' if cpus == 1 else 's'}" + (
        f" and {gpus:g} GPU{'' if gpus == 1 else 's'}" if gpus else ""
    )
