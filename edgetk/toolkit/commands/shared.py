"""What commands have in common: the settings of this call, their option types, JSON on stdout."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetk.toolkit import progress

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="JSON alone on stdout; logs go to stderr.")]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="The task's data; default: the embedded sample.", show_default=False),
]
Seed = Annotated[int, typer.Option("--seed", help="Everything random follows from it.")]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where to write.")]


@dataclass(frozen=True)
class Settings:
    """The options that every command accepts."""

    quiet: bool = False
    verbose: bool = False
    debug: bool = False


settings = Settings()


def listener() -> progress.Progress:
    """Where long work of this call reports to."""
    return progress.on_stderr(quiet=settings.quiet, verbose=settings.verbose)


def console() -> Console:
    """Where reports are printed: the terminal's width, or wide enough for every table where stdout is a pipe or a file."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 140)


def print_json(data: Mapping[str, Any]) -> None:
    """One JSON document on stdout. NaN and infinity are refused: they are not JSON."""
    json.dump(data, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def is_usage(error: Exception) -> bool:
    """True for the errors that typer prints itself, with exit code 2."""
    return hasattr(error, "exit_code") and hasattr(error, "format_message")
