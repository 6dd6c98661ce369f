"""The page on the command line has every command, and every option of those with a table."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer.main

from edgetk.toolkit.cli import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
COMMANDS = typer.main.get_group(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command(name: str) -> None:
    assert f"| `{name}" in PAGE


@pytest.mark.parametrize("name", ["compress", "train", "evaluate", "bench", "stream"])
def test_every_option(name: str) -> None:
    everywhere = PAGE.partition("## On every command")[2]
    section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0] + everywhere
    options = [opt for parameter in COMMANDS[name].params for opt in parameter.opts if opt.startswith("--") and opt != "--help"]
    assert [option for option in options if f"`{option}" not in section and f" {option}" not in section] == []
