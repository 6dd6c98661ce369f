"""`edgetk evaluate`: the accuracy of a model or a file on a task's data, early and at the end, or its answer to a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgetk.core.bundle import Bundle
from edgetk.core.errors import UsageError
from edgetk.core.figures import Score
from edgetk.toolkit.commands import detector_options as options
from edgetk.toolkit.commands import shared

if TYPE_CHECKING:
    from edgetk.toolkit.progress import Progress
    from edgetk.toolkit.stream_study import Plan

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
    curve: Annotated[
        bool, typer.Option("--curve", help="Accuracy of a streaming model by how much of each input it has heard.")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="MODEL", help="With --curve: another model beside it. May be repeated."),
    ] = None,
    exits: Annotated[
        list[float] | None,
        typer.Option(
            "--exit",
            metavar="P",
            help="With --curve: decide once the largest probability is P or more: the softmax over the running scores, taken "
            "as logits, also of models trained with binary cross-entropy. May be repeated.",
        ),
    ] = None,
    earliest: Annotated[
        int, typer.Option("--exit-from", metavar="FRAME", min=1, help="No --exit before so many frames are heard.")
    ] = 1,
    streaming: Annotated[
        bool,
        typer.Option("--streaming", help="False accepts per hour and false rejects on long streams composed of the clips."),
    ] = False,
    keyword: Annotated[
        str | None,
        typer.Option(
            "--keyword", metavar="WORD", help="With --streaming: the one watched word; default: all labels.", show_default=False
        ),
    ] = None,
    streams: Annotated[int, typer.Option("--streams", metavar="N", min=1, help="With --streaming: how many streams.")] = 1,
    minutes: Annotated[float, typer.Option("--minutes", metavar="M", help="With --streaming: how long each one is.")] = 20.0,
    threshold: options.Threshold = None,
    window: options.Window = None,
    hold: options.Hold = None,
    refractory: options.Refractory = None,
    gate: options.UseGate = False,
    runtime: options.Runtime = None,
    seed: shared.Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="With --curve: write curve.json and curve.html; with --streaming: streaming.json.",
            show_default=False,
        ),
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Score a model, or an exported .onnx as onnxruntime runs it, on a split of a task's data, or on one recording."""
    detector = {"--threshold": threshold, "--window": window, "--hold": hold, "--refractory": refractory}
    alone = {
        "--keyword": keyword,
        "--streams": streams != 1,
        "--minutes": minutes != 20.0,
        "--gate": gate,
        "--runtime": runtime,
    }
    _check_streaming(streaming, {**alone, **detector}, curve, wav)
    _check(curve, wav, against, exits, earliest, output is not None and not streaming)
    from edgetk.core import registry
    from edgetk.toolkit import calling
    from edgetk.toolkit import evaluate as scoring

    if wav is not None and folder is not None:
        raise UsageError("evaluate: --wav and --data must not stand together, got both; leave one out")
    listener = shared.listener()
    bundle = _open(model, task, listener)
    name = task or bundle.task
    if not name:
        raise UsageError(f"evaluate: {model} must have a task, got none in it; name one with --task")
    if wav is not None:
        _one(model, bundle, name, wav, as_json)
        return
    if streaming:
        from edgetk.toolkit.stream_study import Plan

        rule = options.rule_of(threshold, window, hold, refractory)
        plan = Plan(keyword or "", streams, minutes, seed, rule, options.gate_of(gate))
        _streaming(bundle, name, folder, split, plan, runtime, output, as_json, listener)
        return
    if curve:
        models = {model: bundle, **_others(model, name, against or [], task, listener)}
        _curve(models, name, folder, split, exits or [], earliest, output, as_json, listener)
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


