"""Write the generated blocks of README, pages and cards and the results' pictures, or check them.

python scripts/readme.py            # write
python scripts/readme.py --check    # exit 1 if a block is stale
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cards
import record_tables
import sweep_tables

import sparsetrain as st

ROOT = Path(__file__).resolve().parent.parent
RECORDS = ROOT / "benchmarks" / "records"


def fashion_mnist() -> str:
    """The table of the three Fashion-MNIST runs."""
    rows = [
        "| method | zeros | weights left | test accuracy | against dense | epochs | time |",
        "|---|---|---|---|---|---|---|",
    ]
    names = ("dense", "art-0.9", "art-0.98")
    records = [json.loads((RECORDS / f"fashion-mnist-{name}.json").read_text()) for name in names]
    dense = records[0]["test_accuracy"]
    for record in records:
        target = record["sparsity"]["target"]
        zeros = 0.0 if record["method"] == "dense" else target
        against = "" if zeros == 0 else f"{100 * (record['test_accuracy'] - dense):+.2f}"
        name = "dense control" if zeros == 0 else "ART + HyperSparse"
        rows.append(
            f"| {name} | {100 * zeros:.0f} % | {record['kept_weights']:,} of "
            f"{record['prunable_weights']:,} | {100 * record['test_accuracy']:.2f} % | {against} | "
            f"{record['epochs']} | {record['seconds']['total'] / 60:.0f} min |"
        )
    device = records[0]["device"].removeprefix("cpu: ")
    torch_version = records[0]["versions"]["torch"]
    rows.append(
        f"\n{records[0]['threads']} threads, {device}, {records[0]['precision']}, torch "
        f"{torch_version}, seed {records[0]['seed']}."
    )
    return "\n".join(rows)


def regularizer() -> str:
    """The table of benchmarks/regularizer.py."""
    record = json.loads((RECORDS / "regularizer.json").read_text())
    rows = [
        "| HyperSparse gradient | by sorting | ours | ratio | deviation / largest gradient |",
        "|---|---|---|---|---|",
    ]
    for row in record["results"]:
        ms = row["milliseconds"]
        rows.append(
            f"| {row['weights'] / 1e6:.2f} M weights ({row['name']}) | "
            f"{ms['sort']['median']:.0f} ms | {ms['add_grad_']['median']:.1f} ms | "
            f"{row['ratio']['add_grad_']:.0f}x | {row['deviation']['grad']:.0e} |"
        )
    torch_version = record["versions"]["torch"]
    rows.append(f"\n{record['device']}, {record['threads']} thread, torch {torch_version}.")
    return "\n".join(rows)


def runtime() -> str:
    """The table of benchmarks/runtime.py: a row for each network and batch on one thread."""
    record = json.loads((RECORDS / "runtime.json").read_text())
    results = [row for row in record["results"] if row["threads"] == 1]
    sparsities = sorted({row["sparsity"] for row in results})
    rows = [
        "| network | " + " | ".join(f"{100 * s:g} %" for s in sparsities) + " | fastest dense |",
        "|---" * (len(sparsities) + 2) + "|",
    ]
    for kind in sorted({(row["network"], row["batch"]) for row in results}):
        cells = {r["sparsity"]: r for r in results if (r["network"], r["batch"]) == kind}
        shown = [f"{cells[s]['speedup']:.1f}x" if s in cells else "–" for s in sparsities]
        best = min(
            (row["dense_milliseconds"][row["best dense"]]["median"], row["best dense"])
            for row in cells.values()
        )
        name = f"{kind[0]}, batch {kind[1]}"
        rows.append(f"| {name} | {' | '.join(shown)} | {best[1]}, {best[0]:.3g} ms |")
    rows.append(f"\n{record['device']}, one thread, float32.")
    return "\n".join(rows)


def linear() -> str:
    """The table of benchmarks/linear.py: ratios to torch's dense and CSR layers."""
    record = json.loads((RECORDS / "linear.json").read_text())
    results = [row for row in record["results"] if row["threads"] == 1]
    sparsities = sorted({row["sparsity"] for row in results})
    rows = [
        "| layer | against | " + " | ".join(f"{100 * s:g} %" for s in sparsities) + " |",
        "|---" * (len(sparsities) + 2) + "|",
    ]
    for kind in sorted({(row["size"], row["batch"]) for row in results}):
        cells = {r["sparsity"]: r for r in results if (r["size"], r["batch"]) == kind}
        for base in ("dense", "csr"):
            shown = [f"{cells[s]['speedup'][base]:.2g}x" if s in cells else "–" for s in sparsities]
            name = f"{kind[0]} to {kind[0]}, batch {kind[1]}"
            rows.append(f"| {name} | {base} | {' | '.join(shown)} |")
    rows.append(
        f"\n{record['device']}, one thread, float32, random masks, torch "
        f"{record['versions']['torch']}."
    )
    return "\n".join(rows)


