"""The trials of a search, in an Optuna study that several processes and days share."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...training.errors import BadInput
from ...training.folder import differences
from .space import Axis, Search, decode, encode

# Of a trial: who makes it, when that one was last seen, why it is over, which one it makes again.
_WORKER, _SEEN, _ERROR, _AGAIN = "worker", "seen", "error", "again"
_FIXED = "settings"  # of the study: what all its trials have in common
_BEAT = 30.0  # seconds between two signs of life
_SILENT = 300.0  # seconds without one after which a process is taken for dead


@dataclass(frozen=True)
class Trial:
    """A point of the space.

    Attributes:
        number: in the study.
        values: setting -> value.
        accuracy: on held-out images; None where there is none yet.
    """

    number: int
    values: Mapping[str, Any]
    accuracy: float | None = None


class Study:
    """The trials so far, and what to try next.

    Args:
        search: its file.
        storage: an Optuna storage: a URL, or the path of an SQLite file.
    Raises:
        BadInput: Optuna is not installed, the storage cannot be used, or its trials were made
            with other settings or in another space.
    """

    def __init__(self, search: Search, storage: str) -> None:
        self._optuna = _import()
        self._optuna.logging.set_verbosity(self._optuna.logging.ERROR)
        self._search = search
        self._open: dict[int, Any] = {}  # asked for here, and not told yet
        self._lost: set[int] = set()  # failed here, through no fault of their values
        self._space = {name: self._distribution(axis) for name, axis in search.space.items()}
        try:
            self._study = self._optuna.create_study(
                storage=storage if "://" in storage else f"sqlite:///{Path(storage).resolve()}",
                study_name=search.path.stem,
                direction="maximize",
                load_if_exists=True,
                sampler=self._optuna.samplers.TPESampler(seed=None),
            )
        except Exception as error:  # of Optuna, SQLAlchemy or the database's driver
            raise BadInput(f"cannot use the storage {storage}: {error}") from error
        self._check()

    def _check(self) -> None:
        """Trials count only if this file would make the same."""
        here = self._search.fixed
        there = self._study.user_attrs.get(_FIXED)
        if there is None and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr(_FIXED, here)
            return
        differing = "they are not recorded" if there is None else differences(there, here)
        if differing:
            raise BadInput(
                f"the trials of search {self._search.path.stem} were made with other settings: "
                f"{differing}. Give the same settings, or the file another name."
            )

    def take_up(self) -> int:
        """Put trials that a dead process left into the queue; how many.

        Dead is one of this machine that is gone, and any that has given no sign for `_SILENT`.
        """
        fail, taken = self._optuna.trial.TrialState.FAIL, 0
        for trial in self._with_state("RUNNING"):
            if trial.number in self._open or not _dead(trial):
                continue
            try:
                self._study.tell(trial.number, state=fail)
            except ValueError:  # another process was quicker
                continue
            self._study.enqueue_trial(trial.params, {_AGAIN: trial.number})
            taken += 1
        return taken

    def take_up_failed(self) -> int:
        """Put trials into the queue that failed through no fault of their values; how many."""
        again = {t.user_attrs.get(_AGAIN) for t in self._study.get_trials(deepcopy=False)}
        failed = [
            t
            for t in self._with_state("FAIL")
            if _ERROR not in t.user_attrs and t.number not in again
        ]
        for trial in failed:
            self._study.enqueue_trial(trial.params, {_AGAIN: trial.number})
        return len(failed)

    def elsewhere(self) -> int:
        """Trials under way in other processes, as far as is known."""
        return sum(trial.number not in self._open for trial in self._with_state("RUNNING"))

    def left(self) -> int:
        """Trials that are still wanted, less those that somebody has begun.

        One that failed through no fault of its values counts for this process alone, so that it
        comes to an end; the next one makes it again.
        """
        begun = self._with_state("COMPLETE", "RUNNING")
        begun += [t for t in self._with_state("FAIL") if _ERROR in t.user_attrs]
        return max(0, self._search.trials - len(begun) - len(self._lost))

    def ask(self) -> Trial:
        """The next point."""
        trial = self._study.ask(self._space)
        trial.set_user_attr(_WORKER, _me())
        trial.set_user_attr(_SEEN, time.time())
        self._open[trial.number] = trial
        return self._trial(trial.number, trial.params, None)

    def tell(
        self, trial: Trial, accuracy: float | None, error: str = "", *, final: bool = True
    ) -> None:
        """How a trial ended: its accuracy, or what went wrong.

        Args:
            final: of a failure, whether these values would fail again.
        """
        asked = self._open.pop(trial.number)
        if accuracy is not None:
            self._study.tell(trial.number, accuracy, skip_if_finished=True)
            return
        if not final:
            self._lost.add(trial.number)
        else:
            # Taken for dead, as after a night's sleep of the machine, and made by another.
            with suppress(self._optuna.exceptions.UpdateFinishedTrialError):
                asked.set_user_attr(_ERROR, error)
        fail = self._optuna.trial.TrialState.FAIL
        self._study.tell(trial.number, state=fail, skip_if_finished=True)

    @contextmanager
    def signs_of_life(self) -> Iterator[None]:
        """For the while, other processes see that this one is at its trials."""
        over = threading.Event()

        def beat() -> None:
            while not over.wait(_BEAT):
                for trial in list(self._open.values()):
                    with suppress(Exception):  # a busy database, or just told; the next one will do
                        trial.set_user_attr(_SEEN, time.time())

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(_BEAT)

    def finished(self) -> list[Trial]:
        """The trials with an accuracy, the best first."""
        found = [self._trial(t.number, t.params, t.value) for t in self._with_state("COMPLETE")]
        return sorted(found, key=lambda trial: -(trial.accuracy or 0.0))

    def _with_state(self, *names: str) -> list[Any]:
        states = tuple(self._optuna.trial.TrialState[name] for name in names)
        return self._study.get_trials(deepcopy=False, states=states)

    def _trial(self, number: int, params: Mapping[str, Any], accuracy: float | None) -> Trial:
        values = {name: decode(self._search.space[name], v) for name, v in params.items()}
        return Trial(number, values, accuracy)

    def _distribution(self, axis: Axis) -> Any:
        kinds = self._optuna.distributions
        if axis.choices:
            return kinds.CategoricalDistribution([encode(choice) for choice in axis.choices])
        whole = isinstance(axis.low, int) and isinstance(axis.high, int)
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        return kind(axis.low, axis.high, log=axis.log)


def _import() -> Any:
    try:
        return import_module("optuna")
    except ImportError as error:
        raise BadInput("search needs Optuna: pip install 'sparsetrain[optuna]'.") from error


def _me() -> str:
    return f"{platform.node()}:{os.getpid()}"


def _dead(trial: Any) -> bool:
    """Whether the process that makes a trial is no more.

    One of another machine is known by its signs of life alone. Clocks that differ by less than
    `_SILENT` do no harm; nor does an error here: the run's folder has a lock of its own.
    """
    seen = trial.user_attrs.get(_SEEN) or trial.datetime_start.timestamp()
    if time.time() - seen > _SILENT:
        return True
    node, _, pid = trial.user_attrs.get(_WORKER, "").rpartition(":")
    if node != platform.node() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(pid) == os.getpid()  # ours, from before: this one's own are not asked about
