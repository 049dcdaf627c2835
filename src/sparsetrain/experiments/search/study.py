"""The trials of a search, in an Optuna study that several processes and days share."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from ...training.errors import BadInput
from ...training.folder import differences
from .space import Axis, Search, decode, encode

_WORKER, _ERROR = "worker", "error"
_FIXED = "settings"  # of the study: what all its trials have in common


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
        self._asked: dict[int, Any] = {}
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
        """Put trials that a killed process of this machine left into the queue; how many."""
        states = self._optuna.trial.TrialState
        taken = 0
        for trial in self._study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            if not _dead(trial.user_attrs.get(_WORKER, "")):
                continue
            try:
                self._study.tell(trial.number, state=states.FAIL)
            except ValueError:  # another process was quicker
                continue
            self._study.enqueue_trial(trial.params)
            taken += 1
        return taken

    def left(self) -> int:
        """Trials that are still wanted, less those that somebody has begun."""
        states = self._optuna.trial.TrialState
        trials = self._study.get_trials(deepcopy=False)
        begun = [
            t
            for t in trials
            if t.state in (states.COMPLETE, states.RUNNING)
            or (t.state == states.FAIL and _ERROR in t.user_attrs)
        ]
        return max(0, self._search.trials - len(begun))

    def ask(self) -> Trial:
        """The next point."""
        trial = self._study.ask(self._space)
        trial.set_user_attr(_WORKER, _me())
        self._asked[trial.number] = trial
        return self._trial(trial.number, trial.params, None)

    def tell(self, trial: Trial, accuracy: float | None, error: str = "") -> None:
        """How a trial ended: its accuracy, or what went wrong."""
        if accuracy is None:
            self._asked[trial.number].set_user_attr(_ERROR, error)
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)
        else:
            self._study.tell(trial.number, accuracy)

    def finished(self) -> list[Trial]:
        """The trials with an accuracy, the best first."""
        states = (self._optuna.trial.TrialState.COMPLETE,)
        found = [
            self._trial(t.number, t.params, t.value)
            for t in self._study.get_trials(deepcopy=False, states=states)
        ]
        return sorted(found, key=lambda trial: -(trial.accuracy or 0.0))

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


def _dead(worker: str) -> bool:
    """Whether it is a process of this machine that is no more."""
    node, _, pid = worker.rpartition(":")
    if node != platform.node() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return int(pid) == os.getpid()  # ours, from before: we have begun none yet
