"""The C++ project on aarch64: cross-compiled, run under user-mode emulation, with the scores of x86-64's Python.

`make test-aarch64` fetches ONNX Runtime for aarch64 and runs these tests; without it they are skipped.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cpp_build import Done, configure, once, require, run
from test_runner import made, model, quantized_tiny, replays, spoken, write_wav

from edgetk.core.bundle import Bundle

#: names the aarch64 library of ONNX Runtime
ENVIRONMENT = "EDGETK_AARCH64_ORT"

#: of a Cortex-A72: old emulators hand the host's own files on, which the library cannot read
CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


def arm_library() -> Path:
    named = os.environ.get(ENVIRONMENT, "")
    if not named:
        pytest.skip(f"needs {ENVIRONMENT}, ONNX Runtime's library for aarch64; run: make test-aarch64")
    assert Path(named).is_file(), f"{ENVIRONMENT} must name a file, got {named!r}"
    return Path(named).resolve()


def emulator(folder: Path) -> list[str]:
    """The command in front of an aarch64 program; `folder` becomes the system that it sees."""
    program = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if program is None:
        pytest.skip("needs qemu-aarch64-static (package qemu-user-static) to run aarch64 programs")
    libraries = Path("/usr/aarch64-linux-gnu/lib")
    if not libraries.is_dir():
        pytest.skip("needs /usr/aarch64-linux-gnu/lib (package libstdc++6-arm64-cross) to run aarch64 programs")
    cpus = folder / "sys" / "devices" / "system" / "cpu"
    for place in (folder / "proc", cpus):
        place.mkdir(parents=True, exist_ok=True)
    if not (folder / "lib").exists():
        (folder / "lib").symlink_to(libraries)
    (folder / "proc" / "cpuinfo").write_text(CPUINFO)
    for name in ("possible", "present", "online"):
        (cpus / name).write_text("0\n")
    return [program, "-cpu", "cortex-a72", "-L", str(folder)]


@pytest.fixture(scope="module")
def arm(project: Path, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build folder, optimised as a user would build it."""
    library = arm_library()
    require("cmake", "aarch64-linux-gnu-g++")
    base = tmp_path_factory.getbasetemp()
    qemu = emulator(once(base, "system", lambda folder: folder.mkdir()))

    def make(folder: Path) -> None:
        toolchain = f"-DCMAKE_TOOLCHAIN_FILE={project}/cmake/aarch64-linux.cmake"
        options = (f"-DEDGETK_ORT_LIBRARY={library}", f"-DEDGETK_C={generated}", "-DCMAKE_BUILD_TYPE=Release")
        configure(project, folder, toolchain, f"-DCMAKE_CROSSCOMPILING_EMULATOR={';'.join(qemu)}", *options)
        run("cmake", "--build", folder)
        assert "aarch64" in run("file", folder / "edgetk_check").stdout if shutil.which("file") else True
        (folder / "emulator.json").write_text(json.dumps(qemu))

    return once(base, "arm", make)


@pytest.fixture
def check(arm: Path) -> Callable[..., Done]:
    qemu = json.loads((arm / "emulator.json").read_text())
    return lambda name, path, folder: run(*qemu, arm / "edgetk_check", name, path, folder)


def test_ctest_replays_the_test_data(arm: Path) -> None:
    assert "100% tests passed, 0 tests failed out of 8" in run("ctest", "--test-dir", arm).stdout


def test_scores_of_float_and_int8_are_those_of_python(project: Path, check: Callable[..., Done], tmp_path: Path) -> None:
    assert replays(check, model(project), exact=False)["frames.npy"] <= 1e-4
    assert set(replays(check, made(quantized_tiny(), tmp_path), exact=False)) == {"scores.npy"}


def test_spiking_scores_have_the_same_bits(spiking: Bundle, check: Callable[..., Done], tmp_path: Path) -> None:
    replays(check, made(replace(spiking, task=""), tmp_path))


def test_generated_c_has_the_bits_of_x86(project: Path, build: Path, engine: Path, arm: Path) -> None:
    """Portable C on a Cortex-A72, dot products on a Neoverse N1; neither needs ONNX Runtime to be there."""
    first, _, *rest = json.loads((arm / "emulator.json").read_text())
    differences = set()
    for check, library, *front in (
        (build / "edgetk_check", engine),
        (arm / "edgetk_check", arm / "c" / engine.name, first, "-cpu", *rest),
        (arm / "edgetk_check", arm / "c" / engine.name, first, "-cpu", "neoverse-n1", *rest[1:]),
    ):
        differences.add(run(*front, check, "steps", model(project), project / "testdata", library).stdout)
    assert len(differences) == 1, "the same difference from Python's ONNX Runtime to all digits"
    listen = (arm / "edgetk_listen", "--engine-library", arm / "c" / engine.name, project / "testdata" / "clip.wav")
    for cpu, isa in (("cortex-a72", "portable"), ("neoverse-n1", "neon")):
        assert json.loads(run(first, "-cpu", cpu, *rest[1:], *listen).stderr)["runtime"] == f"generated C, {isa}"


def test_listening_detects_what_x86_detects(project: Path, build: Path, arm: Path, tmp_path: Path) -> None:
    sound = write_wav(tmp_path / "speech.wav", spoken(2))
    qemu = json.loads((arm / "emulator.json").read_text())
    here, there = (run(*front, folder / "edgetk_listen", sound) for front, folder in (((), build), (qemu, arm)))
    found = [[(d["step"], d["label"]) for d in map(json.loads, done.stdout.splitlines())] for done in (here, there)]
    assert found[0] == found[1]
    assert found[0]
