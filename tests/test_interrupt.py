"""Signals end a run after the step, and one process at a time has its folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sparsetrain import cli, methods
from sparsetrain.training import checkpoint, lock
from sparsetrain.training.errors import Interrupted
from sparsetrain.training.progress import Reporter
from tests.harm_tools import at_step, metrics
from tests.training_tools import ART, fake_load, run, run_telling

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and locks")


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


@pytest.fixture(autouse=True)
def _ctrl_c_counts():
    """Tests started by a shell's `&` ignore SIGINT, and so does what they start."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("step", [2, 3, 7])
def test_a_signal_finishes_the_step_and_nothing_is_trained_twice(
    tmp_path, monkeypatch, number, code, step
):
    run(tmp_path / "whole", **ART)
    with monkeypatch.context() as patch:
        at_step(patch, step, lambda: os.kill(os.getpid(), number))
        with pytest.raises(
            Interrupted, match=f"stopped in epoch {step // 3 + 1} of|3 of 3"
        ) as told:
            run(tmp_path / "a", **ART)
    assert told.value.code == code
    steps = []
    monkeypatch.setattr(Reporter, "advance", lambda _: steps.append(1))
    _, said = run_telling(tmp_path / "a", **ART)
    assert "continuing in epoch" in said and len(steps) == 12 - step
    whole, broken = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "a"))
    assert all(torch.equal(whole[n], broken[n]) for n in whole)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "a")


SMALL = {
    "imp": {"rounds": 1},
    "synflow": {"rounds": 5},
    "snip": {"images_per_class": 3},
    "smart_ratio": {"model": "resnet8"},  # shares its weights among convolutions
}


@posix
@pytest.mark.parametrize("method", methods.names())
def test_every_method_goes_on_from_the_middle_of_an_epoch(tmp_path, monkeypatch, method):
    settings = {"method": method, "epochs": 3} | SMALL.get(method, {})
    run(tmp_path / "whole", **settings)
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="stopped in epoch 2 of 3, after step 2 of 3"):
            run(tmp_path / "a", **settings)
    run(tmp_path / "a", **settings)
    files = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("whole", "a")]
    assert files[0] == files[1]
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "a")


@posix
def test_a_signal_in_an_evaluation_loses_no_step(tmp_path, monkeypatch):
    run(tmp_path / "whole", **ART)
    from sparsetrain.training import trainer

    real, calls = trainer.evaluate, []

    def evaluate(model, batches, *, place, counted=None, **others):
        calls.append(1)
        if len(calls) == 4:  # the pruned copy's, in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return real(model, batches, place=place, counted=counted, **others)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "evaluate", evaluate)
        with pytest.raises(Interrupted, match="stopped in epoch 2 of 4, after step 3 of 3"):
            run(tmp_path / "a", **ART)
    run(tmp_path / "a", **ART)
    whole, broken = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "a"))
    assert all(torch.equal(whole[n], broken[n]) for n in whole)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "a")


@posix
def test_handlers_are_put_back_and_the_main_thread_alone_has_them(tmp_path, monkeypatch):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    run(tmp_path / "a", method="dense", epochs=1)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    seen = []
    thread = threading.Thread(
        target=lambda: seen.append(run(tmp_path / "b", method="dense", epochs=1))
    )
    thread.start()
    thread.join()
    assert seen[0]["epochs"] == 1


SECOND = """
import os, signal, sys
import sparsetrain.data
from sparsetrain.training import stop
from sparsetrain.training.progress import Reporter
from tests.training_tools import fake_load, run
stop._ECHO = float(sys.argv[3])
sparsetrain.data.load = fake_load
def advance(_):
    for _ in range(int(sys.argv[2])):
        os.kill(os.getpid(), signal.SIGTERM)
Reporter.advance = advance
from sparsetrain import cli, methods
sys.exit(cli.main(["train", "--model", "mlp", "--method", "dense", "--batch-size", "16",
                   "--epochs", "2", "--validation", "0.25", "--out", sys.argv[1]]))
"""


@posix
@pytest.mark.parametrize(
    ("signals", "echo", "checkpoints"), [(1, 0.0, 1), (2, 0.0, 0), (2, 60.0, 1)]
)
def test_the_second_signal_exits_at_once_but_for_an_echo(tmp_path, signals, echo, checkpoints):
    words = [sys.executable, "-c", SECOND, str(tmp_path / "a"), str(signals), str(echo)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert len(checkpoint.listed(tmp_path / "a" / "checkpoint")) == checkpoints
    assert ("stopped in epoch 1 of 2, after step 1 of 3;" in done.stderr) == bool(checkpoints)


def test_a_folder_in_use_is_refused_in_one_sentence(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    words = ["train", "--method", "dense", "--model", "mlp", "--out", str(tmp_path / "a")]
    with lock.locked(tmp_path / "a"):
        assert cli.main(words) == 2
    err = capsys.readouterr().err.splitlines()
    assert (
        len(err) == 1
        and f"{tmp_path / 'a'} is in use by another process ({os.getpid()});" in (err[0])
    )
    assert [p.name for p in (tmp_path / "a").iterdir()] == [lock.NAME]
    run(tmp_path / "a", method="dense", epochs=1)  # free again


@posix
def test_a_lock_dies_with_its_process(tmp_path):
    code = (
        "import os, signal, sys; from pathlib import Path; from sparsetrain.training import lock\n"
        "with lock.locked(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL and (tmp_path / lock.NAME).exists()
    with lock.locked(tmp_path):
        pass


def test_of_two_that_start_together_the_second_reports_the_first_s_record(tmp_path, monkeypatch):
    from sparsetrain.training import run as module

    real, first = module._build, []

    def build_slowly(*args):
        if not first:
            first.append(None)
            first[0] = run(tmp_path / "a", method="dense", epochs=1)
        return real(*args)

    monkeypatch.setattr(module, "_build", build_slowly)
    record, said = run_telling(tmp_path / "a", method="dense", epochs=1)
    assert record == first[0] and "is finished" in said
