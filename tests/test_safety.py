"""What a full disk or a hostile file may do to a run: nothing bad."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from sparsetrain.training import checkpoint
from sparsetrain.training.checkpoint import Position
from sparsetrain.training.errors import BadInput, Interrupted, RunFailed
from sparsetrain.training.settings import build, read
from tests.harm_tools import Evil, at_step, metrics
from tests.training_tools import ART, fake_load, run, run_telling, tiny_dataset

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and locks")


@pytest.fixture(autouse=True)
def _tiny_data(monkeypatch):
    monkeypatch.setattr("sparsetrain.data.load", fake_load)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one mebibyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_when_there_is_room(small_disk, tmp_path):
    # A checkpoint of this network takes 1.1 MB with momentum and best weights.
    with pytest.raises(RunFailed, match=r"cannot write .*the disk is full\. No checkpoint had"):
        run(small_disk / "a", method="dense", width=None)
    assert not list((small_disk / "a").rglob("*.part")) and not checkpoint.listed(
        small_disk / "a" / "checkpoint"
    )
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    record = run(small_disk / "a", method="dense")
    whole = run(tmp_path / "whole", method="dense")
    assert {**record, "seconds": None} == {**whole, "seconds": None}


def _refuse_after(writes):
    """A file system cannot be made read-only while a file is open for writing, as the lock is."""
    real, left = checkpoint.write_atomic, iter(range(writes))

    def write(path, content):
        if next(left, None) is None:
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        real(path, content)

    return write


def test_a_read_only_folder_is_bad_input_before_and_a_failed_run_in_the_middle(
    small_disk, monkeypatch
):
    def remount(how):
        words = ["mount", "-o", f"remount,size=64m,{how}", str(small_disk)]
        subprocess.run(words, check=True)

    remount("ro")
    with pytest.raises(BadInput, match=r"cannot write the run folder .*Read-only file system"):
        run(small_disk / "a", method="dense")
    remount("rw")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomic", _refuse_after(6))
        with pytest.raises(RunFailed, match=r"Read-only .*checkpoint/epoch-00002\.pt, after epoch"):
            run(small_disk / "a", method="dense")
    remount("ro")
    with pytest.raises(BadInput, match="Read-only file system"):
        run(small_disk / "a", method="dense")
    remount("rw")
    record = run(small_disk / "a", method="dense")
    remount("ro")
    assert run(small_disk / "a", method="dense") == record  # a finished one can still be read
    remount("rw")


def test_a_folder_that_refuses_writing_is_bad_input_for_root_too(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, flags, *rest, **more):
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BadInput, match=r"cannot write the run folder .*Read-only file system"):
        run(tmp_path / "a", method="dense")


def _broken_run(path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 8, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted):
            run(path, **ART, checkpoint_every="2it", keep=3)


@posix
@pytest.mark.parametrize("damage", ["truncated", "flipped", "pickle"])
def test_a_damaged_newest_checkpoint_is_told_and_costs_no_bit(tmp_path, monkeypatch, damage):
    run(tmp_path / "whole", **ART)
    _broken_run(tmp_path / "a", monkeypatch)
    newest, before = checkpoint.listed(tmp_path / "a" / "checkpoint")[:2]
    content = newest.read_bytes()
    if damage == "truncated":
        newest.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = len(content) // 2
        newest.write_bytes(content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :])
    else:
        _put_evil(newest, tmp_path / "evil")
    _, said = run_telling(tmp_path / "a", **ART)
    assert f"checkpoint {newest} is damaged and was skipped." in said
    assert before.name == "epoch-00001-batch-000003.pt"
    assert "continuing in epoch 2, after step 3 of 3." in said
    assert not (tmp_path / "evil").exists()
    whole, broken = (load_file(tmp_path / n / "model.safetensors") for n in ("whole", "a"))
    assert all(torch.equal(whole[n], broken[n]) for n in whole)
    assert metrics(tmp_path / "whole") == metrics(tmp_path / "a")


def _put_evil(path, target):
    """A checkpoint whose checksum is right and whose pickle runs code."""
    buffer = io.BytesIO()
    torch.save({"version": 1, "x": Evil(target)}, buffer)
    path.write_bytes(buffer.getvalue())
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n")


def test_the_evil_checkpoint_of_these_tests_is_evil(tmp_path):
    path = tmp_path / "epoch-00001.pt"
    _put_evil(path, tmp_path / "evil")
    torch.load(path, weights_only=False)
    assert (tmp_path / "evil").exists()


def test_a_checkpoint_of_another_layout_is_refused_in_a_sentence(tmp_path):
    run(tmp_path / "a", method="dense")
    (tmp_path / "a" / "record.json").unlink()
    checkpoint.save(tmp_path / "a" / "checkpoint", Position(9), {"version": 0}, keep=1)
    with pytest.raises(BadInput, match="written by another version of sparsetrain"):
        run(tmp_path / "a", method="dense")


@posix
def test_other_data_than_the_checkpoint_s_are_refused_in_mid_epoch(tmp_path, monkeypatch):
    _broken_run(tmp_path / "a", monkeypatch)
    monkeypatch.setattr("sparsetrain.data.load", lambda *_, **__: tiny_dataset(train=128))
    with pytest.raises(BadInput, match="an epoch had 3 batches and has 6 now"):
        run(tmp_path / "a", **ART)


def test_a_settings_file_runs_nothing_and_cannot_fill_the_memory(tmp_path):
    evil = tmp_path / "evil.yaml"
    evil.write_text(f"seed: !!python/object/apply:os.mkdir ['{tmp_path}/made']\n")
    with pytest.raises(BadInput, match="not valid YAML"):
        read(evil)
    assert not (tmp_path / "made").exists()
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    evil.write_text("\n".join(rows) + "\nlr: *a11\n")
    with pytest.raises(BadInput) as told:  # 10^12 words, written out
        build({"lr": read(evil)["lr"]})
    assert len(str(told.value)) < 1000
    evil.write_text("[" * 5_000)
    with pytest.raises(BadInput, match="not valid YAML"):
        read(evil)
