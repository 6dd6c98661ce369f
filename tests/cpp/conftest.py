"""One exported project and its programs, for every test of the folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from cpp_build import Done, compile_driver, configure, library, once, require, run
from typer.testing import CliRunner

from edgetk.export import to_c
from edgetk.export.lower import lower
from edgetk.targets import board
from edgetk.toolkit import source
from edgetk.toolkit.cli import app


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C++ project of the smallest trained LMUFormer, as the command writes it."""

    def make(folder: Path) -> None:
        done = CliRunner().invoke(app, ["export", "lmuformer-xs", "--cpp", str(folder), "-q"], prog_name="edgetk")
        assert done.exit_code == 0, done.stderr

    return once(tmp_path_factory.getbasetemp(), "project", make)


@pytest.fixture(scope="session")
def generated(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C of the same model: unproven, since every test of it compares scores."""

    def make(folder: Path) -> None:
        bundle = source.open_model("lmuformer-xs")
        (low,) = lower(bundle, board.load("host"), ("stream",))
        folder.mkdir()
        for name, content in to_c.project(low, bundle).items():
            (folder / name).write_bytes(content)

    return once(tmp_path_factory.getbasetemp(), "generated", make)


@pytest.fixture(scope="session")
def build(project: Path, generated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its build folder: edgetk_listen and edgetk_check, with the library of the Python package, and the generated C."""
    require("cmake", "c++")

    def make(folder: Path) -> None:
        configured = configure(project, folder, "-DEDGETK_ORT_CONFIG=OFF", f"-DEDGETK_C={generated}")
        assert f"ONNX Runtime: {library()} (the Python package), loaded when the program starts" in configured.stdout
        built = run("cmake", "--build", folder)
        assert "warning:" not in built.stdout

    return once(tmp_path_factory.getbasetemp(), "build", make)


@pytest.fixture(scope="session")
def engine(build: Path) -> Path:
    """The generated C as a shared library."""
    return build / "c" / "liblmuformer_xs.so"


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("c++")

    def make(folder: Path) -> None:
        folder.mkdir()
        compile_driver(folder / "driver")

    return once(tmp_path_factory.getbasetemp(), "driver", make) / "driver"


@pytest.fixture
def drive(driver: Path):
    """Call the driver: words in, what it printed out."""

    def call(*words: object, ok: bool = True) -> Done:
        return run(driver, *words, env={"EDGETK_ORT_LIBRARY": str(library())}, ok=ok)

    return call


@pytest.fixture
def check(build: Path):
    """Call edgetk_check: name of the check, model file, folder of test data."""

    def call(name: str, model: Path, folder: Path, ok: bool = True, **env: str) -> Done:
        return run(build / "edgetk_check", name, model, folder, env=env, ok=ok)

    return call
