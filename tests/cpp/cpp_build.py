"""Building and running the C++ project: once for all tests, also where several test workers share the work."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import onnxruntime
import pytest

from edgetk.export.cpp_project import SOURCES

TESTS = Path(__file__).resolve().parent

Done = subprocess.CompletedProcess[str]


def library() -> Path:
    """The library inside Python's own package onnxruntime."""
    return next(Path(onnxruntime.__file__).parent.glob("capi/libonnxruntime.so.*"))


def require(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} to build the C++ project")


def run(*command: object, env: Mapping[str, str] | None = None, ok: bool = True, stdin: bytes | None = None) -> Done:
    """A program of ours; where `ok`, it must succeed."""
    given = {k: v for k, v in os.environ.items() if k not in ("EDGETK_ORT_LIBRARY", "ONNXRUNTIME_ROOT", "EDGETK_OPS")}
    raw = subprocess.run([str(c) for c in command], capture_output=True, input=stdin, env=given | dict(env or {}), timeout=240)
    done = Done(raw.args, raw.returncode, raw.stdout.decode(), raw.stderr.decode())
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def configure(project: Path, build: Path, *options: str, env: Mapping[str, str] | None = None, ok: bool = True) -> Done:
    """CMake's first half, quick to compile what follows; its Python is the one that runs the tests."""
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    python = f"-DPython3_EXECUTABLE={sys.executable}"
    return run("cmake", "-S", project, "-B", build, *generator, "-DCMAKE_BUILD_TYPE=Debug", python, *options, env=env, ok=ok)


def once(base: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, filled by `make` in the first worker that asks."""
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    folder = shared / name
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".done").exists():
            make(folder)
            (folder / ".done").touch()
    return folder


def compile_driver(program: Path, compiler: str = "c++", *options: str) -> None:
    """tests/cpp/driver.cpp, without its own replacement of new and delete being called a mismatch."""
    include = ("-I", SOURCES / "include", "-I", SOURCES)
    flags = ("-std=c++17", "-O0", "-Wall", "-Wextra", "-Wno-mismatched-new-delete", *options)
    run(compiler, *flags, *include, TESTS / "driver.cpp", "-o", program, "-ldl")
