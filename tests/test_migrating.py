"""docs/migrating.md: every flag of the sources is there, and our commands mean what theirs do."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import sparsetrain as st
from sparsetrain import cli, data
from sparsetrain.training.check import resolve
from sparsetrain.training.config import validation_share
from sparsetrain.training.flags import parse_train
from sparsetrain.training.settings import flatten, section_types
from tests.archives import cifar10_members, cifar100_members, write_tar
from tests.source_commands import FLAGS, from_granet, translated
from tests.training_tools import fake_load

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "migrating.md").read_text()
PAIRS = re.findall(r"```text\n(.*?)```\s*```bash\n(.*?)```", PAGE, flags=re.S)

TITLES = {
    "HyperSparse": ("HyperSparse",),
    "GraNet/CIFAR": ("GraNet", "CIFAR/main.py"),
    "GraNet/ImageNet": ("GraNet", "ImageNet/main.py and multiproc.py"),
    "ITOP": ("ITOP",),
}


def section(source: str) -> str:
    """The page's text under the heading of a source."""
    title = ": ".join(TITLES[source])
    (found,) = [p for p in re.split(r"^## ", PAGE, flags=re.M) if p.startswith(title)]
    return found


def cells(text: str, column: int) -> list[str]:
    """One column of all tables, without headings."""
    rows = re.findall(r"^\| (.*) \|$", text, flags=re.M)
    return [row.split(" | ")[column] for row in rows if not row.startswith(("---", "there"))]


@pytest.mark.parametrize("source", FLAGS)
def test_every_flag_of_a_source_has_a_row(source: str) -> None:
    listed = set(re.findall(r"`(-[^`\s]+)`", " ".join(cells("| " + section(source), 0))))
    assert set(FLAGS[source].split()) <= listed


def test_every_flag_named_in_answer_is_a_flag_of_the_command() -> None:
    known = {"config", "json"}
    for method in st.methods.names():
        for kind in section_types(method).values():
            known |= {field.name.replace("_", "-") for field in dataclasses.fields(kind)}
    answers = re.findall(r"`([^`]*)`", " ".join(cells(PAGE, -1)))
    named = {flag for answer in answers for flag in re.findall(r"--([a-z-]+)", answer)}
    assert len(named) > 40
    assert named <= known


def expand(block: str, command: str, **variables: str) -> list[list[str]]:
    """The words of each line of a shell block that calls `command`, loops unrolled by the shell."""
    shell = f"{command}() {{ for word; do printf '%s\\037' \"$word\"; done; echo; }}\n{block}"
    names = {**os.environ, **variables}
    done = subprocess.run(
        ["sh", "-euc", shell], capture_output=True, text=True, check=True, env=names
    )
    return [line.split("\037")[:-1] for line in done.stdout.splitlines()]


def ours(block: str) -> list[list[str]]:
    """The words after `sparsetrain train` of each command of a block."""
    lines = expand(block, "sparsetrain")
    assert {line[0] for line in lines} == {"train"}
    return [line[1:] for line in lines]


def theirs(block: str) -> list[list[str]]:
    """The words after `python` of each command of a block, for both models of the scripts."""
    scripts = [{"model": name, "data": "cifar10", "final": "80"} for name in ("ResNet50", "vgg19")]
    return [line for names in scripts for line in expand(block, "python", **names)]


def meaning(words: list[str]) -> dict[str, Any]:
    """All settings of a `sparsetrain train` line, with epochs and steps as the sources count."""
    config = resolve(parse_train(words).settings)
    found = flatten(config)
    length = found.get("finetune_epochs") or found["epochs"]
    found["decays after"] = [fraction * length for fraction in found["milestones"]]
    if config.sparse.method in ("granet", "itop", "gmp"):
        images = 50_000 * (1 - config.data.validation)
        steps = math.ceil(images / config.optim.batch_size) * config.optim.epochs
        method: Any = st.methods.create(
            config.sparse.method,
            sparsity=config.sparse.sparsity,
            total_steps=steps,
            start=found["start"],
            stop=found["stop"],
        )
        found |= {"steps": steps, "last step": method.stop_step, "first step": 0}
        found["first step"] = method.start_step
    return found


