"""`edgetk evaluate`: the accuracy of a model or an exported file on a task's data, with n and its interval."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from edgetk.core.errors import UsageError
from edgetk.core.figures import Score
from edgetk.toolkit.commands import shared


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A zoo name, package.module:function, x.safetensors or x.onnx.")
    ],
    task: Annotated[str | None, typer.Option("--task", help="What it is for; default: what the model says.")] = None,
    folder: shared.DataFolder = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    as_json: shared.Json = False,
) -> None:
    """Score a model, or an exported .onnx as onnxruntime runs it, on a split of a task's data."""
    from edgetk.core import registry
    from edgetk.toolkit import evaluate as scoring
    from edgetk.toolkit import source

    listener = shared.listener()
    bundle = source.open_model(model, task=task)
    name = task or bundle.task
    if not name:
        raise UsageError(f"evaluate: {model} must have a task, got none in it; name one with --task")
    data = registry.load("task", name).open(folder, bundle.labels or None)
    if source.is_untrained(bundle):
        listener.log(f"warning: {model} comes without trained weights, its answers are random; edgetk train makes some")
    predict = scoring.predictor(bundle)
    with listener.task(f"scoring {model} on {split}"):
        official = scoring.evaluate(predict, name, data, split)
        chosen = data.split(split).official
        every = official if chosen is None or bool(chosen.all()) else scoring.evaluate(predict, name, data, split, False)
    form = "stream" if bundle.signature.is_streaming and not bundle.is_torch else "clip"
    result = {"model": model, "task": name, "data": data.origin, "form": form, **official.to_json(), "all": every.to_json()}
    if as_json:
        shared.print_json(result)
        return
    _print(result, official, every)


def _print(result: dict[str, Any], official: Score, every: Score) -> None:
    print(f"{result['model']} ({result['form']} form) on {result['task']}, {official.split} split of {result['data']}")
    print(f"  accuracy   {official}" + (f", {official.note}" if official.note else ""))
    if every.n != official.n:
        print(f"  all clips  {every}" + (f", {every.note}" if every.note else ""))
