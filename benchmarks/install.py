"""What an installation of sparsetrain weighs and what its import costs beside torch's.

    python benchmarks/install.py [--smoke]

Both wheels, with the C++ kernels and without, are built in a copy of the source; then the sizes of
what each installs, and of the packages that come along besides torch and its own. Import times are
processor seconds of new processes, in pairs with torch alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from common import machine, spread

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).parent / "records" / "install.json"
LEFT_OUT = (".*", "build", "site", "runs", "*.so", "*.egg-info", "__pycache__", "shared")


def wheel(folder: Path, *, pure: bool) -> dict[str, int]:
    """Bytes of a wheel built from a copy of the source, and of the files in it."""
    source, out = folder / "source", folder / "wheel"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(source)]
    subprocess.run(command, check=True, env={**os.environ, "SPARSETRAIN_PURE": str(int(pure))})
    (made,) = out.glob("*.whl")
    with zipfile.ZipFile(made) as archive:
        files = archive.infolist()
    kernels = sum(file.file_size for file in files if file.filename.endswith(".so"))
    unpacked = sum(file.file_size for file in files)
    return {"wheel_bytes": made.stat().st_size, "installed_bytes": unpacked, "of_kernels": kernels}


def required(name: str) -> Iterator[str]:
    """The packages that an installed one needs without extras, and what those need."""
    todo, seen = [name], set[str]()
    while todo:
        one = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if one in seen:
            continue
        seen.add(one)
        try:
            needs = distribution(one).requires or []
        except PackageNotFoundError:  # for another platform or Python
            continue
        yield one
        todo += [re.split(r"[^\w.-]", need)[0] for need in needs if "extra ==" not in need]


def brought_along() -> dict[str, int]:
    """Name -> bytes of what comes with sparsetrain besides torch and its own."""
    names = {*required("sparsetrain")} - {*required("torch")} - {"sparsetrain"}
    sizes = {}
    for name in sorted(names):
        files = [Path(str(f.locate())) for f in distribution(name).files or []]
        sizes[name] = sum(path.stat().st_size for path in files if path.is_file())
    return sizes


def processor_seconds(module: str) -> float:
    """Of the import alone, in a new process."""
    code = f"import time; s = time.process_time(); import {module}; print(time.process_time() - s)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def imports(pairs: int) -> dict[str, dict[str, float]]:
    """Processor seconds of both imports and their ratio, after a pair that fills the page cache."""
    names = ("torch", "sparsetrain")
    times = [[processor_seconds(name) for name in names] for _ in range(pairs + 1)][1:]
    found = {name: spread([pair[i] for pair in times]) for i, name in enumerate(names)}
    return found | {"ratio": {"median": statistics.median(b / a for a, b in times)}}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument("--out", type=Path, default=None, help="where the record goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wheels = {}
    for kind in ("pure",) if options.smoke else ("pure", "native"):
        with tempfile.TemporaryDirectory() as folder:
            wheels[kind] = wheel(Path(folder), pure=kind == "pure")
    results = {
        "wheels": wheels,
        "brought_along_bytes": brought_along(),
        "import_seconds": imports(1 if options.smoke else 9),
    }
    record = {"benchmark": "install size and import time", **machine(), "results": results}
    for kind, sizes in wheels.items():
        print(f"{kind}: " + ", ".join(f"{k} {v / 1e6:.2f} MB" for k, v in sizes.items()))
    along = results["brought_along_bytes"]
    print(
        f"along come {len(along)} packages, {sum(along.values()) / 1e6:.0f} MB: {', '.join(along)}"
    )
    ratio = results["import_seconds"]["ratio"]["median"]
    print(f"import sparsetrain / import torch: {ratio:.2f}")
    out = options.out or (None if options.smoke else RECORD)
    if out is not None:
        out.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if ratio <= 1.3 else 1


if __name__ == "__main__":
    raise SystemExit(main())
