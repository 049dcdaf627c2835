"""Checkpoints: whole or absent, whatever happens."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest
import torch

from sparsetrain.training import cadence, checkpoint
from sparsetrain.training.checkpoint import Position
from sparsetrain.training.errors import BadInput


def _state(value: float) -> dict[str, object]:
    return {"epoch": int(value), "w": torch.full((3,), value), "nested": {"a": [1, "x", None]}}


def test_the_newest_state_comes_back_equal(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(tmp_path, Position(epoch), _state(epoch), keep=2)
    loaded = checkpoint.load_newest(tmp_path, pytest.fail)
    assert loaded is not None
    assert loaded["epoch"] == 2 and loaded["nested"] == {"a": [1, "x", None]}
    assert torch.equal(loaded["w"], torch.full((3,), 2.0))


def test_only_the_last_k_are_kept_with_their_checksums(tmp_path):
    for epoch in range(1, 13):
        checkpoint.save(tmp_path, Position(epoch), _state(epoch), keep=3)
    names = sorted(p.name for p in tmp_path.iterdir())
    expected = [f"epoch-{e:05d}.pt{end}" for e in (10, 11, 12) for end in ("", ".sha256")]
    assert names == expected


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "no checksum"])
def test_a_damaged_newest_is_reported_and_the_one_before_is_used(tmp_path, damage):
    checkpoint.save(tmp_path, Position(1), _state(1), keep=2)
    path = checkpoint.save(tmp_path, Position(2), _state(2), keep=2)
    data = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        path.with_name(path.name + ".sha256").unlink()
    said: list[str] = []
    loaded = checkpoint.load_newest(tmp_path, said.append)
    assert loaded is not None and loaded["epoch"] == 1
    assert said == [f"checkpoint {path} is damaged and was skipped."]


def test_nothing_there_is_none(tmp_path):
    assert checkpoint.load_newest(tmp_path / "absent", pytest.fail) is None


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failure):
    path = tmp_path / "a"
    checkpoint.write_atomic(path, b"old")

    def fail(_: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)):
        checkpoint.write_atomic(path, b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    checkpoint.save(tmp_path, Position(1), {"x": Evil()}, keep=1)
    said: list[str] = []
    assert checkpoint.load_newest(tmp_path, said.append) is None
    assert len(said) == 1 and not (tmp_path / "evil").exists()


def test_a_disk_that_fills_up_in_mid_write_leaves_nothing_of_that_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, Position(1), {"x": 1}, keep=2)
    whole = sorted(p.name for p in tmp_path.iterdir())

    def full(path, data):
        if path.suffix == ".pt":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr("sparsetrain.training.checkpoint.write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, Position(2), {"x": 2}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == whole


def test_the_later_position_is_the_newer_within_an_epoch_and_over_many(tmp_path):
    positions = [Position(0, 7), Position(1), Position(9, 2), Position(9, 11), Position(100_000)]
    for position in positions:
        checkpoint.save(tmp_path, position, {"epoch": position.epoch}, keep=10)
    names = [path.name for path in checkpoint.listed(tmp_path)]
    assert names == [
        "epoch-100000.pt",
        "epoch-00009-batch-000011.pt",
        "epoch-00009-batch-000002.pt",
        "epoch-00001.pt",
        "epoch-00000-batch-000007.pt",
    ]


def test_a_damaged_later_one_never_displaces_what_is_written_after_it(tmp_path):
    checkpoint.save(tmp_path, Position(1), _state(1), keep=1)
    damaged = checkpoint.save(tmp_path, Position(2), _state(2), keep=2)
    damaged.write_bytes(b"")
    checkpoint.save(tmp_path, Position(1, 5), _state(1), keep=1)
    assert [p.name for p in checkpoint.listed(tmp_path)] == ["epoch-00001-batch-000005.pt"]
    assert len(list(tmp_path.iterdir())) == 2  # with its checksum


def test_what_a_killed_process_left_is_cleaned_and_nothing_else(tmp_path):
    checkpoint.save(tmp_path, Position(1), _state(1), keep=1)
    mine = ["notes.part", "data.sha256", ".hidden"]
    left = [".epoch-00002.pt.part", ".epoch-00002.pt.sha256.part", "epoch-00002.pt.sha256"]
    for name in mine + left:
        (tmp_path / name).write_text("x")
    checkpoint.clean(tmp_path)
    checkpoint.clean(tmp_path / "absent")
    kept = {p.name for p in tmp_path.iterdir()}
    assert kept == {*mine, "epoch-00001.pt", "epoch-00001.pt.sha256"}


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not synced there")
def test_a_file_is_synced_before_its_name_and_the_folder_after(tmp_path, monkeypatch):
    events: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename")
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    checkpoint.write_atomic(tmp_path / "a", b"x")
    assert events == ["file", "rename", "folder"]


def test_the_interval_is_steps_epochs_or_minutes():
    assert cadence.parse("500it") == cadence.Cadence(500, "it")
    assert cadence.parse("1ep") == cadence.Cadence(1, "ep")
    assert cadence.parse("0.5min") == cadence.Cadence(0.5, "min")


@pytest.mark.parametrize("text", ["", "10", "min", "0it", "0min", "1.5it", "-1ep", "5 h", "1e3it"])
def test_any_other_interval_is_one_sentence(text):
    with pytest.raises(BadInput, match="as 500it, 1ep or 10min, got"):
        cadence.parse(text)


def test_a_checkpoint_is_due_by_steps_of_the_run_by_epochs_or_by_the_clock():
    steps = cadence.Due(cadence.parse("3it"))
    assert [n for n in range(1, 10) if steps.after_step(n)] == [3, 6, 9]
    assert not any(map(steps.after_epoch, range(1, 10)))
    epochs = cadence.Due(cadence.parse("2ep"))
    assert [n for n in range(1, 7) if epochs.after_epoch(n)] == [2, 4, 6]
    assert not any(map(epochs.after_step, range(1, 10)))
    now = [0.0]
    minutes = cadence.Due(cadence.parse("10min"), clock=lambda: now[0])
    now[0] = 599.0
    assert not minutes.after_step(1)
    now[0] = 601.0
    assert minutes.after_step(2) and not minutes.after_epoch(1)
    minutes.written()
    assert not minutes.after_step(3)