def unique(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def _answers() -> list[str]:
    """The options that the tables of GraNet's methods and starts give."""
    tables = section("GraNet/CIFAR").split("Its methods:")[1].split("### Its commands")[0]
    return [x for x in re.findall(r"`([^`]+)`", " ".join(cells(tables, -1))) if " " in x]


@pytest.mark.parametrize("answer", _answers())
def test_an_answer_for_a_method_or_a_start_runs(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(data, "load", fake_load)
    method = [] if "--method" in answer else ["--method", "granet"]
    words = ["train", *method, *answer.split(), "--epochs", "1", "--json", "--device", "cpu"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    record = json.loads(capsys.readouterr().out)
    n, kept = record["prunable_weights"], record["kept_weights"]
    # Whole channels cannot hit every count.
    slack = 0.01 * n if "channel" in answer else 0
    assert abs(kept - st.masks.kept(n, 0.9)) <= slack


def test_the_tables_of_methods_and_starts_answer_each_name() -> None:
    assert len(_answers()) == 14


def test_the_page_has_the_sources_commands() -> None:
    counts = [(len(unique([translated(x) for x in theirs(a)])), len(ours(b))) for a, b in PAIRS]
    one = [(1, 1)]
    assert counts == [*one * 2, (2, 2), (8, 8), *one, (1, 2), *one * 2, (18, 18), (2, 2), (5, 5)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1][:70])
def test_our_commands_mean_what_theirs_mean(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    wanted = unique([translated(line) for line in theirs(pair[0])])
    found = [meaning(words) for words in ours(pair[1])]
    for settings in found:
        assert any(_same(settings, asked) for asked in wanted), _nearest(settings, wanted)
    for asked in wanted:
        assert any(_same(settings, asked) for settings in found), asked


def _same(settings: dict[str, Any], asked: dict[str, Any]) -> bool:
    return {name: settings.get(name) for name in asked} == asked


def _nearest(settings: dict[str, Any], wanted: list[dict[str, Any]]) -> str:
    """What differs from the likest line of theirs, for the message of a failure."""
    differing = [
        {k: (settings.get(k), v) for k, v in asked.items() if settings.get(k) != v}
        for asked in wanted
    ]
    return str(min(differing, key=len))


RECIPES = {
    "granet": "--method GraNet --init-density 0.50",
    "granet-dense-start": "--method GraNet --init-density 1",
    "itop": "--method DST --init-density 0.10",
    "gmp": "--method GMP --init-density 1",
}


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("model", ["ResNet50", "vgg19"])
@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_is_the_source_s_script(kind: str, model: str, dataset: str) -> None:
    line = (
        f"--sparse --sparse-init ERK --final-density 0.1 --final-prune-epoch 80 --epochs 160 "
        f"--batch-size 128 --update-frequency 1000 --l2 0.0005 --seed 0 {RECIPES[kind]}"
    )
    wanted = from_granet([*line.split(), "--model", model, "--data", dataset])
    path = ROOT / "recipes" / "granet" / f"{kind}-{model.lower()}-{dataset}.yaml"
    found = meaning(["--config", str(path)])
    assert {name: found[name] for name in wanted} == wanted


def test_there_is_a_recipe_for_each_combination_that_the_page_promises() -> None:
    made = {path.stem for path in (ROOT / "recipes" / "granet").iterdir()}
    assert made == {f"{k}-{m}-{d}" for k in RECIPES for m in ("resnet50", "vgg19") for d in CLASSES}


CLASSES = ("cifar10", "cifar100")
COMMANDS = [words for _, block in PAIRS for words in ours(block)]
# One of each kind; every command is a slow test.
KINDS = {
    "art": "resnet32-cifar10.yaml --sparsity 0.98",
    "art l1": "regularizer l1",
    "dense start": "granet-dense-start",
    "half start": "--distribution erk",
    "DST": "config recipes/granet/itop",
    "GMP": "gmp",
    "dense": "--method dense",
    "SET-ITOP": "--growth random",
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two archives in the exact format of the real ones, with 40 training images each."""
    folder = tmp_path_factory.mktemp("data")
    write_tar(folder / "cifar10" / "cifar-10-binary.tar.gz", cifar10_members(8))
    write_tar(folder / "cifar100" / "cifar-100-binary.tar.gz", cifar100_members(40))
    return folder


def run(
    words: list[str],
    archives: Path,
    out: Path,
    capsys: Any,
    network: Sequence[str] = ("resnet8", "--width", "1"),
) -> dict[str, Any]:
    """Run a command with a small network for two epochs; returns the record."""
    method = parse_train(words).settings.sparse.method
    short = ["--epochs", "2"]
    if method == "art":
        short = [f"--{phase}-epochs=1" for phase in ("dense", "max-regularize", "finetune")]
    elif method != "dense":
        short += ["--update-every", "2"]
    small = ["--model", *network, "--batch-size", "8", "--device", "cpu", "--json"]
    places = ["--no-download", "--data-dir", str(archives), "--out", str(out)]
    assert cli.main(["train", *words, *short, *small, *places]) == 0
    return json.loads(capsys.readouterr().out)


def check_run(
    words: list[str], archives: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(ROOT)
    config = parse_train(words).settings
    record = run(words, archives, tmp_path / "run", capsys)
    n, art = record["prunable_weights"], config.sparse.method == "art"
    target = 0.0 if config.sparse.method == "dense" else config.sparse.sparsity
    # spec: the published ART prunes the border weight too.
    kept = st.masks.kept(n, target) - (1 if art else 0)
    assert record["kept_weights"] == kept
    weights = load_file(tmp_path / "run" / "model.safetensors")
    masked = record["sparsity"]["per_layer"]
    zeros = sum(int((weights[name] == 0).sum()) for name in masked)
    # A weight that the last update has grown is still 0.
    assert zeros >= n - kept > 0 if target else zeros == 0
    held_out = round(40 * validation_share(config)) if not art else 0
    batches = math.ceil((40 - held_out) / 8)
    assert record["steps"] == batches * (3 if art else 2)
    assert ("test_accuracy_best" in record) == art


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_of_each_kind_runs_to_the_exact_sparsity(
    kind: str, archives: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    words = next(words for words in COMMANDS if KINDS[kind] in " ".join(words))
    check_run(words, archives, tmp_path, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_runs_to_the_exact_sparsity(
    words: list[str], archives: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    check_run(words, archives, tmp_path, monkeypatch, capsys)


def test_compat_paper_counts_as_the_published_granet(
    archives: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    # 5 steps an epoch, updates at 2, 4, …, and stop is step 5: the window is [0, 2) updates, of
    # which one prunes, to density 0.05 + 0.45 (1 - 1/2)^3 = 0.10625; K - 1 of K weights survive.
    monkeypatch.chdir(ROOT)
    words = ["--config", "recipes/granet/granet-resnet50-cifar10.yaml", "--compat", "paper"]
    # Not resnet8: two steps after N(0, 0.01) all of its classifier is pruned, no gradient is left,
    # and the published growth loses weights.
    words += ["--sparsity", "0.95"]
    record = run(words, archives, tmp_path / "run", capsys, network=["lenet5"])
    n = record["prunable_weights"]
    assert record["kept_weights"] == int(n * 0.10625) - 1 != st.masks.kept(n, 0.95)
    # The recipe holds out a tenth, as the source does; the test set is read every epoch too.
    assert record["images"]["validation"] > 0
    assert "test_accuracy_best" in record


def test_compat_paper_with_parts_that_were_not_published_is_refused(
    tmp_path: Path, capsys: Any
) -> None:
    words = ["train", "--method", "granet", "--compat", "paper", "--scope", "layer"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 2
    assert "compat='paper' has no rule for 'layer'" in capsys.readouterr().err
