"""The page on the command line has every command, and every option of those with a table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from edgetk.toolkit.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: a command line on a page, up to the end of the line or of its code span
LINE = re.compile(r"edgetk ([a-z]+)([^`\n]*)")
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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_page_shows_an_option_that_its_command_does_not_have(page: Path) -> None:
    unknown = []
    for name, rest in LINE.findall(page.read_text(encoding="utf-8").replace("\\\n", " ")):
        if name in COMMANDS and not hasattr(COMMANDS[name], "commands"):
            options = {opt for parameter in COMMANDS[name].params for opt in (*parameter.opts, *parameter.secondary_opts)}
            unknown += [
                (name, option) for option in re.findall(r"(?<=\s)--[a-z][a-z-]*", rest) if option not in {*options, "--help"}
            ]
    assert unknown == []
