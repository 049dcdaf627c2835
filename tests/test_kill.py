"""Runs killed with SIGKILL at any instant and continued end as if nothing had happened."""

from __future__ import annotations

import os

import pytest

from tests.kill_tools import KILLED, kill_and_resume, outcome

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")

METHODS = {
    "art": {"method": "art", "dense_epochs": 1, "max_regularize_epochs": 2, "model": "resnet8"},
    "granet": {"method": "granet", "initial_sparsity": 0.5},
    "rigl": {"method": "rigl", "optimizer": "adam", "lr": 0.01},
    "imp": {
        "method": "imp",
        "rounds": 2,
        "epochs": 6,
        "rewind": "epoch",
        "rewind_epoch": 0.5,
    },
}
# An epoch has 3 steps, a checkpoint is written every 2. The 1st process dies in the middle of an
# epoch, the 2nd in the middle of a checkpoint, the 3rd late, long after it was continued.
KILLS = {
    "art": [["step", 4], ["sync", 7], ["step", 6]],
    "granet": [["step", 5], ["sync", 5], ["step", 4]],
    "rigl": [["step", 3], ["sync", 11], ["step", 2]],
    "imp": [["step", 7], ["sync", 7], ["step", 5]],
}


@pytest.mark.parametrize("name", METHODS)
def test_a_run_killed_three_times_ends_equal_to_the_bit(tmp_path, name):
    done = kill_and_resume(tmp_path, METHODS[name], KILLS[name])
    assert done == {"exits": [KILLED] * 3, "folders": ["broken-0"]}
    whole, broken = outcome(tmp_path / "whole"), outcome(tmp_path / "broken-0")
    assert broken["leftovers"] == []
    assert whole == broken


def test_every_sync_to_disk_may_be_the_last(tmp_path):
    # Of the settings, the metrics, a checksum, a checkpoint, and of the folders that hold them.
    done = kill_and_resume(tmp_path, METHODS["granet"], [["sync", n] for n in range(1, 13)])
    assert done["exits"] == [KILLED] * 12
    for folder in done["folders"]:
        assert outcome(tmp_path / "whole") == outcome(tmp_path / folder)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_run_killed_at_twenty_random_instants_ends_equal_to_the_bit(tmp_path, name):
    settings = METHODS[name] | {"epochs": 12}
    done = kill_and_resume(tmp_path, settings, [["random", 0.7]] * 20)
    whole = outcome(tmp_path / "whole")
    for folder in done["folders"]:
        assert outcome(tmp_path / folder) == whole
    assert done["exits"].count(KILLED) >= 10, done  # the others had finished before
