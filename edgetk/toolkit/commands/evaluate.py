"""`edgetk evaluate`: the accuracy of a model or an exported file on a task's data, or its answer to one recording."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgetk.core.bundle import Bundle
from edgetk.core.errors import UsageError
from edgetk.core.figures import Score
from edgetk.toolkit.commands import shared

#: how many labels are printed for one recording
_TOP = 3


def evaluate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A zoo name, package.module:function, x.safetensors or x.onnx.")
    ],
    task: Annotated[str | None, typer.Option("--task", help="What it is for; default: what the model says.")] = None,
    folder: shared.DataFolder = None,
    split: Annotated[str, typer.Option("--split", help="train, validation or test.")] = "test",
    wav: Annotated[
        Path | None,
        typer.Option("--wav", metavar="FILE", help="One recording instead of data: print its best labels.", show_default=False),
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Score a model, or an exported .onnx as onnxruntime runs it, on a split of a task's data, or on one recording."""
    from edgetk.core import registry
    from edgetk.toolkit import calling, source
    from edgetk.toolkit import evaluate as scoring

    if wav is not None and folder is not None:
        raise UsageError("evaluate: --wav and --data must not stand together, got both; leave one out")
    listener = shared.listener()
    bundle = source.open_model(model, task=task)
    name = task or bundle.task
    if not name:
        raise UsageError(f"evaluate: {model} must have a task, got none in it; name one with --task")
    if source.is_untrained(bundle):
        listener.log(f"warning: {model} comes without trained weights, its answers are random; edgetk train makes some")
    if wav is not None:
        _one(model, bundle, name, wav, as_json)
        return
    data = registry.load("task", name).open(folder, bundle.labels or None)
    calling.check_features(bundle, data.split(split).features, f"model {bundle.name}")
    predict = scoring.predictor(bundle)
    with listener.task(f"scoring {model} on {split}"):
        official = scoring.evaluate(predict, name, data, split)
        chosen = data.split(split).official
        every = official if chosen is None or bool(chosen.all()) else scoring.evaluate(predict, name, data, split, False)
    head = {"model": model, "task": name, "data": data.origin, "form": _form(bundle)}
    result = {**head, **official.to_json(), "all": every.to_json()}
    if as_json:
        shared.print_json(result)
        return
    _print(result, official, every)


def _one(model: str, bundle: Bundle, task: str, path: Path, as_json: bool) -> None:
    """The model's answer to one recording: its raw scores, best label first."""
    from edgetk.core import registry
    from edgetk.toolkit import calling
    from edgetk.toolkit import evaluate as scoring

    features = registry.load("task", task).read(path)
    calling.check_features(bundle, features, f"model {bundle.name}")
    ranked = scoring.ranked(scoring.predictor(bundle)(features), bundle.labels, f"model {bundle.name}")
    if as_json:
        rows = [{"label": label, "score": score} for label, score in ranked]
        shared.print_json({"model": model, "task": task, "file": str(path), "form": _form(bundle), "scores": rows})
        return
    print(f"{model} ({_form(bundle)} form) on {path}")
    for label, score in ranked[:_TOP]:
        print(f"  {label:<12} {score:+.3f}")


def _form(bundle: Bundle) -> str:
    return "stream" if bundle.signature.is_streaming and not bundle.is_torch else "clip"


def _print(result: dict[str, Any], official: Score, every: Score) -> None:
    print(f"{result['model']} ({result['form']} form) on {result['task']}, {official.split} split of {result['data']}")
    print(f"  accuracy   {official}" + (f", {official.note}" if official.note else ""))
    if every.n != official.n:
        print(f"  all clips  {every}" + (f", {every.note}" if every.note else ""))
