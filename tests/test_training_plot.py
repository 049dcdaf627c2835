"""The picture shows the numbers of the metrics, nothing else."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from sparsetrain.training import plot
from sparsetrain.training.progress import duration, epoch_line

ART = [
    {"epoch": 1, "phase": "dense", "val_accuracy": 0.5, "sparsity": 0.0},
    {"epoch": 2, "phase": "dense", "val_accuracy": 0.8, "sparsity": 0.0},
    {
        "epoch": 3,
        "phase": "regularize",
        "val_accuracy": 0.7,
        "pruned_val_accuracy": 0.1,
        "pruned_train_accuracy": 0.2,
        "sparsity": 0.0,
    },
    {"epoch": 4, "phase": "finetune", "val_accuracy": 0.9, "sparsity": 0.9},
]


def _draw(metrics, path, monkeypatch):
    drawn = []
    real = Figure.savefig

    def savefig(self, *args, **kwargs):
        drawn.append(self)
        real(self, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", savefig)
    plot.plot_history(metrics, path)
    return drawn[0].axes[0]


def test_both_networks_and_the_three_phases_are_drawn(tmp_path, monkeypatch):
    axes = _draw(ART, tmp_path / "a.png", monkeypatch)
    lines = {line.get_label(): line for line in axes.get_lines()}
    dense, pruned = lines["dense network"], lines["pruned network, 90 % zeros"]
    assert list(dense.get_xdata()) == [1, 2, 3]
    assert list(dense.get_ydata()) == pytest.approx([50, 80, 70])
    assert list(pruned.get_xdata()) == [3, 4]
    assert list(pruned.get_ydata()) == pytest.approx([10, 90])
    texts = {text.get_text() for text in axes.texts}
    assert {"dense training", "regularising", "fine-tuning", "80.0", "90.0"} <= texts
    assert axes.get_ylabel() == "validation accuracy (%)"
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("sparsity", [0.0, 0.9])
def test_one_phase_and_no_validation_are_drawn_too(tmp_path, monkeypatch, sparsity):
    line = {"epoch": 1, "phase": "train", "train_accuracy": 0.5, "sparsity": sparsity}
    axes = _draw([line], tmp_path / "a.svg", monkeypatch)
    assert axes.get_ylabel() == "training accuracy (%)"


def test_log_lines_are_aligned():
    line = {
        "phase": "dense",
        "loss": 0.412,
        "train_accuracy": 0.9,
        "val_accuracy": 0.883,
        "sparsity": 0.702,
        "lr": 0.1,
        "seconds": 9.8,
    }
    first = epoch_line({"epoch": 1, **line}, end=160, eta=1440)
    later = epoch_line({"epoch": 12, **line, "val_accuracy": 1.0}, end=160, eta=1440)
    assert later == (
        "epoch  12/160  dense       loss  0.412  train  90.0 %  val 100.0 %  "
        "sparsity 0.702  lr 0.1        9.8 s  eta 24 min"
    )
    assert len(first) == len(later)


def test_durations_are_said_in_the_unit_one_would_say_them_in():
    assert [duration(s) for s in (12.3, 1440, 11160)] == ["12 s", "24 min", "3.1 h"]
