"""A recipe from beginning to end: open, check, passes, export, figures, result. What was finished is never lost.

Every pass ends with a checkpoint; Ctrl-C, a full disk or a broken plug-in leave a folder that `resume=True` goes on from.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import edgetk
from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Pass
from edgetk.core.errors import InputError
from edgetk.core.figures import Score
from edgetk.core.target import Target
from edgetk.toolkit import activity, beside, binary, calling, deliver, judge, notebook, source, steps
from edgetk.toolkit.cost import Costs
from edgetk.toolkit.evaluate import evaluate, graph_predictor, predictor
from edgetk.toolkit.progress import Progress, Silent
from edgetk.toolkit.recipe import Recipe
from edgetk.toolkit.result import RunResult
from edgetk.toolkit.workspace import Workspace

REPORT = "report.json"


@dataclass(frozen=True)
class Plan:
    """A recipe with everything it names opened and checked: no work has been done, and none of it will fail for a name."""

    recipe: Recipe
    targets: tuple[Target, ...]
    bundle: Bundle
    passes: tuple[Pass, ...]
    unfit: Mapping[int, str]
    identity: str

    @property
    def target(self) -> Target:
        return self.targets[0]

    def workspace(self, output: Path) -> Workspace:
        """The run's folder below `output`."""
        return Workspace.open(output, self.bundle.name, self.target.name, self.identity)


def plan(recipe: Recipe) -> Plan:
    """Open and check all that a run needs, before any work.

    Raises UnknownName and RecipeError (the recipe), InputError (model or data), PreconditionError (a pass or exporter that
    cannot work on this model).
    """
    from edgetk.targets import board

    recipe = recipe.resolved()
    targets = tuple(board.load(text) for text in recipe.targets)
    hashes = source.files(recipe.model)
    hashes |= {text: sha256(Path(text).read_bytes()).hexdigest() for text in recipe.targets if text.endswith(".toml")}
    identity = recipe.sha256(hashes)
    with calling.seeded(recipe.seed):  # an untrained model's weights are drawn when it is opened
        bundle = replace(open_with_data(recipe), target=targets[0])
        bundle = replace(bundle, original=bundle.body)
    passes, unfit = steps.check(recipe.passes, bundle)
    for name in recipe.exports:
        registry.load("exporter", name).check(bundle, targets[0])
    return Plan(recipe, targets, bundle, passes, unfit, identity)


def open_with_data(recipe: Recipe) -> Bundle:
    """The recipe's model with the data of its task; an untrained zoo model gets one output per class of the data."""
    bundle = source.open_model(recipe.model, recipe.task or None, recipe.labels or None)
    task = recipe.task or bundle.task
    if bundle.task != task:
        raise InputError(f"model {bundle.name}: must be made for the task {task}, got one for {bundle.task}; leave --task out")
    if not task:
        if recipe.data:
            raise InputError(f"model {bundle.name}: must have a task to read data, got none; name it with --task")
        return bundle
    folder = Path(recipe.data) if recipe.data else None
    data = registry.load("task", task).open(folder, bundle.labels or recipe.labels or None)
    if not bundle.labels:
        bundle = source.open_model(recipe.model, task, data.labels)
    calling.check_features(bundle, data.calibration(1), f"model {bundle.name}")
    return replace(bundle, data=data)


def run(recipe: Recipe, output: Path, *, resume: bool = False, progress: Progress | None = None) -> RunResult:
    """Do what the recipe says in its own folder below `output`, and write `report.json` there.

    With `resume` it goes on after the last finished pass of the same recipe. A missed goal is in the result's
    `goals_missed`: everything is written, `judge.require_goals` makes the error of it. Raises what `plan` raises,
    PostconditionError for a plug-in that breaks its promise, and what Workspace raises.
    """
    listener = progress if progress is not None else Silent()
    with listener.task("open model and data"):
        made = plan(recipe)
    workspace = made.workspace(output)
    listener.log(f"target: {made.target}")
    listener.log(f"run folder: {workspace.folder}")
    with workspace.locked():
        workspace.write_text("recipe.toml", made.recipe.to_toml())
        state = _passes(made, workspace, resume, listener)
        result = _finish(made, workspace, state, listener)
        workspace.write_json(REPORT, result.to_json())
    return result


