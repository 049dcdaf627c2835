"""Runs in several processes that live as long as the sweep."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext

import torch

from ..training.errors import Interrupted
from .worker import Bench, Job, Outcome

_PATIENCE = 60  # seconds for a run to write its checkpoint when it is told to stop


def run_all(jobs: Sequence[Job], *, workers: int, bench: Bench) -> Generator[Outcome, None, None]:
    """The outcomes, in the order in which they come.

    Leaving the iteration early stops the runs under way, each with a checkpoint.

    Args:
        jobs: what to run.
        workers: processes, which share the CPU's threads and the GPUs; with 1 everything happens
            in this one.
        bench: of this process.
    Raises:
        Interrupted: with one worker, Ctrl-C or SIGTERM during a run.
        KeyboardInterrupt: with more, Ctrl-C; and SIGTERM where `terminated.sigterm_raises`.
    """
    if workers == 1:
        yield from map(bench.run, jobs)
        return
    context = multiprocessing.get_context("spawn")
    threads, gpus = max(1, torch.get_num_threads() // workers), _gpus()
    left = deque(jobs)
    crew: list[_Worker] = []
    try:
        while left and len(crew) < workers:
            gpu = gpus[len(crew) % len(gpus)] if gpus else None
            _hire(crew, _Worker(context, threads, gpu), left.popleft())
        while crew:
            ready = wait([worker.pipe for worker in crew])
            for worker in [w for w in crew if w.pipe in ready]:
                outcome, alive = worker.result()
                if not alive or not left:
                    worker.dismiss()
                    crew.remove(worker)
                if left and alive:
                    worker.give(left.popleft())
                elif left:
                    _hire(crew, _Worker(context, threads, worker.gpu), left.popleft())
                yield outcome
    finally:
        try:
            for worker in crew:
                worker.stop()
            for worker in crew:
                worker.join()
        finally:  # a second signal waits for no checkpoint
            for worker in crew:
                worker.kill()


def _hire(crew: list[_Worker], worker: _Worker, job: Job) -> None:
    crew.append(worker)  # first: a Ctrl-C that comes between the two finds it there
    worker.start(job)


class _Worker:
    """The near end of one process, always with a job once it is started."""

    def __init__(self, context: SpawnContext, threads: int, gpu: str | None) -> None:
        self.pipe, self._far = context.Pipe()
        self.gpu = gpu
        # No daemon: those may have no processes of their own, and streamed data are decoded by
        # some. The workers watch for this process's end themselves, see `_leave_with_parent`.
        self._process = context.Process(target=_serve, args=(self._far, threads, gpu), daemon=False)

    def start(self, job: Job) -> None:
        with _deaf():
            self._process.start()
        self._far.close()  # so that the pipe ends when the worker does
        self.give(job)

    def give(self, job: Job) -> None:
        self._job = job
        with contextlib.suppress(OSError):  # dead already: `result` will say so
            self.pipe.send(job)

    def result(self) -> tuple[Outcome, bool]:
        """The outcome, and whether the process lives on; waits for it."""
        try:
            return self.pipe.recv(), True
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else "ended"
            return Outcome(self._job.index, error=f"its process {how}; run again to go on."), False

    def dismiss(self) -> None:
        """Let it end; it has no job."""
        self.pipe.close()
        self.join()

    def stop(self) -> None:
        """Tell it to leave its run with a checkpoint."""
        if self._started:
            self._process.terminate()

    def join(self) -> None:
        if self._started:
            self._process.join(_PATIENCE)
        self.kill()

    def kill(self) -> None:
        if self._started:
            self._process.kill()

    @property
    def _started(self) -> bool:
        return self._process.pid is not None


def _gpus() -> list[str]:
    """The names of the GPUs that this process may use."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = given.split(",") if given else map(str, range(torch.cuda.device_count()))
    return [name for name in names if name][: torch.cuda.device_count()]


def _serve(pipe: Connection, threads: int, gpu: str | None) -> None:
    """The far end: run what comes until the pipe ends."""
    if gpu is not None:  # read when CUDA starts, which it has not yet in this process
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    _leave_with_parent()
    torch.set_num_threads(threads)
    bench = Bench()
    with contextlib.suppress(EOFError, OSError, Interrupted):
        while True:
            pipe.send(bench.run(pipe.recv()))


def _leave_with_parent() -> None:
    """Stop, with a checkpoint if there is time, when the sweep's own process dies of whatever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_PATIENCE)
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes started inside never hear Ctrl-C.

    On a terminal it reaches every process of a command; the workers are to learn it from the sweep.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
