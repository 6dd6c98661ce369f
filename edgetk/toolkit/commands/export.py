"""`edgetk export`: a model as it stands into proven files and into source code that runs them, without compressing it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetk.core.errors import UsageError
from edgetk.toolkit.commands import shared

if TYPE_CHECKING:
    from edgetk.core.bundle import Bundle
    from edgetk.core.contracts import Lowered
    from edgetk.core.target import Target


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A zoo name, package.module:function, x.safetensors or x.onnx.")
    ],
    target: Annotated[str, typer.Option("--target", "-t", help="The board or .toml file whose stack has to read it.")] = "host",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Write what the target's stack reads.", show_default=False),
    ] = None,
    cpp: Annotated[
        Path | None,
        typer.Option("--cpp", metavar="FOLDER", help="Write a C++ project that runs it on ONNX Runtime.", show_default=False),
    ] = None,
    c: Annotated[
        Path | None,
        typer.Option(
            "--c", metavar="FOLDER", help="Write one step (or one whole input) as C99 for microcontrollers.", show_default=False
        ),
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="What the model is for, where it does not say.")] = None,
    folder: shared.DataFolder = None,
    as_json: shared.Json = False,
) -> None:
    """Export a model as it is: files with their proofs, and projects that run them in C++ or plain C."""
    if output is None and cpp is None and c is None:
        raise UsageError("export: must be told what to write, got none of --output, --cpp and --c; name a folder with one")
    from edgetk.targets import board
    from edgetk.toolkit.recipe import Recipe
    from edgetk.toolkit.runner import open_with_data

    chosen, listener = board.load(target), shared.listener()
    with listener.task(f"open {model}"):
        recipe = Recipe("export", model=model, task=task or "", data=str(folder or ""))
        bundle = replace(open_with_data(recipe), target=chosen)
    lowered, facts = _lower(bundle, chosen, None if output is not None else _form(bundle))
    found: dict[str, Any] = {"model": model, "target": str(chosen)}
    if output is not None:
        with listener.task("export"):
            found["files"] = _files(output, lowered, bundle, chosen, facts)
    if cpp is not None:
        from edgetk.export import cpp_project
        from edgetk.toolkit.workspace import Workspace

        with listener.task("write the C++ project"):
            workspace = Workspace.at(cpp)
            made = cpp_project.project(lowered[_form(bundle)], bundle, chosen, model, facts)
            found["cpp"] = {
                "folder": str(cpp),
                "files": {name: workspace.write(name, content) for name, content in made.items()},
            }
    if c is not None:
        with listener.task("write the C sources"):
            found["c"] = _c_sources(c, lowered[_form(bundle)], bundle, chosen)
    if as_json:
        shared.print_json(found)
        return
    _print(found, output)


def _form(bundle: Bundle) -> str:
    """The form that source code runs: one step, where the model has it."""
    return "stream" if bundle.signature.is_streaming else "clip"


def _lower(bundle: Bundle, target: Target, form: str | None) -> tuple[Mapping[str, Lowered], Mapping[str, Any]]:
    """The forms as graphs (one, or all where None), and what was recorded in them: what fires in a spiking model."""
    from edgetk.export.lower import lower
    from edgetk.toolkit import activity

    lowered = {low.form: low for low in lower(bundle, target, None if form is None else (form,))}
    fired = activity.firings(lowered, bundle)
    return lowered, {"firing": {name: firing.to_json() for name, firing in fired.items()}} if fired else {}


def _files(
    folder: Path, lowered: Mapping[str, Lowered], bundle: Bundle, target: Target, facts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """What the exporters of the target's stack write, each file after its proof."""
    from edgetk.toolkit import deliver
    from edgetk.toolkit.workspace import Workspace

    delivered = deliver.export(target.stack.exports, lowered, bundle, target, Workspace.at(folder), facts)
    return [item.artifact.to_json() for item in delivered]


def _c_sources(folder: Path, low: Lowered, bundle: Bundle, target: Target) -> dict[str, Any]:
    """Write the step as C, once it was proven."""
    from edgetk.export.to_c import EXPORTER
    from edgetk.toolkit.workspace import Workspace

    EXPORTER.check(bundle, target)
    workspace, emitted = Workspace.at(folder), EXPORTER((low,), bundle, target)
    files = {e.name.removeprefix("c/"): workspace.write(e.name.removeprefix("c/"), e.content) for e in emitted}
    proof = emitted[0].parity
    return {
        "folder": str(folder),
        "files": files,
        "parity": proof.to_json() if proof else None,
        "notes": list(emitted[0].notes),
    }


def _print(found: Mapping[str, Any], output: Path | None) -> None:
    from edgetk.core.artifact import Parity

    for file in found.get("files", ()):
        proof = f", {Parity.from_json(file['parity'])}" if file["parity"] else ""
        print(f"{output}/{file['path']}: {file['form']} form, {file['precision']}, {file['size_bytes']:,} bytes{proof}")
        for note in file["notes"]:
            print(f"  {note}")
    if "cpp" in found:
        folder = found["cpp"]["folder"]
        print(f"{folder}: C++ project of {len(found['cpp']['files'])} files; build and check it:")
        print(f"  cmake -S {folder} -B {folder}/build && cmake --build {folder}/build && ctest --test-dir {folder}/build")
    if "c" in found:
        made = found["c"]
        said = str(Parity.from_json(made["parity"])) if made["parity"] else "; ".join(made["notes"])
        print(f"{made['folder']}: C99 sources, {len(made['files'])} files, {said}")