def _passes(made: Plan, workspace: Workspace, resume: bool, progress: Progress) -> steps.State:
    costs = Costs(made.target, workspace, made.recipe.goals.max_slowdown)

    def score(bundle: Bundle) -> Score | None:
        if bundle.data is None:
            return None
        return evaluate(predictor(bundle), bundle.task, bundle.data, made.recipe.guard_split)

    state = steps.resume(made.bundle, costs, made.identity) if resume else None
    if state is None:
        if resume:
            progress.log("nothing to resume for this recipe: starting from the beginning")
        workspace.clear(steps.STATE)
        workspace.clear("checkpoints")
        workspace.clear(notebook.FOLDER)
        with progress.task("look at the original"):
            state = steps.begin(made.bundle, costs, score)
        state.save(workspace, made.identity)
    elif state.rows:
        progress.log(f"resumed after {state.rows[-1].name} ({len(state.rows)} of {len(made.passes)} passes)")
    stage = steps.Steps(costs, score, made.recipe.goals, made.recipe.seed, progress=progress)
    done = len(state.rows)
    with progress.task("passes", len(made.passes)) as bar:
        bar.advance(done)
        for index in range(done, len(made.passes)):
            step = made.recipe.passes[index]
            with progress.task(step.name):
                if index in made.unfit:
                    state = steps.left_out(state, step, made.unfit[index])
                else:
                    state = stage.apply(index + 1, step.name, made.passes[index], step.settings, state)
                state.save(workspace, made.identity)
            row = state.rows[-1]
            progress.log(f"{row.name}: {row.verdict}, {row.reason}")
            bar.advance()
    return state


def _finish(made: Plan, workspace: Workspace, state: steps.State, progress: Progress) -> RunResult:
    recipe, bundle = made.recipe, state.main.bundle
    scores: dict[str, Score] = {}
    before = after = None
    if bundle.data is not None:
        with progress.task("evaluate before and after"):
            before = evaluate(predictor(made.bundle), bundle.task, bundle.data, recipe.final_split)
            scores = {c.file: _final(c, forms[0], recipe.final_split) for c, forms in _sources(state)}
            after = scores[state.forms[next(iter(state.forms))].file]
    delivered = []
    with progress.task("export"):
        for candidate, forms in _sources(state):
            lowered = {form: candidate.lowered[form] for form in forms}
            accuracy = {"accuracy": scores[candidate.file].to_json()} if scores else {}
            facts = {"recipe_sha256": made.identity, **accuracy}
            fired = activity.firings(lowered, candidate.bundle)
            delivered += deliver.export(recipe.exports, lowered, candidate.bundle, made.target, workspace, facts, fired)
    with progress.task("measure and predict"):
        rows = deliver.figures(delivered, made.targets, workspace)
        energies = deliver.op_energies(delivered)
    compared = _beside(made, workspace, after, delivered, energies, progress)
    artifacts = tuple(item.artifact for item in delivered)
    return RunResult(
        model=bundle.name,
        target=made.target,
        task=bundle.task,
        data=bundle.data.origin if bundle.data is not None else "",
        labels=bundle.labels,
        before=before,
        after=after,
        guard_before=state.score,
        original=state.original,
        passes=state.rows,
        artifacts=artifacts,
        figures=tuple(rows),
        op_energy=energies,
        workloads=deliver.workloads(delivered),
        beside=tuple(compared),
        binary=binary.binary(delivered, bundle),
        lineage=bundle.lineage,
        recipe=recipe.to_json(),
        recipe_sha256=made.identity,
        environment=environment(recipe.seed),
        goals_missed=judge.missed(recipe.goals, before, after, artifacts, rows, made.target.name),
        notes=_notes(made, state),
        warnings=_warnings(made, before, after),
        folder=str(workspace.folder),
    )


