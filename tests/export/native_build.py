"""The operator library, built from its sources for tests: once for all of them, or with settings of a test's own."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest

from edgetk.export import operators

#: instruction sets that kernels are written for on this kind of machine
ISAS = (*(("neon",) if platform.machine() == "aarch64" else ("avx512", "avx2")), "portable")


def make(folder: Path, *settings: str) -> Path:
    """The library, built by its own Makefile."""
    for tool in ("make", "cc"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} to build the operator library")
    subprocess.run(["make", "-s", "-C", operators.SOURCES, f"OUT={folder}", *settings], check=True)
    return folder / operators.FILE


@cache
def built() -> Path:
    """The library as users build it, for this process."""
    return make(Path(mkdtemp(prefix="edgetk-native-")))


def require(isa: str) -> str:
    """`isa`, or a skipped test where this processor lacks it."""
    if isa not in operators.isas(built()):
        pytest.skip(f"this processor has no {isa}")
    return isa
