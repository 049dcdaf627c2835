"""What a sweep says: its plan, a line for each finished run, and how much is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..training.progress import counted, duration
from .cost import Estimate
from .survey import Place
from .worker import Outcome


def run_name(about: Mapping[str, Any]) -> str:
    """`granet 0.95 seed 1`; a network without zeros has no number behind its method."""
    others = [f"{k}={v}" for k, v in about.items() if k not in ("method", "sparsity", "seed")]
    sparsity = [f"{about['sparsity']:g}"] if about["sparsity"] else []
    return " ".join([about["method"], *sparsity, *others, f"seed {about['seed']}"])


def headline(name: str, places: Sequence[Place], out: Path, *, verb: str = "sweep") -> str:
    """How many runs there are and how far they are, in one line."""
    count = Counter(place.state for place in places)
    states = ("finished", "recorded", "broken off", "failed", "unusable")
    left = [f"{count[state]} {state}" for state in states if count[state]]
    to_do = sum(not place.done for place in places)
    runs, said = counted(len(places), "run"), ", ".join([*left, f"{to_do} to do"])
    return f"{verb} {name}: {runs}, {said} -> {out}"


def plan_lines(places: Sequence[Place], costs: Sequence[Estimate | None]) -> list[str]:
    """A line a run: its state, its name, what it will take, its folder; then what is wrong."""
    rows = [
        (p.state, run_name(p.run.about), _cost(cost), p.folder.name)
        for p, cost in zip(places, costs, strict=True)
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join([*(f"{text:<{w}}" for text, w in zip(row, widths, strict=False)), row[3]])
        for row in rows
    ]
    return lines + [f"{place.state}: {place.problem}" for place in places if place.problem]


def _cost(cost: Estimate | None) -> str:
    if cost is None:
        return "-"
    return "unknown" if cost.basis == "unknown" else duration(cost.seconds)


class Progress:
    """The lines of a sweep as it goes.

    Args:
        places: all runs of the sweep.
    """

    def __init__(self, places: Sequence[Place]) -> None:
        self._names = [run_name(place.run.about) for place in places]
        self._done = sum(place.done for place in places)
        self._here = 0

    def line(self, outcome: Outcome, *, elapsed: float) -> str:
        """A run has ended, `elapsed` seconds after the sweep began.

        Returns:
            `[ 12/129] granet 0.95 seed 1  test 97.8 %  4.1 s  eta 8 min`, or what went wrong.
        """
        self._done += 1
        self._here += 1
        total, left = len(self._names), len(self._names) - self._done
        name = f"{self._names[outcome.index]:<{max(map(len, self._names))}}"
        parts = [f"[{self._done:>{len(str(total))}}/{total}] {name}"]
        if outcome.record is None:
            parts.append(f"failed: {outcome.error}")
        else:
            parts += [f"test {100 * outcome.record['test_accuracy']:5.1f} %"]
            parts += [f"{outcome.seconds:5.1f} s"]
        if left:
            parts.append(f"eta {duration(elapsed / self._here * left)}")
        return "  ".join(parts)


def failures(failed: Mapping[int, str], places: Sequence[Place]) -> str:
    """The runs that failed, again, where they are not scrolled away.

    Args:
        failed: place in the sweep -> what went wrong.
        places: all runs of the sweep.
    """
    of = f"{len(failed)} of {counted(len(places), 'run')}"
    lines = [f"{of} failed; the same command tries them again:"]
    lines += [f"  {run_name(places[i].run.about)}: {error}" for i, error in failed.items()]
    return "\n".join(lines)


def taken(places: Sequence[Place], rows: int, out: Path, records: Path | None) -> str:
    """How many of a table's rows are of runs without a folder; nothing where all have one.

    Args:
        rows: of the table.
        records: folder that they were taken from.
    """
    count = sum(place.state == "recorded" for place in places)
    if not count:
        return ""
    return (
        f"{count} of the table's {counted(rows, 'run')} {'is' if count == 1 else 'are'} taken from "
        f"{records} and {'has' if count == 1 else 'have'} no finished folder in {out}."
    )


def elsewhere(abouts: Sequence[Mapping[str, Any]]) -> str:
    """The runs that another process is at."""
    names = ", ".join(map(run_name, abouts))
    return f"{counted(len(abouts), 'run')} under way in another process; waiting for {names}."
