"""`edgetk export` for a board with TensorRT: a script that can be run, and the reason why there is no engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgetk.export import tensorrt_build
from edgetk.toolkit.cli import app


@pytest.mark.usefixtures("plugins", "quick_lower")
def test_notes_of_the_files_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt_build, "find", lambda: "no TensorRT can be imported here")
    command = ["export", "edgetk.testing:tiny_bundle", "-t", "jetson", "-o", str(tmp_path / "files")]
    done = CliRunner().invoke(app, command, prog_name="edgetk")
    assert done.exit_code == 0, done.output
    assert "  no engine: no TensorRT can be imported here" in done.stdout.splitlines()
    assert os.access(tmp_path / "files" / "tensorrt" / "build_engine.sh", os.X_OK)
