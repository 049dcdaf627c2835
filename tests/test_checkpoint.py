"""Checkpoints: whole or absent, whatever happens."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from sparsetrain.training import checkpoint


def _state(value: float) -> dict[str, object]:
    return {"epoch": int(value), "w": torch.full((3,), value), "nested": {"a": [1, "x", None]}}


def test_the_newest_state_comes_back_equal(tmp_path):
    for epoch in (1, 2):
        checkpoint.save(tmp_path, epoch, _state(epoch), keep=2)
    loaded = checkpoint.load_newest(tmp_path, pytest.fail)
    assert loaded is not None
    assert loaded["epoch"] == 2 and loaded["nested"] == {"a": [1, "x", None]}
    assert torch.equal(loaded["w"], torch.full((3,), 2.0))


def test_only_the_last_k_are_kept_with_their_checksums(tmp_path):
    for epoch in range(1, 13):
        checkpoint.save(tmp_path, epoch, _state(epoch), keep=3)
    names = sorted(p.name for p in tmp_path.iterdir())
    expected = [f"epoch-{e:05d}.pt{end}" for e in (10, 11, 12) for end in ("", ".sha256")]
    assert names == expected


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "no checksum"])
def test_a_damaged_newest_is_reported_and_the_one_before_is_used(tmp_path, damage):
    checkpoint.save(tmp_path, 1, _state(1), keep=2)
    path = checkpoint.save(tmp_path, 2, _state(2), keep=2)
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

    checkpoint.save(tmp_path, 1, {"x": Evil()}, keep=1)
    said: list[str] = []
    assert checkpoint.load_newest(tmp_path, said.append) is None
    assert len(said) == 1 and not (tmp_path / "evil").exists()


def test_a_disk_that_fills_up_in_mid_write_leaves_nothing_of_that_checkpoint(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, 1, {"x": 1}, keep=2)
    whole = sorted(p.name for p in tmp_path.iterdir())

    def full(path, data):
        if path.suffix == ".pt":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.write_bytes(data)

    monkeypatch.setattr("sparsetrain.training.checkpoint.write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, 2, {"x": 2}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == whole
