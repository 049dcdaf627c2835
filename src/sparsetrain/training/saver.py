"""When a checkpoint of a run is written, and which one is continued from."""

from __future__ import annotations

from collections.abc import Callable

from . import cadence, checkpoint
from .checkpoint import Position
from .folder import RunFolder
from .nonfinite import Guard
from .state import RunState
from .stop import Signals


class Saver:
    """Writes the checkpoints of one run; every process calls all of it, and rank 0 writes.

    Attributes:
        saved: the position of the newest checkpoint.
    """

    def __init__(self, state: RunState, folder: RunFolder, signals: Signals) -> None:
        self._state, self._folder, self._signals = state, folder, signals
        self._world = state.session.place.world
        self._due = cadence.Due(cadence.parse(state.config.run.checkpoint_every))
        self.saved = Position(0)

    def restore(self, report: Callable[[str], None]) -> None:
        """Load the newest whole checkpoint, if there is one; metrics written since are forgotten.

        Args:
            report: told of damaged ones.
        Raises:
            BadInput: it is of another version, or of other data.
        """
        world = self._world
        saved = world.first(lambda: checkpoint.load_newest(self._folder.checkpoints, report))
        if saved is not None:
            self._state.load_state_dict(saved)
        self.saved = self._position()
        if world.writes:
            self._folder.write_metrics(self._state.history)

    def after_step(self, guard: Guard) -> None:
        """Write if one is due, and stop if a signal has come.

        Raises:
            Stop: write now, and end.
            RunFailed: weights or a loss since the last check are NaN or infinite.
            OSError: it cannot be written.
        """
        due, caught = self._agreed(self._due.after_step(self._state.step))
        if due or caught:
            guard.check()
        if due:
            self.write()
        self._signals.check()

    def after_epoch(self) -> None:
        """Write if one is due, or if training is over; then stop if a signal has come.

        Raises:
            Stop: the same.
            OSError: the same.
        """
        state = self._state
        due, _ = self._agreed(self._due.after_epoch(state.epoch) or state.epoch >= state.end)
        if due:
            self.write()
        self._signals.check()

    def write(self) -> None:
        """Write one now, unless the newest is of this very position.

        Raises:
            OSError: it cannot be written; the earlier ones stay.
        """
        position = self._position()
        if position == self.saved:
            return
        held, keep = self._state.state_dict(), self._state.config.run.keep
        if self._world.writes:
            checkpoint.save(self._folder.checkpoints, position, held, keep=keep)
        self.saved = position
        self._due.written()

    def where(self, of: str = "") -> str:
        """The newest checkpoint's position in words; `of` follows the epoch's number."""
        epoch, batch = self.saved
        if not batch:
            return f"after epoch {epoch}{of}"
        batches = len(self._state.session.train)
        return f"in epoch {epoch + 1}{of}, after step {batch} of {batches}"

    def last_good(self) -> str:
        """A sentence that names the newest checkpoint."""
        found = checkpoint.listed(self._folder.checkpoints)
        if not found:
            return "No checkpoint had been written yet."
        return f"The last good checkpoint is {found[0]}, {self.where()}."

    def _agreed(self, due: bool) -> tuple[bool, int]:
        """Whether a checkpoint is due, and the signal that has come, on any process."""
        due_anywhere, caught = self._world.most(int(due), self._signals.caught)
        self._signals.note(caught)
        return bool(due_anywhere), caught

    def _position(self) -> Position:
        return Position(self._state.epoch, self._state.batch)
