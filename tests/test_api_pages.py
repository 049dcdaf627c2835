"""Every public name stands on a page of docs/api, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import sparsetrain as st

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "sparsetrain"
TEXT = "\n".join(path.read_text() for path in sorted((ROOT / "docs" / "api").glob("*.md")))

MODULES = {
    "": "__init__.py",
    "criteria.": "criteria.py",
    "distributions.": "distributions.py",
    "masks.": "masks.py",
    "schedules.": "schedules.py",
    "types.": "types.py",
    "methods.": "methods/__init__.py",
    "saliency.": "saliency/__init__.py",
    "analysis.": "analysis/__init__.py",
    "compress.": "compress/__init__.py",
    "data.": "data/__init__.py",
    "models.": "models/__init__.py",
    "inference.": "inference/__init__.py",
    "integrations.accelerate.": "integrations/accelerate.py",
    "integrations.lightning.": "integrations/lightning.py",
    "integrations.transformers.": "integrations/transformers.py",
}
"""What stands before a name -> the file that makes it public."""

ONCE = {
    "types.View": "View",
    "types.Method": "Method",
    "inference.compile_sparse": "compile_sparse",
}
"""Names that are also at the top, and documented there."""

LAZY = {"load_run", "training.finished.TrainedRun", "training.inputs.Inputs"}
"""What `st` imports when it is asked for, and what that gives."""


def public(path: Path) -> list[str]:
    """Functions, classes and constants of a module without an underscore; of a package, what it
    imports as itself."""
    names: list[str] = []
    package = path.name == "__init__.py"
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level and package:
            names += [a.name for a in node.names if a.asname == a.name]
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        elif isinstance(node, ast.AnnAssign):
            names += _names([node.target])
        elif isinstance(node, ast.Assign):
            names += _names(node.targets)
    return [name for name in names if not name.startswith("_")]


def _names(targets: list[ast.expr]) -> list[str]:
    flat = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple) else [t])]
    return [target.id for target in flat if isinstance(target, ast.Name)]


def every_name() -> set[str]:
    found = {p + name for p, file in MODULES.items() for name in public(SOURCE / file)}
    return (found - set(ONCE) | set(ONCE.values()) | LAZY) - {m.rstrip(".") for m in MODULES}


def documented() -> list[str]:
    return re.findall(r"^::: (?:st|sparsetrain)\.(\S+)$", TEXT, flags=re.MULTILINE)


def test_every_public_name_is_documented_once() -> None:
    assert sorted(documented()) == sorted(every_name())


def test_every_public_module_is_looked_at() -> None:
    imported = {
        name
        for name in (*public(SOURCE / "__init__.py"), *st._LAZY)
        if isinstance(getattr(st, name), type(ast))
    }
    assert imported <= {prefix.rstrip(".") for prefix in MODULES}


def test_a_name_that_is_missing_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(
        "a = 1\n_b = 2\nc: int = 3\ndef d(): ...\nclass E: ...\nfrom .f import f as f\n"
    )
    assert public(file) == ["a", "c", "d", "E"]
