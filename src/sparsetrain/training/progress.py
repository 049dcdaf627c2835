"""What a person sees while a run goes on: bars on a terminal, aligned lines in a log."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


class Reporter:
    """Writes to one stream, stderr by default; a bar appears only on a terminal.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._file = ""

    def say(self, text: str) -> None:
        """One line, above the bar if there is one."""
        self._console.print(text, markup=False)

    def start_bar(self, title: str, steps: int) -> None:
        """Show a bar of `steps`, on a terminal."""
        if not self._console.is_terminal:
            return
        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:>4.0f}/{task.total:.0f}"),
                TimeRemainingColumn(compact=True),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(title, total=steps)
        assert self._task is not None
        self._bar.reset(self._task, description=title, total=steps)

    def download(self, name: str, done: int, total: int | None) -> None:
        """A file has come so far, in bytes; a line in a log, a bar in megabytes on a terminal."""
        if self._file != name:
            self._file = name
            size = f", {total / 1e6:.0f} MB" if total else ""
            self.say(f"downloading {name}{size}")
            self.start_bar(name, round((total or 0) / 1e6))
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done / 1e6)

    def advance(self) -> None:
        """One batch more."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)

    @contextmanager
    def live(self, draw: Callable[[], RenderableType]) -> Iterator[None]:
        """On a terminal, keep below the lines what `draw` gives, twice a second, inside."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=draw, console=self._console, refresh_per_second=2, transient=True):
            yield

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class Silent(Reporter):
    """Says nothing: what all processes but the first have."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())


class Pace:
    """How long the epochs of this process take, and so how long the rest will."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._epochs = 0

    def remaining(self, epochs: int) -> float:
        """Seconds for `epochs` more; called once at the end of each epoch."""
        self._epochs += 1
        return (time.perf_counter() - self._started) / self._epochs * epochs


def epoch_line(line: dict[str, Any], *, end: int, eta: float) -> str:
    """One epoch as an aligned line.

    Args:
        line: as in metrics.jsonl.
        end: epochs of the run, or the most it can take.
        eta: seconds left.
    """
    width = len(str(end))
    parts = [
        f"epoch {line['epoch']:>{width}}/{end}",
        f"{line['phase']:<10}",
        f"loss {line['loss']:6.3f}",
        f"train {_percent(line['train_accuracy'])}",
    ]
    for name, key in (("val", "val_accuracy"), ("test", "test_accuracy")):
        if key in line:
            parts.append(f"{name} {_percent(line[key])}")
    parts += [
        f"sparsity {line['sparsity']:.3f}",
        f"lr {line['lr']:<7.4g}",
        f"{line['seconds']:5.1f} s",
    ]
    if "pruned_train_accuracy" in line:
        parts.append(f"pruned copy {_percent(line['pruned_train_accuracy']).strip()}")
    if "skipped_steps" in line:
        parts.append(f"skipped {line['skipped_steps']} steps")
    if eta > 0:
        parts.append(f"eta {duration(eta)}")
    return "  ".join(parts)


def counted(count: int, what: str) -> str:
    """1 epoch, 2 epochs."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def duration(seconds: float) -> str:
    """12 s, 24 min, 3.1 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _percent(value: float) -> str:
    return f"{100 * value:5.1f} %"
