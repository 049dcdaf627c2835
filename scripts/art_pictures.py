"""Make the run that docs/art.md shows, and draw its pictures with the figures of our reports.

python scripts/art_pictures.py            # half a minute; writes docs/images/art-*.svg
python scripts/art_pictures.py RUN OUT    # of a run that is there, into a folder
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from sparsetrain.cli import main as sparsetrain
from sparsetrain.report.figures.every import figures
from sparsetrain.report.runs import find
from sparsetrain.report.standalone import standalone
from sparsetrain.training.plot import plot_history

ROOT = Path(__file__).resolve().parent.parent
RUN = "train --method art --sparsity 0.95 --epochs 60 --precision fp32 --threads 1 --device cpu"
PICTURES = {
    "course": ("art", 0),
    "strength": ("strength", 0),
    "weights": ("magnitudes", 0),
    "gradient": ("magnitudes", 1),
    "overlap": ("overlap", 0),
}
"""Picture -> a figure of the report, and the place of the panel in it."""


def pictures(run: Path, out: Path) -> None:
    """Draw a finished ART run.

    Args:
        run: its folder.
        out: folder of the pictures.
    """
    found = find([run])
    drawn = {figure.key: figure for figure in figures(found.runs)}
    out.mkdir(parents=True, exist_ok=True)
    plot_history([dict(line) for line in found.runs[0].metrics], out / "art-history.svg")
    for name, (key, place) in PICTURES.items():
        (out / f"art-{name}.svg").write_text(standalone(drawn[key].charts[place]))


def main(words: list[str]) -> int:
    """Draw; see the module's docstring."""
    if words:
        pictures(Path(words[0]), Path(words[1]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "art"
        code = sparsetrain([*RUN.split(), "--out", str(run)])
        if code == 0:
            pictures(run, ROOT / "docs" / "images")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
