"""The optional C++ kernels: built where there is a compiler, left out where there is none.

With SPARSETRAIN_PURE=1 they are left out, and the wheel is for any platform (py3-none-any).
Everything else about the package stands in pyproject.toml. The library is no Python module: it has
a plain C interface that `sparsetrain.kernels.native` calls through ctypes, so one build serves
every Python version.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

SOURCES = sorted(str(path) for path in Path("csrc").glob("*.cpp"))
LEVEL_SOURCES = sorted(str(path) for path in Path("csrc/levels").glob("*.cpp"))
HEADERS = sorted(str(path) for path in Path("csrc").rglob("*.h"))
FLAGS = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-pthread"]
PURE = os.environ.get("SPARSETRAIN_PURE") == "1"
X86 = platform.machine().lower() in ("x86_64", "amd64")
# Kernels compiled once more for each, chosen when the library is loaded (csrc/dispatch.cpp).
LEVELS = {"v3": "-march=x86-64-v3", "v4": "-march=x86-64-v4"} if X86 else {}
# The compiler's own runtime inside: an environment may bring an older one than the compiler's.
STATIC = ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"]


class BuildNative(build_ext):
    """Compile some sources once, the block kernels once for each processor level."""

    def get_ext_filename(self, fullname: str) -> str:
        """The same name for every Python: nothing of Python is linked."""
        return str(Path(*fullname.split(".")).with_suffix(".so"))

    def build_extension(self, ext: Extension) -> None:
        """Compile and link; setuptools turns a failure into a warning, as `optional` asks."""
        if sys.platform == "win32":
            raise CompileError("the C++ kernels need a GCC or Clang and POSIX threads")
        levels = self._compile("generic", LEVEL_SOURCES, ["-DST_LEVEL=generic"])
        have = []
        for level, flag in LEVELS.items():
            try:
                levels += self._compile(level, LEVEL_SOURCES, [flag, f"-DST_LEVEL={level}"])
            except CompileError:
                self.warn(f"this compiler does not know {flag}; the kernels are built without it")
            else:
                have.append(f"-DST_HAVE_{level}")
        # The general code first: of an inline function that several have, linkers keep the first.
        self._link(ext, self._compile("all", SOURCES, have) + levels)

    def _compile(self, name: str, sources: list[str], flags: list[str]) -> list[str]:
        return self.compiler.compile(
            sources,
            output_dir=str(Path(self.build_temp) / name),
            extra_postargs=[*FLAGS, *flags],
            depends=HEADERS,
        )

    def _link(self, ext: Extension, objects: list[str]) -> None:
        path = self.get_ext_fullpath(ext.name)
        for static in ([STATIC] if sys.platform == "linux" else []) + [[]]:
            try:
                self.compiler.link_shared_object(
                    objects, path, extra_postargs=["-pthread", *static], target_lang="c++"
                )
            except LinkError:
                if not static:
                    raise
            else:
                return


class PlatformWheel(bdist_wheel):
    """A wheel for this platform and any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """As the base class says, without the Python version's interface."""
        return "py3", "none", super().get_tag()[2]


setup(
    ext_modules=[]
    if PURE
    else [
        Extension(
            "sparsetrain.kernels._native",
            sources=SOURCES + LEVEL_SOURCES,
            depends=HEADERS,
            language="c++",
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildNative} | ({} if PURE else {"bdist_wheel": PlatformWheel}),
)