def demo() -> str:
    """The demo's own output, from docs/demo.txt, with the middle epochs left out."""
    lines = (ROOT / "docs" / "demo.txt").read_text().rstrip().splitlines()
    epochs = [i for i, line in enumerate(lines) if line.startswith("epoch")]
    shown = set(range(len(lines))) - set(epochs)
    shown |= set(epochs[:2] + epochs[-1:])
    kinds = [lines[i].split()[2] for i in epochs]
    for before, after, i, j in zip(kinds, kinds[1:], epochs, epochs[1:], strict=False):
        if before != after:
            shown |= {i, j}
    out, gap = [], False
    for i, line in enumerate(lines):
        if i in shown:
            out += ["…"] if gap else []
            out.append(line)
        gap = i not in shown
    return "```\n" + "\n".join(out) + "\n```"


def blocks_of_pages() -> dict[Path, dict[str, Callable[[], str]]]:
    """Page -> name of a block in it -> what writes that block."""
    package = ROOT / "src" / "sparsetrain"
    return {
        ROOT / "README.md": {
            "demo": demo,
            "table:fashion-mnist": fashion_mnist,
            "table:regularizer": regularizer,
            "table:runtime": runtime,
        },
        ROOT / "docs" / "index.md": {"table:install": record_tables.install},
        ROOT / "docs" / "inference.md": {
            "table:linear": linear,
            "table:own-choices": record_tables.own_choices,
        },
        ROOT / "docs" / "methods.md": {"table:methods": cards.methods_table},
        ROOT / "docs" / "sparse-training.md": {
            "table:sparse-training": record_tables.sparse_training
        },
        ROOT / "docs" / "imagenet.md": {
            "table:imagenet-loader": record_tables.imagenet_loader,
        },
        ROOT / "docs" / "scale.md": {"table:scale": record_tables.scale},
        ROOT / "docs" / "results.md": {
            "sweep:equal-budget-a": partial(sweep_tables.block, RECORDS / "equal-budget-a.json"),
            "sweep:equal-budget-b": partial(sweep_tables.block, RECORDS / "equal-budget-b.json"),
            "sweep:equal-budget-c": partial(sweep_tables.block, RECORDS / "equal-budget-c.json"),
            "sweep:methods-digits": partial(sweep_tables.block, RECORDS / "methods-digits.json"),
            "sweep:revival-digits": partial(sweep_tables.block, RECORDS / "revival-digits.json"),
            "sweep:equal-budget-revival": partial(
                sweep_tables.block, RECORDS / "equal-budget-revival.json"
            ),
            "table:vision-transformer": record_tables.vision_transformer,
        },
    } | {
        package / st.methods.get(name).card: {"options": partial(cards.options_tables, name)}
        for name in st.methods.names()
    }


def filled(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """The page with every generated block written anew.

    Raises:
        ValueError: a block's marker is missing.
    """
    for name, make in blocks.items():
        start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
        before, found, rest = text.partition(start)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"{start} and {end} must be in the page that begins {text[:40]!r}")
        text = f"{before}{start}\n{make()}\n{end}{after}"
    return text


def pictures() -> dict[Path, str]:
    """File -> what is in it, of every picture that is drawn from records."""
    sweeps = ("methods-digits", "equal-budget-a", "equal-budget-b", "equal-budget-c")
    drawn = {name: sweep_tables.picture(RECORDS / f"{name}.json") for name in sweeps}
    return {ROOT / "docs" / "images" / f"{n}.svg": text for n, text in drawn.items() if text}


def main() -> int:
    """Write or check; see the module's docstring."""
    stale = False
    pages = {page: filled(page.read_text(), b) for page, b in blocks_of_pages().items()}
    for page, new in (pages | pictures()).items():
        old = page.read_text() if page.exists() else ""
        if "--check" not in sys.argv[1:]:
            page.write_text(new)
        elif new != old:
            print(f"{page.relative_to(ROOT)} is stale: run python scripts/readme.py")
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
