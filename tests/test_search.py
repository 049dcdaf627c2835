"""A search over settings: its file, its trials, and going on after a break."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparsetrain import cli
from sparsetrain.experiments import pool, worker
from sparsetrain.experiments.search import study as study_module
from sparsetrain.experiments.search.space import Axis, decode, encode, load
from sparsetrain.experiments.search.study import Study
from sparsetrain.training.errors import BadInput, Diverged, RunFailed
from tests.sweep_tools import make_runs_quick
from tests.training_tools import TINY

FOLDER = Path(__file__).parents[1] / "recipes" / "search"


@pytest.fixture(autouse=True)
def _quick(monkeypatch, tmp_path):
    make_runs_quick(monkeypatch, tmp_path)


def _file(**parts: Any) -> Path:
    whole = {
        "defaults": {**TINY, "epochs": 2, "method": "static"},
        "space": {"lr": {"low": 0.001, "high": 0.5, "log": True}, "sparsity": [0.5, 0.9]},
        "trials": 4,
    }
    Path("s.yaml").write_text(yaml.safe_dump(whole | parts))
    return Path("s.yaml")


def test_the_source_s_space_is_in_log_scale_where_it_spans_powers_of_ten():
    search = load(FOLDER / "hypersparse.yaml")
    for name, axis in search.space.items():
        if not axis.choices:
            assert axis.log == (axis.high / axis.low >= 10), name
    # spec: hypersparse-art.md, the free settings of its search; the two decays are one pair here.
    assert set(search.space) == {
        *("window", "strength_factor", "strength", "lr", "lr_decay", "milestones", "momentum"),
        *("dense_epochs", "weight_decay"),
    }


def test_the_middle_of_an_axis_is_inside():
    assert Axis(1e-4, 1.0, log=True).middle == pytest.approx(1e-2)
    assert Axis(2, 9).middle in range(2, 10)
    axis = Axis(choices=([0.1, 0.2], [0.3]))
    assert [decode(axis, encode(choice)) for choice in axis.choices] == [[0.1, 0.2], [0.3]]


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"space": {}}, "space must name at least one setting"),
        ({"space": {"lr": 3}}, "lr must be a list, or low, high and log"),
        ({"space": {"lr": {"low": 1, "high": 0.1}}}, "low below high"),
        ({"space": {"lr": {"low": 0, "high": 1, "log": True}}}, "above 0 in log scale"),
        ({"space": {"lrr": [0.1]}}, "Did you mean 'lr'"),
        ({"space": {"seed": [1, 2]}}, "seed is no property to search over"),
        ({"space": {"threads": [1, 2]}}, "threads is no property to search over"),
        ({"space": {"validation": [0.1, 0.2]}}, "validation decides which images judge"),
        ({"space": {"split_seed": {"low": 0, "high": 9}}}, "split_seed decides which images"),
        ({"space": {"compat": ["none", "paper"]}}, "compat decides which images judge"),
        ({"space": {"epochs": {"low": 1.5, "high": 3}}}, "epochs takes whole numbers, got 1.5"),
        ({"space": {"nesterov": {"low": 0, "high": 1}}}, "nesterov is no number; give a list"),
        ({"space": {"lr": {"low": 0.1, "high": float("inf")}}}, "must have numbers as ends"),
        ({"seeds": 3}, "seeds must be a list of whole numbers, got 3"),
        ({"trials": 0}, "trials must be a whole number"),
        ({"spaces": {}}, "unknown part 'spaces'"),
        ({"defaults": {**TINY, "validation": 0.0}}, "judged by held-out images"),
        ({"defaults": {**TINY, "compat": "paper"}}, "judged by held-out images"),
    ],
)
def test_mistakes_in_a_file_are_one_sentence(parts, sentence):
    with pytest.raises(BadInput, match=r"search s.yaml: ") as error:
        load(_file(**parts))
    assert sentence in str(error.value)


def test_without_optuna_the_sentence_says_what_to_install(monkeypatch, capsys):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(study_module, "import_module", absent)
    assert cli.main(["search", str(_file())]) == 2
    assert "pip install 'sparsetrain[optuna]'" in capsys.readouterr().err


def test_a_search_finds_the_best_by_held_out_images_and_goes_on(capsys):
    pytest.importorskip("optuna")
    assert cli.main(["search", str(_file()), "--trials", "3", "--json"]) == 0
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [r["val_accuracy"] for r in rows] == sorted(r["val_accuracy"] for r in rows)[::-1]
    assert len(rows) == 3
    assert err.startswith("search s: 3 trials, 0 finished -> runs/s\n")
    # Each value is that of a run's own record, on held-out images.
    records = [json.loads(p.read_text()) for p in Path("runs/s").rglob("record.json")]
    assert {r["val_accuracy"] for r in rows} == {r["val_accuracy"] for r in records}
    best = yaml.safe_load(Path("runs/s/best.yaml").read_text())
    assert best["lr"] == rows[0]["lr"]
    assert cli.main(["search", "s.yaml"]) == 0  # a fourth trial
    out, err = capsys.readouterr()
    assert err.splitlines()[0] == "search s: 4 trials, 3 finished -> runs/s"
    assert len(err.splitlines()) == 2
    assert "settings of the best: runs/s/best.yaml" in out


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"defaults": {**TINY, "epochs": 3, "method": "static"}}, "epochs 2 there and 3 here"),
        ({"seeds": [0, 1]}, "seeds [0] there and [0, 1] here"),
        ({"space": {"sparsity": [0.5]}}, "space of sparsity [0.5, 0.9] there and [0.5] here"),
        ({"space": {"lr": [0.1], "sparsity": [0.5, 0.9]}}, "space of lr {high: 0.5, log: true"),
    ],
)
def test_trials_made_under_other_settings_do_not_count(monkeypatch, capsys, parts, said):
    pytest.importorskip("optuna")
    assert cli.main(["search", str(_file()), "--trials", "1"]) == 0
    best = Path("runs/s/best.yaml").read_text()
    capsys.readouterr()
    assert cli.main(["search", str(_file(**parts)), "--trials", "1"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.endswith("or the file another name.\n") and err.count("\n") == 1
    assert Path("runs/s/best.yaml").read_text() == best
    # What does not change a result may change.
    same = {**TINY, "epochs": 2, "method": "static", "threads": 1}
    assert cli.main(["search", str(_file(defaults=same)), "--trials", "1"]) == 0


def test_a_trial_that_was_broken_off_is_taken_up_with_its_values(monkeypatch, capsys):
    pytest.importorskip("optuna")
    with monkeypatch.context() as patch:

        def stop(*_, **__):
            raise KeyboardInterrupt

        patch.setattr(pool, "run_all", stop)
        assert cli.main(["search", str(_file()), "--trials", "1"]) == 130
    asked = _trials()
    assert [t.state.name for t in asked] == ["RUNNING"]
    capsys.readouterr()
    assert cli.main(["search", "s.yaml", "--trials", "1"]) == 0
    assert "1 trials, 0 finished, 1 taken up again" in capsys.readouterr().err
    again = _trials()
    assert [t.state.name for t in again] == ["FAIL", "COMPLETE"]
    assert again[1].params == asked[0].params


def test_values_that_do_not_go_together_are_told_and_count(capsys):
    pytest.importorskip("optuna")
    space = {"dense_epochs": [1, 9]}
    defaults = {**TINY, "epochs": 4, "method": "art", "max_regularize_epochs": 1}
    # 1 if chance gave nothing but 9.
    assert cli.main(["search", str(_file(defaults=defaults, space=space, trials=6))]) in (0, 1)
    err = capsys.readouterr().err
    lines = err.splitlines()[1:]
    asked = [trial.params["dense_epochs"] for trial in _trials()]
    assert ["failed: dense_epochs + " in line for line in lines] == [n == 9 for n in asked]
    assert len(asked) == 6


def test_a_range_is_of_the_numbers_that_its_setting_takes(tmp_path):
    pytest.importorskip("optuna")
    space = {"strength_factor": {"low": 1, "high": 2}, "dense_epochs": {"low": 1.0, "high": 2}}
    defaults = {**TINY, "epochs": 9, "method": "art"}
    trial = Study(load(_file(defaults=defaults, space=space)), str(tmp_path / "db")).ask()
    assert not float(trial.values["strength_factor"]).is_integer()
    assert type(trial.values["dense_epochs"]) is int
    # Of a step of the run, which is a whole number or a part of all.
    for low, high, kind in ((10, 20, int), (0, 1, float)):
        space = {"stop": {"low": low, "high": high}}
        axis = load(_file(defaults={**TINY, "method": "gmp"}, space=space)).space["stop"]
        assert (type(axis.low), type(axis.high)) == (kind, kind)


def _failing_with(error: Exception, cause: Exception | None = None) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error from cause

    return fail


@pytest.mark.parametrize(
    "fail",
    [
        _failing_with(RunFailed("the disk is full."), OSError("no space")),
        _failing_with(BadInput("cannot write the run folder."), OSError("no space")),
        _failing_with(RuntimeError("CUDA-capable device(s) is/are busy")),
    ],
)
def test_trials_that_the_machine_fails_are_made_again_by_the_same_command(
    monkeypatch, capsys, fail
):
    pytest.importorskip("optuna")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", fail)
        assert cli.main(["search", str(_file()), "--trials", "2"]) == 1
    assert capsys.readouterr().err.count("failed: ") == 2  # and then it has come to an end
    assert cli.main(["search", "s.yaml", "--trials", "2"]) == 0
    assert "2 trials, 0 finished, 2 taken up again" in capsys.readouterr().err
    lost, made = _trials()[:2], _trials()[2:]
    assert [t.params for t in made] == [t.params for t in lost]
    assert cli.main(["search", "s.yaml", "--trials", "2"]) == 0
    assert "2 trials, 2 finished ->" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [Diverged, BadInput])
def test_trials_that_their_values_fail_count_for_good(monkeypatch, capsys, kind):
    pytest.importorskip("optuna")
    with monkeypatch.context() as patch:
        patch.setattr(worker, "train", _failing_with(kind("lr is too high.")))
        assert cli.main(["search", str(_file()), "--trials", "2"]) == 1
    assert cli.main(["search", "s.yaml", "--trials", "2"]) == 1
    assert len(_trials()) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("search s: 2 trials, 0 finished ->")


def test_a_trial_of_another_machine_is_taken_up_once_that_is_silent(monkeypatch, capsys):
    pytest.importorskip("optuna")
    with monkeypatch.context() as patch:
        patch.setattr(study_module.platform, "node", lambda: "a-container-that-is-killed")
        patch.setattr(pool, "run_all", _failing_with(KeyboardInterrupt()))
        assert cli.main(["search", str(_file()), "--trials", "1"]) == 130
    assert cli.main(["search", "s.yaml", "--trials", "1"]) == 1
    assert "1 trial under way in other processes." in capsys.readouterr().err
    later = time.time() + study_module._SILENT + 1
    monkeypatch.setattr(study_module.time, "time", lambda: later)
    assert cli.main(["search", "s.yaml", "--trials", "1"]) == 0
    assert "1 trials, 0 finished, 1 taken up again" in capsys.readouterr().err
    left, made = _trials()
    assert (left.params, made.state.name) == (made.params, "COMPLETE")


def test_a_search_gives_signs_of_life_and_bears_being_taken_for_dead(monkeypatch, tmp_path):
    pytest.importorskip("optuna")
    monkeypatch.setattr(study_module, "_BEAT", 0.01)
    search, storage = load(_file()), str(tmp_path / "db")
    mine = Study(search, storage)
    trial = mine.ask()
    seen = _seen(mine)
    with mine.signs_of_life():
        end = time.monotonic() + 20
        while _seen(mine) == seen and time.monotonic() < end:
            time.sleep(0.01)
    assert _seen(mine) > seen
    assert Study(search, storage).take_up() == 1  # the same process: as after a kill
    mine.tell(trial, None, "too late")
    assert [t.state.name for t in mine._study.get_trials()] == ["FAIL", "WAITING"]


def _seen(study: Study) -> float:
    return study._study.get_trials()[0].user_attrs["seen"]


def test_without_a_single_held_out_image_nothing_is_tried(capsys):
    pytest.importorskip("optuna")
    assert cli.main(["search", str(_file(defaults={**TINY, "validation": 0.0001}))]) == 2
    assert "validation 0.0001 of 64 images holds out none; raise it." in capsys.readouterr().err
    assert _trials() == []


def test_a_record_without_held_out_accuracy_is_a_failed_trial(monkeypatch, capsys):
    pytest.importorskip("optuna")
    monkeypatch.setattr(worker, "train", lambda *_, **__: {"test_accuracy": 1.0})
    assert cli.main(["search", str(_file()), "--trials", "1"]) == 1
    assert "failed: it held out no images to be judged by" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_said_once(monkeypatch, capsys):
    pytest.importorskip("optuna")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert cli.main(["search", str(_file(defaults={**TINY, "device": "cuda"}))]) == 2
    assert capsys.readouterr().err.endswith("torch sees 0 CUDA GPUs here.\n")


def _trials() -> list[Any]:
    import optuna

    study = optuna.load_study(study_name="s", storage="sqlite:///runs/s/study.db")
    return study.get_trials()


@pytest.mark.slow
def test_the_small_search_runs_with_two_workers(capsys):
    pytest.importorskip("optuna")
    assert cli.main(["search", str(_file(trials=4)), "--jobs", "2"]) == 0
    assert len(capsys.readouterr().err.splitlines()) == 5
