"""A process that trains in forks of itself and has them killed, as often as it is told.

A fork starts in milliseconds where a fresh interpreter needs seconds to import torch, so many
kills can be tried. Called as `python -m tests.kill_tools`, with a JSON job on stdin.
"""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sparsetrain.training import checkpoint

KILLED = -signal.SIGKILL
IGNORED = frozenset({"seconds", "command", "totals", "begun"})


def kill_and_resume(folder: Path, settings: dict[str, Any], kills: list[Any]) -> dict[str, Any]:
    """Train undisturbed in folder/whole, and with kills in folder/broken-0, broken-1, ….

    Args:
        settings: flat, over `training_tools.TINY`.
        kills: of one process each: ["step", n] at the end of its n-th step; ["sync", n] at its
            n-th sync to disk, with half of the file gone; ["random", x] any time before that
            fraction of an undisturbed run's time.
    Returns:
        {"exits": one for each kill, "folders": names of those that were killed in}.
    """
    job = json.dumps({"folder": str(folder), "settings": settings, "kills": kills})
    words = [sys.executable, "-m", "tests.kill_tools"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        words, input=job, capture_output=True, text=True, check=False, cwd=root, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def outcome(path: Path) -> dict[str, Any]:
    """What a finished run left, without what may differ: times and the command."""
    lines = (path / "metrics.jsonl").read_text().splitlines()
    state = checkpoint.load_newest(path / "checkpoint", lambda line: None)
    return {
        "weights": (path / "model.safetensors").read_bytes(),
        "metrics": _plain([json.loads(row) for row in lines]),
        "record": _plain(json.loads((path / "record.json").read_text())),
        "state": _plain(state),
        "leftovers": sorted(p.name for p in path.rglob("*.part")),
    }


def _plain(value: Any) -> Any:
    """Tensors as their bytes, so that == compares them to the bit; times left out."""
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().flatten()
        return str(value.dtype), tuple(value.shape), flat.view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in IGNORED}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _fork(body: Callable[[], object], *, kill_after: float | None = None) -> int:
    """The exit code of a fork that runs `body`; -9 where it was killed."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            body()
            code = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            sys.stderr.flush()
            os._exit(code)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _arm(kind: str, number: int) -> None:
    """Let this process be killed at its `number`-th step or sync."""
    from sparsetrain.training.progress import Reporter

    left = [number]
    real = os.fsync

    def advance(_: Reporter) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def sync(handle: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            about = os.fstat(handle)
            if stat.S_ISREG(about.st_mode):
                os.ftruncate(handle, about.st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)

    if kind == "step":
        Reporter.advance = advance
    else:
        os.fsync = sync


def _main() -> None:
    import sparsetrain.data
    from sparsetrain.training import finish
    from tests.training_tools import fake_load, run

    torch.set_num_threads(1)
    sparsetrain.data.load = fake_load
    finish.plot_history = lambda *_: None  # a second of processor time, of no interest here
    job = json.load(sys.stdin)
    folder, settings = Path(job["folder"]), job["settings"]
    dice = random.Random(0)

    def train(path: Path, **more: Any) -> Callable[[], object]:
        return lambda: run(path, **settings, **more)

    train(folder / "whole")()  # not in a fork: what it imports on the way, each fork then has
    started = time.perf_counter()
    assert _fork(train(folder / "timed")) == 0
    length = time.perf_counter() - started
    exits: list[int] = []
    broken = [folder / "broken-0"]
    for kind, number in job["kills"]:
        if (broken[-1] / "record.json").exists():
            broken.append(folder / f"broken-{len(broken)}")
        go_on = train(broken[-1], checkpoint_every="2it")

        def body(
            kind: str = kind, number: int = number, go_on: Callable[[], object] = go_on
        ) -> None:
            if kind != "random":
                _arm(kind, number)
            go_on()

        after = length * dice.uniform(0, number) if kind == "random" else None
        exits.append(_fork(body, kill_after=after))
    assert _fork(train(broken[-1])) == 0
    sys.stdout.write(json.dumps({"exits": exits, "folders": [p.name for p in broken]}))


if __name__ == "__main__":
    _main()
