"""Runs as tasks of a Ray cluster, each with its own CPUs and GPUs."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch

from ..training.errors import BadInput, Interrupted
from .room import Room
from .terminated import sigterm_raises
from .worker import Bench, Job, Outcome

_RETRIES = 3  # of a run whose node or process is lost
_POLL = 1.0  # seconds; a wait without end would not hear Ctrl-C


@dataclass(frozen=True)
class Cluster:
    """Where the tasks run, and what each needs.

    Attributes:
        address: of a running cluster; "auto" finds one, by the variable RAY_ADDRESS where that is
            set, and starts one on this machine where there is none; "local" always starts one.
        cpus: of each run, also its threads.
        gpus: of each run; None: one where the cluster has any.
    """

    address: str = "auto"
    cpus: int = 1
    gpus: float | None = None


def run_all(
    jobs: Sequence[Job], cluster: Cluster, *, say: Callable[[str], None] = lambda _: None
) -> Generator[Outcome, None, None]:
    """The outcomes, in the order in which they come; leaving early stops the runs under way.

    A run whose node is lost is started again elsewhere, and continues from its checkpoint if the
    run folders lie on storage that all nodes share.

    Args:
        say: told, at first and every few minutes, while no node of a cluster that was there before
            could hold a run: it may be one that grows.
    Raises:
        BadInput: Ray is not installed, there is no such cluster, or the one that was started here
            is too small for a run.
    """
    ray = _import()
    link = _connect(ray, cluster.address)
    try:
        gpus = cluster.gpus
        if gpus is None:
            gpus = 1 if ray.cluster_resources().get("GPU") else 0
        room = Room(ray, cluster.cpus, gpus)
        if link == "started" and (lacking := room.lacking()):
            raise BadInput(f"{lacking} Lower --cpus or --gpus.")
        with sigterm_raises():  # Ray has put a handler of its own in the place of ours
            yield from _tasks(ray, jobs, cluster.cpus, gpus, lambda: room.remind(say))
    finally:
        if link != "given":
            ray.shutdown()


def _tasks(
    ray: Any, jobs: Sequence[Job], cpus: int, gpus: float, between: Callable[[], None]
) -> Generator[Outcome, None, None]:
    """The outcomes of a connected cluster; `between` is called while they are waited for."""
    task = ray.remote(_run).options(
        num_cpus=cpus,
        num_gpus=gpus,
        max_retries=_RETRIES,
        retry_exceptions=[Interrupted],  # SIGTERM: a node that is taken away
    )
    here = str(Path.cwd())
    left = {task.remote(_absolute(job), cpus, here): job for job in jobs}
    try:
        while left:
            between()
            ready, _ = ray.wait(list(left), timeout=_POLL)
            for reference in ready:
                yield _outcome(ray, reference, left.pop(reference))
    finally:
        for reference in left:
            ray.cancel(reference)
        if left:
            ray.wait(list(left), num_returns=len(left), timeout=60)


def _run(job: Job, threads: int, folder: str) -> Outcome:
    """In a process of the cluster, in the driver's folder where the node has it.

    A data set may be named by a path that begins there, and an absolute one would be another run.
    """
    with suppress(OSError):
        os.chdir(folder)
    torch.set_num_threads(threads)
    return Bench().run(job)


def _outcome(ray: Any, reference: Any, job: Job) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Outcome(job.index, error=f"its task was lost: {lines[-1].rstrip('.')}; run again.")


def _absolute(job: Job) -> Job:
    """A task may run in a folder of its own."""
    paths = {k: job.settings[k] for k in ("out", "data_dir") if job.settings.get(k) is not None}
    whole = {name: str(Path(path).expanduser().resolve()) for name, path in paths.items()}
    return replace(job, settings={**job.settings, **whole})


def _import() -> Any:
    try:
        return import_module("ray")
    except ImportError as error:
        raise BadInput("--ray needs Ray: pip install 'sparsetrain[ray]'.") from error


def _connect(ray: Any, address: str) -> Literal["given", "joined", "started"]:
    """Join the cluster; one that was `given`, by a caller that is in it, is not left at the end."""
    if ray.is_initialized():
        return "given"
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address == "auto":  # one that is given is meant
        address = os.environ.get("RAY_ADDRESS") or address
    if address != "local":
        try:
            ray.init(address=address, **quiet)
            return "joined"
        except ConnectionError as error:
            if address != "auto":
                raise BadInput(f"there is no Ray cluster at {address}: {error}") from error
    ray.init(address="local", include_dashboard=False, **quiet)
    return "started"
