"""ART's course: dense and pruned accuracy, the strength, and when regularising stops."""

from __future__ import annotations

from ..chart import Chart, Figure, Mark, Series
from ..runs import Run
from .common import MOST_PANELS, Lines, Points, averaged, curves, percent, zeros


def art_course(lines: Lines) -> Figure | None:
    """Training accuracy of the dense network and of its pruned copy, up to the stop."""
    runs = [run for run in lines.first_seeds() if "regularize_epochs" in run.record]
    runs = [run for run in runs if not run.recorded]
    if not runs:
        return None
    charts = tuple(_course(run) for run in runs)
    text = (
        "Regularising goes on until the pruned copy is as accurate on the training images as the "
        "network that is trained, or until its last epoch allowed. The upright line is the epoch "
        "that was chosen. Accuracy of the dense network is that while it learns. One seed of each."
    )
    shown, more = charts[:MOST_PANELS], charts[MOST_PANELS:]
    return Figure("art", "ART: dense and pruned accuracy", text, shown, more)


def art_strength(lines: Lines) -> Figure | None:
    """The regulariser's strength in each epoch."""
    charts = []
    for sparsity in lines.sparsities:
        runs = [run for run in lines.first_seeds(sparsity) if "last_strength" in run.record]
        series = curves(lines, runs, _strength, form="both")
        charts.append(Chart(zeros(sparsity), "epoch", "strength", series, y_scale="log"))
    charts = [chart for chart in charts if chart.series]
    text = (
        "The factor of the regulariser's gradient, which grows from epoch to epoch, on a log "
        "scale: one of 0 has no point."
    )
    return Figure("strength", "ART: strength", text, tuple(charts)) if charts else None


def art_stop(lines: Lines) -> Figure | None:
    """Epochs of regularising against sparsity."""
    series = []
    for name in lines.named():
        x, y, spread = averaged(lines, name, lambda run: run.record.get("regularize_epochs"))
        if not x:
            continue
        by_sparsity = lines.seeds(name)
        hollow = tuple(i for i, s in enumerate(x) if not _converged(by_sparsity[s]))
        color = lines.colors[name]
        series.append(Series(name, x, y, spread, color, "both", hollow=hollow))
    if not series:
        return None
    chart = Chart(
        "",
        "zeros",
        "regularising epochs",
        tuple(series),
        x_scale="zeros",
        x_ticks=tuple(lines.sparsities),
        y_range=(0, 1),
        dodge=True,
    )
    text = (
        "How long each regulariser needs until the pruned copy is as accurate as the dense "
        "network: mean over seeds, bars one standard deviation. A ring: with at least one seed "
        "that was not reached, but the last epoch allowed, or the dense network collapsed."
    )
    return Figure("stop", "Epochs of regularising against sparsity", text, (chart,))


def _course(run: Run) -> Chart:
    before = [m for m in run.metrics if m["phase"] in ("dense", "regularize")]
    pruned = [m for m in before if "pruned_train_accuracy" in m]
    first = run.record["dense_epochs"]
    chosen = first + run.record["chosen_regularize_epoch"]
    series = (
        Series(
            "dense network",
            [m["epoch"] for m in before],
            percent(m["train_accuracy"] for m in before),
            color=0,
        ),
        Series(
            "pruned copy",
            [m["epoch"] for m in pruned],
            percent(m["pruned_train_accuracy"] for m in pruned),
            color=1,
            form="both" if len(pruned) < 40 else "line",
        ),
    )
    why = {"converged": "chosen", "cap": "chosen (cap)", "collapsed": "chosen (collapse)"}
    return Chart(
        f"{run.line}, {zeros(run.sparsity)}",
        "epoch",
        "training accuracy (%)",
        series,
        marks=(Mark(chosen, why[run.record["outcome"]]),),
        y_range=(0, 100),
    )


def _strength(run: Run) -> Points:
    told = [m for m in run.metrics if m.get("strength", 0) > 0]
    return [m["epoch"] for m in told], [m["strength"] for m in told]


def _converged(runs: list[Run]) -> bool:
    return all(run.record["outcome"] == "converged" for run in runs)
