"""The command: exit codes, one sentence for each mistake, nothing left behind."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from sparsetrain import cli, data
from sparsetrain.kernels import native
from sparsetrain.training.progress import Reporter
from tests.training_tools import fake_load

QUICK = [
    *("--model", "mlp", "--batch-size", "16", "--validation", "0.25"),
    *("--precision", "fp32", "--device", "cpu"),
]
DENSE = ["train", *QUICK, "--method", "dense", "--epochs", "2"]
ART = ["--epochs", "4", "--dense-epochs", "1", "--max-regularize-epochs", "2"]


@pytest.fixture(autouse=True)
def _empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(data, "load", fake_load)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--sparsity 90", "sparsity must be in [0, 1), got 90. Did you mean 0.9?"),
        ("--sparsity 1.0", "sparsity must be in [0, 1), got 1."),
        ("--sparsity -0.1", "sparsity must be in [0, 1), got -0.1."),
        ("--sparsity nan", "sparsity must be in [0, 1), got nan."),
        ("--sparsity lots", "--sparsity: could not convert string to float: 'lots'."),
        ("--model restnet20", "unknown model 'restnet20'. Did you mean 'resnet20'?"),
        ("--model resnet33", "a CIFAR ResNet has depth 6n + 2 >= 8, got resnet33."),
        ("--model vgg16", "image_size must be a whole number >= 16, got 8."),
        ("--model vgg16 --width 2", "unknown option 'width'"),
        ("--method arrt", "unknown method 'arrt'. Did you mean 'art'?"),
        ("--method", "--method needs a value."),
        ("--dataset digit", "There is no data set 'digit'. Did you mean digits?"),
        ("--dataset ./nowhere", "There is no folder nowhere."),
        ("--dataset cifar10 --data-dir empty --no-download", ""),
        ("--strenght 3", "unknown option '--strenght'. Did you mean '--strength'?"),
        ("--optimizer sdg", "invalid choice 'sdg' for argument '--optimizer'."),
        ("--epochs", "Missing value for argument '--epochs"),
        ("--epochs 0", "epochs must be at least 1, got 0."),
        ("--device tpu9", "device must be auto, cpu or cuda[:N], got 'tpu9'."),
        ("--config nowhere.yaml", "cannot read the settings file nowhere.yaml"),
        ("--crop-padding 9 --padding-mode reflect", "crop_padding 9 cannot be reflected"),
        ("stray", "Unrecognized options: stray."),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(words, sentence, capsys, tmp_path):
    assert cli.main(["train", *words.split()]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == 1, err
    assert lines[0].startswith(f"sparsetrain: {sentence}")
    assert lines[0].endswith((".", "?"))
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_is_missing_broken_or_has_one_class_is_bad_input(capsys, tmp_path):
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(b"not an archive")
    (tmp_path / "one" / "train" / "cat").mkdir(parents=True)
    for words in (
        "--dataset cifar10 --no-download --data-dir .",
        "--dataset cifar100 --no-download --data-dir .",
        "--dataset ./one",
        "--dataset ./cifar10/cifar-10-binary.tar.gz",
    ):
        assert cli.main(["train", *words.split()]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_a_model_with_nothing_prunable_is_bad_input(capsys, tiny, monkeypatch):
    from torch import nn

    from sparsetrain import models

    monkeypatch.setattr(models, "create", lambda *_, **__: nn.Sequential(nn.BatchNorm2d(1)))
    assert cli.main(DENSE) == 2
    assert "no" in capsys.readouterr().err


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert cli.main(["tarin"]) == 2
    assert capsys.readouterr().err == (
        "sparsetrain: unknown command 'tarin'. Did you mean 'train'?\n"
    )


def test_a_run_prints_what_will_run_first_and_where_it_lies_last(capsys, tiny):
    assert cli.main(["train", *QUICK, *ART, "--out", "a"]) == 0
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[0].startswith("train mlp (82,944 prunable weights) on tiny (48 training + 16")
    assert lines[-1].split() == ["result", "a"]
    assert sum(line.startswith("epoch ") for line in lines) == 4


def test_json_prints_the_record_as_one_line_on_stdout(capsys, tiny):
    assert cli.main([*DENSE, "--json", "--out", "a"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == json.loads(Path("a/record.json").read_text())
    assert cli.main([*DENSE, "--json", "--out", "a"]) == 0
    assert capsys.readouterr().out == out


def test_the_default_folder_is_named_by_the_settings(tiny):
    assert cli.main(DENSE) == 0
    assert cli.main([*DENSE, "--seed", "1"]) == 0
    assert cli.main(DENSE) == 0
    names = sorted(p.name for p in Path("runs").iterdir())
    assert [n.rsplit("-", 1)[0] for n in names] == [
        "digits-mlp-dense-0.9-s0",
        "digits-mlp-dense-0.9-s1",
    ]


def test_settings_that_differ_from_the_folder_s_are_named(capsys, tiny):
    assert cli.main([*DENSE, "--out", "a"]) == 0
    before = Path("a/record.json").read_bytes()
    capsys.readouterr()
    assert cli.main([*DENSE, "--out", "a", "--lr", "0.2"]) == 2
    assert "other settings: lr 0.1 there and 0.2 here." in capsys.readouterr().err
    assert cli.main([*DENSE, "--out", "a", "--resume", "never"]) == 2
    assert Path("a/record.json").read_bytes() == before


def test_the_config_of_a_run_repeats_it(capsys, tiny):
    assert cli.main(["train", *QUICK, *ART, "--json", "--out", "a"]) == 0
    assert cli.main(["train", "--config", "a/config.yaml", "--json", "--out", "b"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["test_accuracy"] == second["test_accuracy"]
    assert first["settings"] == second["settings"]


@pytest.mark.parametrize("make", ["file", "child of a file"])
def test_a_folder_that_cannot_be_made_is_bad_input(capsys, tiny, make, tmp_path):
    (tmp_path / "taken").write_text("mine")
    out = "taken" if make == "file" else "taken/run"
    assert cli.main([*DENSE, "--out", out]) == 2
    assert "taken" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_ctrl_c_is_exit_130_with_how_to_continue_and_the_same_command_does(
    capsys, tiny, monkeypatch
):
    steps = iter(range(4))

    def advance(_):
        if next(steps, None) is None:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "advance", advance)
        assert cli.main([*DENSE, "--out", "a"]) == 130
    err = capsys.readouterr().err.splitlines()
    assert err[-1] == (
        "sparsetrain: stopped after epoch 1 of 2; "
        "the same command with --resume auto continues there."
    )
    assert not list(Path("a").rglob("*.part")) and not Path("a/record.json").exists()
    assert cli.main([*DENSE, "--out", "a"]) == 0
    assert "continuing after epoch 1." in capsys.readouterr().err


def test_a_failed_run_is_exit_code_1(capsys, tiny):
    assert cli.main([*DENSE, "--lr", "1e30", "--out", "a"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("sparsetrain: epoch 1: ")


def test_eval_repeats_the_test_accuracy(capsys, tiny):
    assert cli.main(["train", *QUICK, *ART, "--out", "a"]) == 0
    capsys.readouterr()
    assert cli.main(["eval", "a", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["difference"] == 0 and 0.899 < result["sparsity"] < 0.901
    assert cli.main(["eval", "a"]) == 0
    assert "in the record" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["eval", "eval nowhere", "eval a --devise cpu", "eval ."])
def test_eval_of_what_is_no_run_is_bad_input(capsys, words):
    assert cli.main(words.split()) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_eval_notices_weights_that_are_not_the_record_s(capsys, tiny):
    from safetensors.torch import load_file, save_file

    assert cli.main(["train", *QUICK, *ART, "--out", "a"]) == 0
    weights = load_file("a/model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, "a/model.safetensors")
    assert cli.main(["eval", "a"]) == 1
    assert "weights that are not zero" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("methods", ["dense", "static", "magnitude", "art"]),
        ("models", ["resnet8", "vgg19", "mlp"]),
        ("datasets", ["digits", "fashion-mnist", "tiny-imagenet"]),
    ],
)
def test_the_tables_list_every_name(capsys, command, expected):
    assert cli.main([command]) == 0
    first = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert set(expected) <= set(first)
    assert cli.main([command, "--verbose"]) == 2


def test_the_table_of_methods_shows_their_parts_and_stays_readable(capsys):
    assert cli.main(["methods"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 150
    (granet,) = [line for line in lines if line.startswith("granet")]
    for part in ("in-loop", "random, 50 % zeros", "gradient", "dense gradient at updates"):
        assert part in granet
    assert granet.endswith("2106.10404")


def test_a_method_s_name_prints_its_card_without_the_generator_s_markers(capsys):
    assert cli.main(["methods", "rigl"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("# rigl: ") and "|\n\n## Example\n\n" in out and "<!--" not in out
    assert "`drop_fraction` | `0.3`" in out
    assert cli.main(["methods", "rigl", "set"]) == 2
    assert "takes one method, got 'set' too" in capsys.readouterr().err


def test_a_terminal_gets_the_card_rendered(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["methods", "set"]) == 0
    assert "## Where" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["methods", "cite"])
def test_an_unknown_method_suggests_the_nearest(capsys, command):
    assert cli.main([command, "grant"]) == 2
    assert capsys.readouterr().err == (
        "sparsetrain: unknown method 'grant'. Did you mean 'granet'?\n"
    )


def test_cite_prints_the_sources_of_a_method_and_of_the_parts_chosen(capsys):
    assert cli.main(["cite", "itop", "--growth", "random", "--distribution", "er"]) == 0
    out = capsys.readouterr().out
    assert out.count("@") == 3 and "2102.02887" in out and "1707.04780" in out
    assert cli.main(["cite", "imp", "--rewind", "learning-rate", "--fraction", "0.5"]) == 0
    assert "2003.02389" in capsys.readouterr().out


def test_cite_alone_lists_the_keys(capsys):
    assert cli.main(["cite"]) == 0
    rows = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()[3:]]
    assert ["snip", "lee2019snip"] in rows and ["dense", "nothing"] in rows


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("cite itop --growt random", "unknown option '--growt'. Did you mean '--growth'?"),
        ("cite itop --growth best", "invalid choice 'best' for argument '--growth'."),
        ("cite --bibtex", "unknown method '--bibtex'."),
    ],
)
def test_a_mistake_in_cite_is_one_sentence(capsys, words, sentence):
    assert cli.main(words.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"sparsetrain: {sentence}") and err.count("\n") == 1


def test_help_lists_commands_options_and_the_method_s_own(capsys):
    assert cli.main(["--help"]) == 0
    assert "train" in capsys.readouterr().out
    assert cli.main(["train", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--strength-factor" in text and "--sparsity" in text and "--json" in text
    assert cli.main(["train", "--method", "magnitude", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--scope" in text and "--strength-factor" not in text


def test_help_loads_neither_plotting_nor_the_data_sets():
    code = (
        "import sys; from sparsetrain.cli import main; main(['train', '--help']);"
        "sys.exit(sum(m in sys.modules for m in ('matplotlib', 'sklearn', 'torch._dynamo')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0


def test_the_module_runs_as_the_command():
    words = [sys.executable, "-m", "sparsetrain", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("sparsetrain ")


def test_the_version_says_whether_the_kernels_are_in_use(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for library, words in ((None, "not in use"), (object(), "in use")):
        monkeypatch.setattr(native, "library", lambda found=library: found)
        monkeypatch.delenv("SPARSETRAIN_NATIVE", raising=False)
        assert cli.main(["--version"]) == 0
        assert capsys.readouterr().out.splitlines()[1] == f"C++ kernels: {words}"
    monkeypatch.setenv("SPARSETRAIN_NATIVE", "0")
    cli.main(["--version"])
    assert "left out" in capsys.readouterr().out


def test_a_terminal_gets_bars_and_a_log_gets_lines():
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        reporter = Reporter(stream)
        reporter.start_bar("epoch 1/2", 3)
        reporter.advance()
        reporter.say("epoch [1/2]  done")
        reporter.close()
    assert log.getvalue() == "epoch [1/2]  done\n"
    assert "epoch [1/2]  done" in terminal.getvalue() and "\x1b" in terminal.getvalue()
