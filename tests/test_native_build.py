"""The C++ kernels are optional: built with a compiler, done without; and they are clean."""

import logging
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from sparsetrain.kernels import native

ROOT = Path(__file__).parent.parent
CSRC = ROOT / "csrc"
COMPILER = shutil.which("g++") or shutil.which("clang++")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")


def run(*command: str, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def library(caplog):
    """The loader without its memory, and what it says."""
    caplog.set_level(logging.INFO, logger="sparsetrain")
    return native.library.__wrapped__


def test_a_missing_library_is_said_in_one_message(library, monkeypatch, caplog, tmp_path):
    monkeypatch.delenv("SPARSETRAIN_NATIVE", raising=False)
    monkeypatch.setattr(native, "PATH", tmp_path / "_native.so")
    assert library() is None
    (record,) = caplog.records
    assert "Install a C++17 compiler" in record.getMessage()


def test_a_library_that_does_not_load_is_left_alone(library, monkeypatch, caplog, tmp_path):
    monkeypatch.delenv("SPARSETRAIN_NATIVE", raising=False)
    monkeypatch.setattr(native, "PATH", tmp_path / "_native.so")
    native.PATH.write_bytes(b"not a library")
    assert library() is None
    (record,) = caplog.records
    assert "do not load" in record.getMessage()


@pytest.mark.skipif(not native.PATH.exists(), reason="the C++ kernels are not built")
def test_a_library_of_another_version_is_left_alone(library, monkeypatch, caplog):
    monkeypatch.delenv("SPARSETRAIN_NATIVE", raising=False)
    monkeypatch.setattr(native, "ABI", native.ABI + 1)
    assert library() is None
    (record,) = caplog.records
    assert "another version" in record.getMessage()


def test_the_environment_can_leave_all_work_to_the_twins(library, monkeypatch, caplog):
    monkeypatch.setenv("SPARSETRAIN_NATIVE", "0")
    assert library() is None
    assert not caplog.records


def test_the_interface_has_one_version_in_both_languages():
    assert f"constexpr int kAbi = {native.ABI};" in (CSRC / "api.h").read_text()


@pytest.mark.slow
@pytest.mark.skipif(not native.PATH.exists(), reason="the C++ kernels are not built")
def test_the_regularisers_pass_their_tests_on_the_twins():
    tests = sorted(str(path) for path in (ROOT / "tests").glob("test_regularizers*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    run(*command, SPARSETRAIN_NATIVE="0")


@pytest.fixture
def source(tmp_path):
    """A copy of what a build reads, without anything built."""
    ignore = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__")
    for name in ("src", "csrc"):
        shutil.copytree(ROOT / name, tmp_path / "copy" / name, ignore=ignore)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "copy")
    return tmp_path / "copy"


def wheel_contents(source: Path, **environment: str) -> list[str]:
    out = source / "wheels"
    build = ("wheel", "--no-build-isolation", "--no-deps", "-q", "-w", str(out), ".")
    run(sys.executable, "-m", "pip", *build, cwd=source, **environment)
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


@pytest.mark.slow
@needs_compiler
def test_a_wheel_built_with_a_compiler_holds_the_kernels(source):
    assert "sparsetrain/kernels/_native.so" in wheel_contents(source)


@pytest.mark.slow
def test_a_wheel_builds_without_a_compiler(source):
    names = wheel_contents(source, CC="/bin/false", CXX="/bin/false")
    assert "sparsetrain/kernels/native.py" in names
    assert not [name for name in names if name.endswith(".so")]


@pytest.mark.slow
@pytest.mark.timeout(900)  # dozens of files, twice
@needs_compiler
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_the_kernels_are_clean_under_sanitizers_and_warnings(sanitizer, tmp_path):
    compiler = COMPILER
    assert compiler is not None
    flags = ["-std=c++17", "-O1", "-g", "-pthread", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
    flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    x86 = os.uname().machine == "x86_64"
    levels = {"v3": ["-march=x86-64-v3"], "v4": ["-march=x86-64-v4"]} if x86 else {}
    have = [f"-DST_HAVE_{level}" for level in levels]
    jobs: dict[str, list[str]] = {}
    for level, march in {"generic": [], **levels}.items():
        for path in sorted((CSRC / "levels").glob("*.cpp")):
            made = str(tmp_path / f"{path.stem}_{level}.o")
            jobs[made] = [*march, f"-DST_LEVEL={level}", str(path)]
    for path in (*CSRC.glob("*.cpp"), CSRC / "tests" / "check.cpp"):
        jobs[str(tmp_path / f"{path.stem}.o")] = [*have, str(path)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda job: run(compiler, *flags, *job[1], "-c", "-o", job[0]), jobs.items()))
    program = str(tmp_path / "check")
    run(compiler, *flags, *jobs, "-o", program)
    assert run(program) == "all right\n"


@pytest.mark.slow
def test_a_wheel_for_any_platform_is_made_on_request(source):
    names = wheel_contents(source, SPARSETRAIN_PURE="1")
    assert not [name for name in names if name.endswith(".so")]
    assert [path.name.endswith("-py3-none-any.whl") for path in (source / "wheels").iterdir()] == [
        True
    ]


WITHOUT = """
import sys
import torch
import sparsetrain as st
from sparsetrain.kernels import native

run = sys.argv[1]
model = st.models.create("resnet8", num_classes=10, in_channels=1, image_size=8).eval()
masks = st.compress.load(f"{run}/model.compressed.safetensors", model)
images = torch.randn(8, 1, 8, 8)
with torch.no_grad():
    torch.testing.assert_close(
        st.compile_sparse(model, images)(images), model(images), rtol=1e-4, atol=1e-4
    )
print(st.__file__, native.library(), st.methods.names())
"""


@pytest.mark.slow
def test_the_source_archive_holds_all_kernels_and_trains_without_a_compiler(source, tmp_path):
    shutil.copy(ROOT / "MANIFEST.in", source)
    run(sys.executable, "setup.py", "-q", "sdist", cwd=source)
    (archive,) = (source / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as file:
        held = {Path(name).name for name in file.getnames()}
    assert {path.name for path in CSRC.rglob("*.[ch]*")} <= held
    place, out = str(tmp_path / "installed"), str(tmp_path / "run")
    install = ("install", "--no-build-isolation", "--no-deps", "-q", "--target", place)
    nothing = {"CC": "/bin/false", "CXX": "/bin/false", "PYTHONPATH": place}
    run(sys.executable, "-m", "pip", *install, str(archive), cwd=tmp_path, **nothing)
    trainer = (sys.executable, "-m", "sparsetrain")
    run(*trainer, "train", "--epochs", "3", "--out", out, cwd=tmp_path, **nothing)
    run(*trainer, "export", out, cwd=tmp_path, **nothing)
    said = run(sys.executable, "-c", WITHOUT, out, cwd=tmp_path, **nothing)
    assert said.startswith(f"{place}/") and " None " in said and "granet" in said
