"""What is cited: the method's own publication, and those of the parts in use."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

import sparsetrain as st
from sparsetrain import citations

ARXIV = {
    key: re.search(r"eprint\s*= \{([\d.]+)\}", entry)[1]  # type: ignore[index]
    for key, entry in citations.entries().items()
}


def arxiv(text: str) -> list[str]:
    return re.findall(r"eprint\s*= \{([\d.]+)\}", text)


@pytest.mark.parametrize("key", list(citations.entries()))
def test_every_entry_is_whole(key: str) -> None:
    entry = citations.entries()[key]
    fields = dict(re.findall(r"^  (\w+)\s*= \{(.*)\},?$", entry, flags=re.MULTILINE))
    assert {"title", "author", "year", "eprint", "archiveprefix"} <= set(fields)
    assert entry.count("{") == entry.count("}")
    surname, year = re.fullmatch(r"([a-z]+)(\d{4})[a-z]+", key).groups()  # type: ignore[union-attr]
    assert fields["author"].lower().startswith(surname) and fields["year"] == year
    assert all(", " in author for author in fields["author"].split(" and "))
    assert fields["archiveprefix"] == "arXiv"
    venue = {"article": "journal", "inproceedings": "booktitle", "misc": "eprint"}
    assert venue[entry[1 : entry.index("{")]] in fields
    # A preprint is never younger than what was printed, and at most three years older.
    assert 0 <= int(year) - (2000 + int(fields["eprint"][:2])) <= 3


def test_the_file_holds_what_is_cited_and_nothing_else() -> None:
    cited: set[str] = set()
    for sources in citations._METHODS.values():
        cited |= {key for key, _ in sources}
    for values in citations._PARTS.values():
        cited |= {key for key, _ in values.values()}
    assert cited == set(citations.entries())
    assert set(citations._METHODS) == set(st.methods.names())
    assert len(set(ARXIV.values())) == len(ARXIV)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("granet", {}, ["2106.10404", "1710.01878", "1911.11134"]),
        ("granet", {"initial_sparsity": 0.0}, ["2106.10404", "1710.01878", "1911.11134"]),
        ("itop", {}, ["2102.02887", "1911.11134"]),
        (
            "itop",
            {"growth": "random", "distribution": "er"},
            ["2102.02887", "1911.11134", "1707.04780"],
        ),
        ("rigl", {}, ["1911.11134"]),
        ("rigl", {"drop": "taylor"}, ["1911.11134", "1906.10771"]),
        ("rigl", {"distribution": "smart_ratio"}, ["1911.11134", "2009.11094"]),
        ("set", {}, ["1707.04780"]),
        ("set", {"distribution": "erk"}, ["1707.04780", "1911.11134"]),
        ("snfs", {}, ["1907.04840"]),
        ("static", {}, ["2202.02643", "1911.11134"]),
        ("static", {"distribution": "uniform"}, ["2202.02643"]),
        ("magnitude", {}, ["1506.02626"]),
        ("magnitude", {"pattern": "channel"}, ["1506.02626", "1608.08710"]),
        ("gmp", {}, ["1710.01878"]),
        ("gmp", {"initial_sparsity": 0.5}, ["1710.01878", "1911.11134"]),
        ("gmp", {"classifier_sparsity": 0.8}, ["1710.01878", "1902.09574"]),
        ("imp", {}, ["1803.03635"]),
        ("imp", {"rewind": "epoch"}, ["1803.03635", "1912.05671"]),
        ("imp", {"rewind": 500}, ["1803.03635", "1912.05671"]),
        ("imp", {"rewind": "learning-rate"}, ["1803.03635", "2003.02389"]),
        ("art", {}, ["2308.07163"]),
        ("snip", {}, ["1810.02340"]),
        ("grasp", {}, ["2002.07376"]),
        ("synflow", {}, ["2006.05467"]),
        ("smart_ratio", {}, ["2009.11094"]),
        ("dense", {}, []),
    ],
)
def test_what_is_cited(name: str, options: dict[str, Any], expected: list[str]) -> None:
    assert arxiv(st.cite(name, **options)) == expected


def test_a_dense_start_does_not_cite_the_counts_of_a_sparse_one() -> None:
    assert "Erdos-Renyi-kernel counts" in st.cite("granet")
    assert "Erdos-Renyi-kernel counts" not in st.cite("granet", initial_sparsity=0.0)


def test_one_ranking_of_all_layers_does_not_cite_layer_wise_counts() -> None:
    assert "counts" not in st.cite("itop", start_mask="pruned-global")


def test_a_comment_says_what_each_entry_stands_for() -> None:
    lines = st.cite("itop", growth="random").splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith("@")]
    assert [lines[i - 1] for i in heads] == [
        "% ITOP",
        "% cosine decay of moved weights, Erdos-Renyi-kernel counts",
        "% random growth",
    ]


def test_a_method_in_use_cites_its_own_parts() -> None:
    method = st.methods.rigl(sparsity=0.9, total_steps=10, growth="random", distribution="uniform")
    assert arxiv(st.cite(method)) == ["1911.11134", "1707.04780"]
    masks = {"weight": torch.ones(2, 2, dtype=torch.bool)}
    assert arxiv(st.cite(st.methods.static(masks=masks))) == ["2202.02643"]


def test_the_phase_machines_cite_themselves() -> None:
    net = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    imp = st.IMP(net, optimizer, sparsity=0.5, epochs_per_round=1, rewind=3)
    assert arxiv(st.cite(imp)) == ["1803.03635", "1912.05671"]
    imp.finalize()
    art = st.ART(
        net, optimizer, sparsity=0.5, dense_epochs=1, finetune_epochs=1, max_regularize_epochs=1
    )
    assert arxiv(st.cite(art)) == ["2308.07163"]


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("itopp", {}, "did you mean 'itop'"),
        ("itop", {"growth": "randm"}, "growth must be one of gradient, random"),
        ("itop", {"update_every": 5}, "'update_every' changes nothing in what 'itop' cites"),
        ("snip", {"mode": "eval"}, "it has none that does"),
        ("imp", {"rewind": "begin"}, "rewind must be one of start, epoch, learning-rate"),
    ],
)
def test_a_mistake_is_one_sentence(name: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        st.cite(name, **options)


def test_options_beside_a_method_in_use_and_strange_methods_are_refused() -> None:
    with pytest.raises(ValueError, match="options go with a name"):
        st.cite(st.methods.set(sparsity=0.5, total_steps=10), growth="gradient")
    with pytest.raises(ValueError, match="none of this library's methods"):
        st.cite(3)  # type: ignore[arg-type]
