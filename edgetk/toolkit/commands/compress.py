"""`edgetk compress`: the main job, from a model and a board to files that run and a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetk.toolkit.commands import shared


def compress(
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A zoo name, package.module:function, x.safetensors or x.onnx.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="A board or a .toml file; several may be given.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", "-r", help="A recipe's name or .toml file; else the model's own, or default.")
    ] = None,
    output: shared.Output = Path("runs"),
    folder: shared.DataFolder = None,
    task: Annotated[str | None, typer.Option("--task", help="What the model is for.")] = None,
    finetune: Annotated[bool, typer.Option("--finetune", help="Add a few epochs of distillation from the original.")] = False,
    max_drop: Annotated[float | None, typer.Option("--max-drop", help="Accuracy that may be lost: 0.01 is one point.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Everything random follows from it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Measure the exported files on the boards.")] = False,
    host: Annotated[
        str,
        typer.Option("--host", help="With --measure: where the first target is, ssh://user@board, if its file does not say."),
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved recipe and stop.")] = False,
    as_json: shared.Json = False,
) -> None:
    """Compress a model for a board, export it, prove the files equal and report honest figures."""
    from edgetk.toolkit import recipe as recipes

    chosen = recipes.read(recipe or recipes.name_for(model)).with_overrides(
        model=model,
        targets=tuple(target) if target else None,
        data=folder,
        task=task,
        finetune=finetune,
        max_drop=max_drop,
        seed=seed,
    )
    if dry_run:
        print(chosen.resolved().to_toml(), end="")
        return
    from edgetk.toolkit import bench, html, judge, place, report, runner
    from edgetk.toolkit.workspace import Workspace

    places = place.places(chosen.targets, measure, host)
    listener = shared.listener()
    result = runner.run(chosen, output, resume=resume, progress=listener)
    workspace = Workspace.at(Path(result.folder))
    if places:
        workspace.write_text("report.html", html.render(result.to_json()))  # a board that does not answer costs no report
        with listener.task("measure on the boards"):
            result = bench.add(result, places, say=listener.log)
        workspace.write_json(runner.REPORT, result.to_json())
    data = result.to_json()
    workspace.write_text("report.html", html.render(data))
    if as_json:
        shared.print_json(data)
    else:
        report.terminal(data, shared.console())
        print(f"\nreport: {workspace.path('report.html')}")
    judge.require_goals(result)