def _check(
    curve: bool, wav: Path | None, against: list[str] | None, exits: list[float] | None, earliest: int, output: bool
) -> None:
    """Options that only --curve knows, and what they must be."""
    if curve and wav is not None:
        raise UsageError("evaluate: --curve and --wav must not stand together, got both; leave one out")
    given = {"--against": against, "--exit": exits, "--exit-from": earliest > 1, "--output": output}
    if not curve and (alone := [name for name, value in given.items() if value]):
        raise UsageError(f"evaluate: {alone[0]} must stand with --curve, got it alone; add --curve or leave it out")
    if earliest > 1 and not exits:
        raise UsageError("evaluate: --exit-from must stand with --exit, got it alone; add --exit P or leave it out")
    for threshold in exits or []:
        if not 0 < threshold < 1:
            raise UsageError(f"evaluate: --exit must be a probability between 0 and 1, got {threshold:g}; 0.9 is one")


def _check_streaming(streaming: bool, given: dict[str, Any], curve: bool, wav: Path | None) -> None:
    """Options that only --streaming knows, and what it cannot stand with."""
    if streaming and (curve or wav is not None):
        other = "--curve" if curve else "--wav"
        raise UsageError(f"evaluate: --streaming and {other} must not stand together, got both; leave one out")
    if not streaming and (alone := [name for name, value in given.items() if value]):
        raise UsageError(f"evaluate: {alone[0]} must stand with --streaming, got it alone; add --streaming or leave it out")


def _open(model: str, task: str | None, listener: Progress) -> Bundle:
    from edgetk.toolkit import source

    bundle = source.open_model(model, task=task)
    if source.is_untrained(bundle):
        listener.log(f"warning: {model} comes without trained weights, its answers are random; edgetk train makes some")
    return bundle


def _others(model: str, name: str, against: list[str], task: str | None, listener: Progress) -> dict[str, Bundle]:
    """The models to compare with; each must be another one, and for the same task."""
    found: dict[str, Bundle] = {}
    for other in against:
        if other == model or other in found:
            raise UsageError(f"evaluate: --against must name each model once, got {other} again; leave it out")
        found[other] = _open(other, task, listener)
        own = task or found[other].task or name
        if own != name:
            raise UsageError(
                f"evaluate: --against must name a model for {name}, got {other} for {own}; choose another or say --task"
            )
    return found


def _curve(
    models: dict[str, Bundle],
    task: str,
    folder: Path | None,
    split: str,
    exits: list[float],
    earliest: int,
    output: Path | None,
    as_json: bool,
    listener: Progress,
) -> None:
    """Early decisions of one or more models: a table, JSON, and with `output` files."""
    from edgetk.core import registry
    from edgetk.toolkit import curve_report, curve_study
    from edgetk.toolkit.workspace import Workspace

    labels = next((bundle.labels for bundle in models.values() if bundle.labels), None)
    workspace = Workspace.at(output) if output is not None else None
    data = registry.load("task", task).open(folder, labels)
    study = curve_study.study(models, task, data, split, exits, earliest, listener)
    if workspace is not None:
        workspace.write_json("curve.json", study)
        workspace.write_text("curve.html", curve_report.render(study))
    if as_json:
        shared.print_json(study)
        return
    curve_report.terminal(study, shared.console())
    if workspace is not None:
        print(f"\npage: {workspace.path('curve.html')}")


def _streaming(
    bundle: Bundle,
    task: str,
    folder: Path | None,
    split: str,
    plan: Plan,
    runtime: str | None,
    output: Path | None,
    as_json: bool,
    listener: Progress,
) -> None:
    """Long streams composed of the task's clips: tables, JSON, and with `output` a file."""
    import torch

    from edgetk.core import registry
    from edgetk.toolkit import stream, stream_report, stream_study
    from edgetk.toolkit.workspace import Workspace

    workspace = Workspace.at(output) if output is not None else None
    torch.set_num_threads(1)
    streamed = stream.of_bundle(bundle, runtime)
    data = registry.load("task", task).open(folder, bundle.labels)
    study = stream_study.study(streamed, data, split, plan, listener)
    if workspace is not None:
        workspace.write_json("streaming.json", study)
    if as_json:
        shared.print_json(study)
        return
    stream_report.terminal(study, shared.console())


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
