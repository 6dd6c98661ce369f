"""`edgetk data`: where the data of a task is, how to get it, and whether it is whole."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgetk.core import registry
from edgetk.core.errors import InputError
from edgetk.toolkit.commands import shared


def data(
    task: Annotated[str, typer.Option("--task", help="Whose data.")] = "speech-commands",
    folder: shared.DataFolder = None,
    verify: Annotated[bool, typer.Option("--verify", help="Read all of it and check it; can take minutes.")] = False,
    as_json: shared.Json = False,
) -> None:
    """Say where a task's data is, how to get it, and with --verify whether it is whole."""
    job: Any = registry.load("task", task)
    found: dict[str, Any] = {
        "task": task,
        "folder": str(folder) if folder else None,
        "found": dict(job.describe(folder)),
        "how_to_get": job.how_to_get,
    }
    problems: list[str] = []
    if verify:
        with shared.listener().task(f"reading {folder or 'the embedded sample'}"):
            problems = list(job.verify(folder))
        found["problems"] = problems
    if as_json:
        shared.print_json(found)
    else:
        print(f"{task}: {folder or ('embedded sample' if getattr(job, 'has_sample', True) else 'no folder given')}")
        for key, value in found["found"].items():
            print(f"  {key:<16} {value}")
        if verify:
            print("  verified         " + (f"{len(problems)} problems" if problems else "whole"))
        print(f"\nTo get all of it:\n{job.how_to_get}")
    if problems:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise InputError(f"data: {folder or 'the embedded sample'} must be whole, got: {problems[0]}{more}; get it again")
