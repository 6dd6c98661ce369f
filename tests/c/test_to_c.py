"""The exporter: proven sources, what it says without a compiler, what it refuses, and `edgetk export --c`."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from c_graphs import MODEL, build, needs_cc, program, write
from typer.testing import CliRunner

from edgetk.core.bundle import Bundle
from edgetk.core.errors import ParityError, PostconditionError, PreconditionError
from edgetk.export import c_run, to_c
from edgetk.export.lower import lower
from edgetk.targets import board
from edgetk.toolkit import source
from edgetk.toolkit.cli import app

HOST = board.load("host")


@pytest.fixture(autouse=True)
def _quick_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFLAGS", "-O0")


@needs_cc
def test_the_command_writes_proven_sources_that_build(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["export", str(MODEL), "--c", str(tmp_path / "out"), "--json", "-q"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["c"]
    assert found["parity"]["passed"]
    assert found["parity"]["max_abs"] < 1e-4
    assert found["parity"]["n"] == 4
    name = next(file for file in found["files"] if file.endswith("_library.c")).removesuffix("_library.c")
    files = {f"{name}.h", f"{name}.c", f"{name}_data.h", f"{name}_data.c", f"{name}_library.c", "Makefile", "CMakeLists.txt"}
    kernels = {f"edgetk_{kind}.h" for kind in ("kernels", "plain", "dsp", "mve", "host", "rows")}
    front = {"edgetk_log_mel.c", "edgetk_log_mel.h", "edgetk_log_mel_data.h"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(found["files"]) == files | kernels | front
    header = (tmp_path / "out" / f"{name}.h").read_text()
    assert "int8; one step every 0.01 s, answers look ahead 0.05 s" in header
    assert "set valid[0] of the state to 0 and make 5 steps" in header
    assert build(tmp_path / "out").inputs == {"features": 128}


def test_the_text_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    done = CliRunner().invoke(app, ["export", str(MODEL), "--c", str(tmp_path), "-q"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path}: C99 sources, 16 files, no C compiler and make here: it was not run\n"


@needs_cc
def test_sources_that_compute_something_else_are_not_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = source.open_model(str(MODEL))
    lowered = lower(bundle, HOST, ("stream",))
    made = dict(to_c.project(lowered[0], bundle))
    name = next(file for file in made if file.endswith("_data.c"))
    text = made[name].decode()
    start = text.index("head_bias")
    start = text.index("{", start)
    made[name] = (text[: start + 1] + "1e3f+" + text[start + 1 :]).encode()
    with pytest.raises(ParityError, match=r"parity: output logits of the stream form in C \(int8\) must differ from"):
        to_c.prove(made, lowered[0], bundle)


@needs_cc
def test_what_does_not_compile_is_told_with_the_compilers_words(tmp_path: Path) -> None:
    import onnx

    folder = write(program(onnx.load(MODEL)), tmp_path)
    (folder / "net.c").write_text("no C\n")
    with pytest.raises(
        PostconditionError, match=r"c_run: the generated C must compile, got: .*net\.c.*; install gcc and make, or"
    ):
        c_run.build(folder)


def test_no_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Makefile").write_text("")
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(PreconditionError, match=r"c_run: make must be installed, got no such program; install gcc and make"):
        c_run.build(tmp_path)


@needs_cc
def test_a_spiking_network_has_the_bits_of_the_model(spiking: Bundle) -> None:
    """Every output of whole streams, flush included; its proof allows no difference at all."""
    (low,) = lower(spiking, HOST, ("stream",))
    assert low.exact
    proof = to_c.prove(to_c.project(low, spiking), low, spiking)
    assert proof is not None
    assert (proof.passed, proof.max_abs, proof.bound) == (True, 0.0, 0.0)
