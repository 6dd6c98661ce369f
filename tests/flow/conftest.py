"""Fixtures: the command line in this process, and the tiny task installed the way an outsider's package is."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgetk.toolkit.cli import app
from edgetk.toolkit.commands import shared

Edgetk = Callable[..., Any]


@pytest.fixture(scope="module")
def edgetk() -> Edgetk:
    """Run `edgetk …`: give what it printed and its exit code."""

    def call(*arguments: object) -> Any:
        try:
            return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="edgetk")
        finally:
            shared.settings = shared.Settings()

    return call


@pytest.fixture(scope="module")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The task `tiny` of edgetk.testing, found through an entry point."""
    site = tmp_path_factory.mktemp("site")
    info = site / "edgetk_tiny-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgetk-tiny\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edgetk.tasks]\ntiny = edgetk.testing:TASK\n")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(site))
    importlib.invalidate_caches()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
