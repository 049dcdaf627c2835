"""Make the run that docs/art.md shows, and draw its pictures with the figures of our reports.

python scripts/art_pictures.py            # half a minute; writes docs/images/art-*.svg
python scripts/art_pictures.py RUN OUT    # of a run that is there, into a folder
"""

from __future__ import annotations

import re
import sys
import tempfile
from html import escape
from importlib.resources import files
from pathlib import Path

from sparsetrain.cli import main as sparsetrain
from sparsetrain.report.chart import Chart, Series
from sparsetrain.report.figures.every import figures
from sparsetrain.report.runs import find
from sparsetrain.report.svg import HEIGHT, WIDTH, draw, swatch
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

_EDGE, _LINE = 8, 18


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


def standalone(chart: Chart) -> str:
    """A panel over its legend, if it has more than one line, as an SVG on white."""
    shown = chart.series if len(chart.series) > 1 else ()
    legend = [_entry(series, HEIGHT + _LINE * place) for place, series in enumerate(shown)]
    width, height = WIDTH + 2 * _EDGE, HEIGHT + _LINE * len(shown) + 2 * _EDGE
    box = f"{-_EDGE} {-_EDGE} {width} {height}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{width}" '
        f'height="{height}">\n<style>\n{_style()}</style>\n'
        f'<rect x="{-_EDGE}" y="{-_EDGE}" width="{width}" height="{height}" fill="white"/>\n'
        f"{_inner(draw(chart))}{''.join(legend)}\n</svg>\n"
    )


def _inner(svg: str) -> str:
    return re.sub(r"^<svg[^>]*>|</svg>$", "", svg)


def _entry(series: Series, y: int) -> str:
    text = f'<text class="label" x="30" y="10">{escape(series.name)}</text>'
    return f'<g transform="translate(44 {y})">{_inner(swatch(series))}{text}</g>'


def _style() -> str:
    """The colours and letters of a report's page, in its light form."""
    css = files("sparsetrain.report").joinpath("page.css").read_text(encoding="utf-8")
    light = re.search(r":root \{.*?\n\}\n", css, flags=re.DOTALL)
    assert light is not None
    return light[0] + "".join(re.findall(r"^svg [.\w]+ \{.*?\}\n", css, flags=re.MULTILINE))


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
