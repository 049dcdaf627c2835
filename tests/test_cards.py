"""Every method has a card; its code runs, its commands parse, its options are the code's."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

import sparsetrain as st
from sparsetrain import citations
from sparsetrain.training.flags import parse_train
from sparsetrain.training.options import ImpOptions, options_type

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "sparsetrain"
NAMES = st.methods.names()

HEADINGS = [
    "When to use it",
    "How it works",
    "Options",
    "Example",
    "How ours differs from the paper",
    "How it differs from the published code",
    "Where it is worse",
    "Reference",
]


def sections(name: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", st.methods.card(name), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def code_of(name: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", st.methods.card(name), flags=re.DOTALL)
    return block


def said_output(code: str) -> list[str]:
    """What the comments claim: those behind a print, and lines that are only a comment."""
    return [
        line.split("# ", 1)[1]
        for line in code.splitlines()
        if line.startswith("# ") or (line.lstrip().startswith("print(") and "# " in line)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_card_has_the_same_headings_and_words_under_each(name: str) -> None:
    found = sections(name)
    assert list(found) == HEADINGS
    assert all(len(text.split()) >= 1 for text in found.values())
    assert st.methods.card(name).startswith(f"# {name}: ")


@pytest.mark.parametrize("name", NAMES)
def test_the_code_of_a_card_prints_what_its_comments_say(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = code_of(name)
    said = said_output(code)
    exec(compile(code, st.methods.get(name).card, "exec"), {})
    assert said
    assert capsys.readouterr().out.splitlines() == said


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_a_card_is_one_of_this_method(name: str) -> None:
    lines = re.findall(r"^    sparsetrain train (.*)$", sections(name)["Example"], re.MULTILINE)
    assert lines
    for line in lines:
        assert parse_train(shlex.split(line)).settings.sparse.method == name


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_every_flag_with_its_default(name: str) -> None:
    table = sections(name)["Options"]
    for option in dataclasses.fields(options_type(name)):
        assert f"| `{option.name}` | `{option.default}` |" in table


def test_the_cards_show_defaults_that_are_known_by_heart() -> None:
    assert "| `drop_fraction` | `0.3` |" in sections("rigl")["Options"]
    assert "| `stop` | `0.5` |" in sections("granet")["Options"]
    assert "| `temperature` | `200.0` |" in sections("grasp")["Options"]
    assert "| `strength` | `5e-06` |" in sections("art")["Options"]


@pytest.mark.parametrize("name", NAMES)
def test_a_card_refers_to_every_paper_that_the_method_is_cited_by_first(name: str) -> None:
    entry = st.methods.get(name)
    assert entry.paper.removeprefix("arXiv ") in sections(name)["Reference"]
    for key in citations.keys(name)[:1]:
        number = re.search(r"eprint\s*= \{([\d.]+)\}", citations.entries()[key])
        assert number is not None and f"arXiv {number[1]}" == entry.paper


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_card_leads_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", st.methods.card(name)):
        here = PACKAGE / st.methods.get(name).card
        assert target.startswith("https://") or (here.parent / target).exists(), target


def test_no_card_lies_about_without_a_method() -> None:
    cards = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.md")}
    assert cards == {st.methods.get(name).card for name in NAMES}


def test_an_unknown_card_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'granet'"):
        st.methods.card("grant")


@pytest.mark.parametrize("name", st.methods.names("in-loop"))
def test_the_table_says_what_the_dataclass_s_defaults_are(name: str) -> None:
    entry = st.methods.get(name)
    default = {option.name: option.default for option in entry.options}
    if "drop" in default:
        assert entry.drop.startswith(default["drop"])
        assert entry.drop.endswith(f"{100 * default['drop_fraction']:g} %")
        assert entry.growth == default["growth"]
        gradient = {"gradient": "at updates", "momentum": "every step", "random": "none"}
        assert entry.cost.endswith(gradient[default["growth"]])
    else:
        assert entry.growth == "none" and entry.cost == "none"
    if default.get("redistribution", "none") != "none":
        assert entry.distribution.endswith(default["redistribution"])
    assert (default.get("scope") == "global") == ("global" in entry.distribution)


@pytest.mark.parametrize("name", st.methods.names("in-loop"))
def test_the_table_s_start_is_the_method_s(name: str) -> None:
    entry = st.methods.get(name)
    method = st.methods.create(name, sparsity=0.9, total_steps=100)
    default = {option.name: option.default for option in entry.options}
    first = getattr(method, "first_sparsity", default.get("initial_sparsity", 0.9))
    if name == "dense" or "distribution" not in default or first == 0:
        assert entry.start == "dense"
        return
    words = default["start_mask"] + ("" if first == 0.9 else f", {100 * first:g} % zeros")
    assert entry.start == words
    assert entry.distribution.startswith(default["distribution"])


def test_the_table_s_share_of_a_round_is_imp_s() -> None:
    assert st.methods.get("imp").drop == f"magnitude, {100 * ImpOptions().fraction:g} % a round"
