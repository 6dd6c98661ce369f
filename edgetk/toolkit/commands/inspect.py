"""`edgetk inspect`: what is in a graph, what it costs, and where it fits."""

from __future__ import annotations

from typing import Annotated

import typer

from edgetk.toolkit.commands import shared


def inspect(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="An .onnx or .safetensors file, a zoo name or package.module:function.")
    ],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Boards to check the fit of; default: all.")
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Show operators, MACs, bytes, state, look-ahead and metadata of a graph, and on which boards it fits."""
    from edgetk.toolkit import inspect as inspection

    with shared.listener().task(f"inspecting {model}"):
        found = inspection.examine(model, tuple(target or ()))
    if as_json:
        shared.print_json(found)
        return
    inspection.terminal(found, shared.console())