def _beside(
    made: Plan,
    workspace: Workspace,
    after: Score | None,
    delivered: list[deliver.Delivered],
    energies: Mapping[str, Any],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Energy from counts of an exported spiking model beside its counterpart without spikes; empty for other models."""
    first = made.bundle
    if not activity.is_spiking(first) or first.data is None:
        return []
    costs = Costs(made.target, workspace)
    with progress.task("set beside the network without spikes"):

        def score(bundle: Bundle) -> Score:
            assert bundle.data is not None
            return evaluate(predictor(bundle), bundle.task, bundle.data, made.recipe.final_split)

        forms = {item.emitted.lowered.form: energies[item.artifact.path] for item in delivered}
        precision = " and ".join(sorted({item.artifact.precision for item in delivered}))
        own = beside.row(f"{first.name}, exported", precision, after, forms)
        return [own, *beside.counterpart(first, costs.lower, score)]


def _sources(state: steps.State) -> list[tuple[steps.Candidate, list[str]]]:
    """The models that are exported, each with the forms it is exported in, the whole-input form first."""
    groups: dict[str, tuple[steps.Candidate, list[str]]] = {}
    for form, candidate in state.forms.items():
        groups.setdefault(candidate.file, (candidate, []))[1].append(form)
    return list(groups.values())


def _final(candidate: steps.Candidate, form: str, split: str) -> Score:
    """The score of what is exported: the whole-input graph in onnxruntime, where there is one, else the model in memory."""
    bundle, low = candidate.bundle, candidate.lowered[form]
    assert bundle.data is not None
    whole = not low.signature.is_streaming or not bundle.is_torch
    predict = graph_predictor(low.graph.SerializeToString(), low.signature) if whole else predictor(bundle)
    return evaluate(predict, bundle.task, bundle.data, split)


def _notes(made: Plan, state: steps.State) -> tuple[str, ...]:
    aside = [form for form, candidate in state.forms.items() if candidate.file != state.main.file]
    notes = [
        f"the {form} form is exported from the {_after(state.forms[form])}: the passes after it made that form slower"
        for form in aside
    ]
    if made.bundle.data is not None:
        notes.append("accuracy after is that of the exported graph in onnxruntime, before that of the model in memory")
    return tuple(notes)


def _after(candidate: steps.Candidate) -> str:
    lineage = candidate.bundle.lineage
    return f"model after {lineage[-1].name}" if candidate.file and lineage else "original model"


def _warnings(made: Plan, before: Score | None, after: Score | None) -> tuple[str, ...]:
    doubt = judge.doubt(made.recipe.goals, before, after)
    texts = [doubt] if doubt else []
    if made.unfit and len(made.unfit) == len(made.passes):
        texts.append("nothing was compressed: no pass of the recipe can work on this model; the files are the model as it is")
    if source.is_untrained(made.bundle):
        texts.append(f"{made.bundle.name} is untrained: no weights for it come with edgetk; train it with edgetk train")
    if before is None:
        texts.append("no data: accuracy was not checked, and the guard on it could not work; name a task with --task")
    elif before.n < 500:
        low, high = before.ci95
        texts.append(
            f"only {before.n} examples judge the accuracy: the interval is {100 * (high - low):.1f} points wide; "
            "give the whole data set with --data"
        )
    return tuple(texts)


def environment(seed: int) -> Mapping[str, Any]:
    """What the result depends on besides the recipe: versions, processor, date."""
    versions = {name: metadata.version(name) for name in ("torch", "onnx", "onnxruntime", "numpy")}
    return {
        "edgetk": edgetk.__version__,
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "seed": seed,
        "command": " ".join(["edgetk", *sys.argv[1:]]) if Path(sys.argv[0]).name == "edgetk" else "library call",
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model")))
    return next(names, platform.machine())
