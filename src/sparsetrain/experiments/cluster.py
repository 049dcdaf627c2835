"""Runs as tasks of a Ray cluster, each with its own CPUs and GPUs."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from ..training.errors import BadInput, Interrupted
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


def run_all(jobs: Sequence[Job], cluster: Cluster) -> Generator[Outcome, None, None]:
    """The outcomes, in the order in which they come; leaving early stops the runs under way.

    A run whose node is lost is started again elsewhere, and continues from its checkpoint if the
    run folders lie on storage that all nodes share.

    Raises:
        BadInput: Ray is not installed, or there is no such cluster.
    """
    ray = _import()
    ours = _connect(ray, cluster.address)
    try:
        gpus = cluster.gpus
        if gpus is None:
            gpus = 1 if ray.cluster_resources().get("GPU") else 0
        task = ray.remote(_run).options(
            num_cpus=cluster.cpus,
            num_gpus=gpus,
            max_retries=_RETRIES,
            retry_exceptions=[Interrupted],  # SIGTERM: a node that is taken away
        )
        here = str(Path.cwd())
        left = {task.remote(_absolute(job), cluster.cpus, here): job for job in jobs}
        try:
            while left:
                ready, _ = ray.wait(list(left), timeout=_POLL)
                for reference in ready:
                    yield _outcome(ray, reference, left.pop(reference))
        finally:
            for reference in left:
                ray.cancel(reference)
            if left:
                ray.wait(list(left), num_returns=len(left), timeout=60)
    finally:
        if ours:
            ray.shutdown()


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


def _connect(ray: Any, address: str) -> bool:
    """Join the cluster; returns whether it is to be left at the end."""
    if ray.is_initialized():
        return False
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
    if address == "auto":  # one that is given is meant
        address = os.environ.get("RAY_ADDRESS") or address
    if address != "local":
        try:
            ray.init(address=address, **quiet)
            return True
        except ConnectionError as error:
            if address != "auto":
                raise BadInput(f"there is no Ray cluster at {address}: {error}") from error
    ray.init(address="local", include_dashboard=False, **quiet)
    return True
