"""What the figures share: runs in groups, means over seeds, a panel for each sparsity."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from ...analysis.trace import Trace
from ..chart import Color, Form, Series
from ..runs import Run, one_seed

MOST_PANELS = 12
"""Panels of one figure that has one a run; the others are in its data alone."""

Points = tuple[Sequence[float], Sequence[float]]


@dataclass(frozen=True)
class Lines:
    """The runs of a report that can be compared, and each line's colour.

    Attributes:
        runs: in order.
        colors: name of the line -> its colour, the same in every figure.
        task: their data set and network; empty where the report has no others.
    """

    runs: tuple[Run, ...]
    colors: Mapping[str, Color]
    task: str = ""

    @property
    def sparsities(self) -> list[float]:
        """Fractions of zeros asked for, rising; that of the dense control left out."""
        return sorted({run.sparsity for run in self.runs if run.sparsity})

    def named(self, *, sparse: bool = True) -> list[str]:
        """Names of the lines; with `sparse`, of those that have zeros."""
        names = dict.fromkeys(run.line for run in self.runs if run.sparsity or not sparse)
        return list(names)

    def of(self, line: str) -> list[Run]:
        """The runs of a line."""
        return [run for run in self.runs if run.line == line]

    def seeds(self, line: str) -> dict[float, list[Run]]:
        """Sparsity -> its runs, rising."""
        found: dict[float, list[Run]] = {}
        for run in self.of(line):
            found.setdefault(run.sparsity, []).append(run)
        return dict(sorted(found.items()))

    def first_seeds(self, sparsity: float | None = None) -> list[Run]:
        """One run of each line and sparsity, that of the lowest seed; dense ones left out."""
        runs = [run for run in one_seed(self.runs) if run.sparsity]
        return [run for run in runs if sparsity is None or run.sparsity == sparsity]


def lines_of(runs: Sequence[Run]) -> list[Lines]:
    """The lines of each data set and network.

    Colours are in the order of the lines; the first that has no zeros has the text's.
    """
    sparse = dict.fromkeys(run.line for run in runs if run.sparsity)
    dense = [name for name in dict.fromkeys(run.line for run in runs) if name not in sparse]
    colors: dict[str, Color] = dict.fromkeys(dense[:1])
    colors |= {name: index for index, name in enumerate([*sparse, *dense[1:]])}
    tasks = dict.fromkeys(run.task for run in runs)
    return [Lines(tuple(r for r in runs if r.task == task), colors, task) for task in tasks]


def to_the_end(run: Run) -> Trace | None:
    """The run's trace, where its last masks are those of the network that the record is of.

    They are not where the last epoch's file is lost, or where an earlier version's ART had no
    fine-tuning and pruned after its last epoch.
    """
    trace = run.trace
    if trace is None or trace.active[-1].sum() != run.record["kept_weights"]:
        return None
    return trace


def averaged(
    lines: Lines, name: str, of: Callable[[Run], float | None]
) -> tuple[list[float], list[float], list[float]]:
    """Sparsities, means over seeds, and standard deviations (n - 1; 0 of one seed).

    Args:
        of: a number of a run; None where it has none.
    """
    xs, means, spreads = [], [], []
    for sparsity, runs in lines.seeds(name).items():
        values = [value for run in runs if (value := of(run)) is not None]
        if values:
            xs.append(sparsity)
            means.append(mean(values))
            spreads.append(stdev(values) if len(values) > 1 else 0.0)
    return xs, means, spreads


def curves(
    lines: Lines,
    runs: Iterable[Run],
    of: Callable[[Run], Points | None],
    form: Form = "line",
) -> tuple[Series, ...]:
    """A series a run, in its line's colour.

    Args:
        of: (x, y) of a run; None where it has none.
        form: what is drawn.
    """
    found = []
    for run in runs:
        points = of(run)
        if points is not None and len(points[0]):
            found.append(Series(run.line, *points, color=lines.colors[run.line], form=form))
    return tuple(found)


def percent(values: Iterable[float]) -> list[float]:
    """Fractions in percent."""
    return [100 * float(value) for value in values]


def zeros(sparsity: float) -> str:
    """`90 % zeros`."""
    return f"{100 * sparsity:.6g} % zeros"
