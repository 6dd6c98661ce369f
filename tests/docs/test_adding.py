"""The pages on adding a model, a pass and a board, followed literally: their files and commands, in a package of one's own."""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgetk.toolkit.cli import app

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: how pip is told to install into a folder, from what is here alone ("0" is its way to say yes to --no-build-isolation)
PIP = {
    "PIP_TARGET": "site",
    "PIP_NO_DEPS": "1",
    "PIP_NO_INDEX": "1",
    "PIP_NO_BUILD_ISOLATION": "0",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.S | re.M)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which a reader who writes every file of the three pages ends up, as the current one."""
    folder = tmp_path / "my-plugins"
    model, check_model = blocks("adding-a-model.md", "python")
    made, check_pass = blocks("adding-a-pass.md", "python")
    (first,), (more, recipe) = blocks("adding-a-model.md", "toml"), blocks("adding-a-pass.md", "toml")
    files = {
        "my_plugins/__init__.py": "",
        "my_plugins/leaky.py": model,
        "my_plugins/trim.py": made,
        "check_leaky.py": check_model,
        "check_trim.py": check_pass,
        "pyproject.toml": first,
        "more.toml": more,
        "trim.toml": recipe,
        "my-board.toml": blocks("adding-a-board.md", "toml")[0],
    }
    (folder / "my_plugins").mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder / "site"))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_plugins"]:
        del sys.modules[name]


def follow(commands: str) -> str:
    """Do what a page's commands say, in the current folder, and give what they print.

    pip installs beside the package, without a network; python and edgetk run in this process, which is quicker.
    """
    printed = ""
    for line in commands.splitlines():
        program, *arguments = shlex.split(line)
        if program == "pip":
            subprocess.run(
                [sys.executable, "-m", "pip", *arguments], env={**os.environ, **PIP}, check=True, capture_output=True
            )
            importlib.invalidate_caches()
        elif program == "python":
            with redirect_stdout(io.StringIO()) as text:
                runpy.run_path(arguments[0], run_name="__main__")
            printed += text.getvalue()
        else:
            assert program == "edgetk", line
            done = CliRunner().invoke(app, arguments, prog_name="edgetk")
            assert done.exit_code == 0, done.output
            printed += done.stdout
    return printed


def test_a_model_a_pass_and_a_board_in_a_package_of_ones_own(package: Path) -> None:
    install, check = blocks("adding-a-model.md", "sh")
    listed = follow(install)
    assert "leaky                  A leaky integrator: the smallest model that streams. [untrained]" in listed
    assert "leaky-xs               xs variant of leaky [untrained]" in listed
    assert "BROKEN" not in listed
    follow(check)
    assert str(sys.modules["my_plugins"].__file__).startswith(str(package / "site"))  # the installed one

    project = package / "pyproject.toml"
    project.write_text(project.read_text() + "\n" + (package / "more.toml").read_text())
    install, check, compress = blocks("adding-a-pass.md", "sh")
    assert "trim                   Structured pruning by weight alone: no data, no search." in follow(install)
    assert follow(check) == "(1, 8)\n"

    printed = follow(compress)
    (run,) = (package / "runs").iterdir()
    report = json.loads((run / "report.json").read_text())
    assert run.name.startswith("leaky-my-board-")
    assert f"report: {Path('runs') / run.name / 'report.html'}" in printed
    assert [(row["name"], row["kept"]) for row in report["passes"]] == [("fold", True), ("trim", True)]
    assert report["passes"][1]["notes"] == {"widths": {"hidden": 8}}
    assert [form["parameters"] for form in (report["original"][0], *(row["forms"][0] for row in report["passes"]))] == [
        4 * 16 + 16 + 2 * 16 + 16 * 3 + 3,  # encode, norm, decide
        4 * 16 + 16 + 16 * 3 + 3,
        4 * 8 + 8 + 8 * 3 + 3,
    ]
    assert report["target"] == "my-board"
    assert {a["path"] for a in report["artifacts"]} == {"model.onnx", "model.stream.onnx"}
    assert all(a["parity"]["passed"] for a in report["artifacts"])
    assert {f["kind"] for f in report["figures"]} == {"predicted", "missing"}
    absent = {f["metric"] for f in report["figures"] if f["kind"] == "missing"}
    assert absent == {"average_power", "slowest_clock"}  # the board's file has neither idle_w nor modes
    assert report["accuracy"]["after"]["n"] == 96
