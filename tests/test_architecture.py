"""The arrows of docs/architecture.md: who may import whom; and every public name is documented."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "sparsetrain"
FILES = sorted(SOURCE.rglob("*.py"))

# Each layer may import those before it; files that share a line are one layer.
LAYERS = (
    ("types", "kernels", "sharded", "atomic"),
    ("packing",),
    ("masks", "selection", "weight_norm", "schedules"),
    ("inference",),
    (
        "patterns",
        "distributions",
        "criteria",
        "regularizers",
        "batchnorm",
        "optimizers",
        "snapshot",
    ),
    ("emptiness", "table"),
    ("attachment", "hooks", "finite", "rollback", "agreement", "prune", "saliency"),
    ("kept_steps",),
    ("masking",),
    ("sparsifier", "methods"),
    ("phases", "art_rule", "art_strengths", "art", "imp_rule", "imp", "citations"),
    ("analysis",),
    ("compute",),
)
LIBRARY = {name for layer in LAYERS for name in layer}
EDGE = {"models", "data", "compress", "training", "experiments", "report", "bench"}
EDGE |= {"integrations", "verbs", "cli", "__main__"}


def unit(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Units of the package and top-level packages from outside that a file imports anywhere."""
    found: set[str] = set()
    package = path.relative_to(SOURCE).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {"ext:" + alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add("ext:" + (node.module or "").split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1]
            inside = (*base, *(node.module or "").split(".")) if node.module else base
            names = [inside[0]] if inside else [alias.name for alias in node.names]
            found |= set(names)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    name = unit(path)
    if name == "__init__":
        return
    assert name in LIBRARY | EDGE, f"put {name} into a layer of this test and of the document"
    inner = {i for i in imports(path) if not i.startswith("ext:") and i != name}
    if name in LIBRARY:
        level = next(i for i, layer in enumerate(LAYERS) if name in layer)
        allowed = {unit for layer in LAYERS[: level + 1] for unit in layer}
        assert inner <= allowed
        outside = {i[4:] for i in imports(path) if i.startswith("ext:")}
        # sympy: torch needs it, and writes the conditions of a trace in it.
        allowed_outside = {"torch", "numpy", "sympy", "__future__"}
        assert outside <= allowed_outside | set(sys.stdlib_module_names)
    elif name in ("models", "data", "compress", "integrations"):
        assert inner <= LIBRARY
    elif name == "training":
        assert inner <= LIBRARY | {"models", "data", "compress", "__init__", "__version__"}
    elif name == "bench":
        assert inner <= LIBRARY | {"models", "compress", "training"}
    elif name == "experiments":
        assert inner <= LIBRARY | {"models", "data", "compress", "training"}
    elif name == "report":
        assert inner <= LIBRARY | {"training", "experiments"}


def test_importing_the_library_brings_no_edge_dependency() -> None:
    heavy = ["sklearn", "matplotlib", "rich", "tyro", "yaml", "cattrs", "PIL", "torch._dynamo"]
    heavy += ["transformers", "lightning", "accelerate"]
    edge = [f"sparsetrain.{name}" for name in sorted(EDGE)]
    code = (
        f"import sys, sparsetrain; sys.exit([m for m in {heavy + edge} if m in sys.modules] or 0)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


Documented: TypeAlias = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def public_nodes(path: Path) -> list[tuple[str, Documented]]:
    """The module, its public classes and functions, and what is public in public classes."""
    module = ast.parse(path.read_text())
    return [("module", module), *inner_nodes(module.body, "")]


def inner_nodes(body: list[ast.stmt], outer: str) -> list[tuple[str, Documented]]:
    found: list[tuple[str, Documented]] = []
    for node in body:
        if isinstance(node, ast.If | ast.Try):
            found += inner_nodes(node.body + node.orelse, outer)
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        overload = any("overload" in ast.unparse(mark) for mark in node.decorator_list)
        if node.name.startswith("_") or overload:
            continue
        found.append((outer + node.name, node))
        if isinstance(node, ast.ClassDef):
            found += inner_nodes(node.body, f"{outer}{node.name}.")
    return found


def raised(node: ast.AST) -> bool:
    """Whether a function itself, not one inside it, makes an error of its own."""
    return any(
        (isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call))
        or (not isinstance(child, (*FUNCTIONS, ast.ClassDef, ast.Lambda)) and raised(child))
        for child in ast.iter_child_nodes(node)
    )


def undocumented(path: Path) -> list[str]:
    """Public names without a docstring, and functions whose docstring hides their errors."""
    nodes = public_nodes(path)
    missing = [name for name, node in nodes if not ast.get_docstring(node)]
    return missing + [
        f"{name} does not say what it raises"
        for name, node in nodes
        if isinstance(node, FUNCTIONS)
        and raised(node)
        and "Raise" not in (ast.get_docstring(node) or "")
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_public_name_has_a_docstring_that_names_its_errors(path: Path) -> None:
    assert not undocumented(path)


def test_a_public_name_without_a_docstring_is_found(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '''"""A module."""
class Open:
    """A class."""
    def known(self):
        """A method."""
        raise NotImplementedError
    def method(self): ...
    @overload
    def several(self): ...
    class Inner: ...
    def _private(self): ...
class _Closed:
    def method(self): ...
if True:
    async def function(): ...
def quiet(x):
    """Twice x."""
    if x < 0:
        raise ValueError("x")
    def inside():
        """Of its own."""
def passing(x):
    """Twice x."""
    def inside():
        raise ValueError("x")
def loud(x):
    """Twice x.

    Raises:
        ValueError: x < 0.
    """
    raise ValueError("x")
'''
    )
    assert undocumented(path) == [
        "Open.method",
        "Open.Inner",
        "function",
        "quiet does not say what it raises",
    ]


def test_the_document_names_every_unit() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    assert not [name for name in LIBRARY | EDGE - {"__main__"} if name not in text]
