"""The cheapest way to give each unit one of two kernels, conversions between them counted.

A minimum cut: units on the source's side are packed, the others run by torch. Exact for any graph.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from .units import Network

_NEVER = float("inf")


@dataclass(frozen=True)
class Costs:
    """Seconds.

    Attributes:
        torch: of each unit, by output, run by torch.
        packed: of each unit that can be packed.
        pack: of packing a value once.
        unpack: of unpacking a value once.
    """

    torch: Mapping[str, float]
    packed: Mapping[str, float]
    pack: Mapping[str, float]
    unpack: Mapping[str, float]


def cheapest(network: Network, costs: Costs) -> frozenset[str]:
    """Outputs of the units to pack so that units and conversions take the least time together."""
    flow, made = _Flow(), {unit.output for unit in network.units}
    for unit in network.units:
        flow.edge("packed", unit.output, costs.torch.get(unit.output, 0.0))
        flow.edge(unit.output, "torch", costs.packed.get(unit.output, _NEVER))
    readers: dict[str, list[str]] = {}
    for unit in network.units:
        for name in unit.inputs:
            readers.setdefault(name, []).append(unit.output)
    for name in network.results:
        readers.setdefault(name, []).append("torch")
    for name, users in readers.items():
        producer = name if name in made else "torch"
        out, back = f"unpacked {name}", f"packed {name}"
        if producer != "torch":
            flow.edge(producer, out, costs.unpack.get(name, 0.0))
        flow.edge(back, producer, costs.pack.get(name, 0.0))
        for user in users:
            if producer != "torch":
                flow.edge(out, user, _NEVER)
            flow.edge(user, back, _NEVER)
    return frozenset(flow.side("packed", "torch") & made)


class _Flow:
    """Edmonds and Karp's maximum flow; a network has some hundred nodes."""

    def __init__(self) -> None:
        self._left: dict[str, dict[str, float]] = {}

    def edge(self, start: str, end: str, capacity: float) -> None:
        """Add capacity from one node to another."""
        forward = self._left.setdefault(start, {})
        forward[end] = forward.get(end, 0.0) + capacity
        self._left.setdefault(end, {}).setdefault(start, 0.0)

    def side(self, source: str, sink: str) -> set[str]:
        """Nodes on the source's side of a minimum cut."""
        while sink in (before := self._reached(source)):
            path = [sink]
            while path[-1] != source:
                path.append(before[path[-1]])
            pairs = [*zip(path[1:], path, strict=False)]
            amount = min(self._left[a][b] for a, b in pairs)
            for a, b in pairs:
                self._left[a][b] -= amount
                self._left[b][a] += amount
        return set(before)

    def _reached(self, source: str) -> dict[str, str]:
        """Nodes that more can flow to -> the node before on a shortest way."""
        before, waiting = {source: source}, deque([source])
        while waiting:
            node = waiting.popleft()
            for end, left in self._left[node].items():
                # 1e-12 seconds: what rounding leaves of an edge is no capacity.
                if end not in before and left > 1e-12:
                    before[end] = node
                    waiting.append(end)
        return before
