"""Training a model on a task's data: from options to a weights file and its card, through interruptions."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core import registry, units
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Data, Split, TrainingData
from edgetk.core.errors import EdgetkError, InputError, UsageError
from edgetk.core.figures import Score
from edgetk.toolkit import activity, snapshot, source
from edgetk.toolkit.calling import check_features, seeded
from edgetk.toolkit.card import card
from edgetk.toolkit.checkpoint import save_model
from edgetk.toolkit.evaluate import evaluate, predictor
from edgetk.toolkit.progress import Progress, Silent
from edgetk.toolkit.stored import Store, check, rounded
from edgetk.toolkit.training_recipe import TrainingRecipe, names, read
from edgetk.toolkit.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from edgetk.tasks.training.loop import Batches, Epoch, Training

#: a snapshot is written after so many seconds even where the number of epochs is not reached
SNAPSHOT_S = 60.0


@dataclass(frozen=True)
class Options:
    """What to train and where to.

    model    a zoo name (trained from random weights), "package.module:function" or a .safetensors file (trained further)
    output   x.safetensors, or a folder for <model>.safetensors; the card is the .json beside it
    labels   classes; None: those of the data
    recipe   see `edgetk.toolkit.training_recipe`; None: "paper"
    teacher  a model whose answers make up the share `distill` of the targets
    store    how weights are stored: float32, float16 or int8; the accuracy in the card is that of the rounded ones
    """

    model: str
    output: Path
    task: str = "speech-commands"
    data: Path | None = None
    labels: tuple[str, ...] | None = None
    recipe: TrainingRecipe | None = None
    teacher: str | None = None
    device: str = "auto"
    resume: bool = False
    store: Store = "float32"
    snapshot_every: int = 5


@dataclass(frozen=True)
class _Plan:
    """A run before its data are read; `settings` is everything that decides the outcome, as plain data."""

    options: Options
    recipe: TrainingRecipe
    bundle: Bundle
    data: TrainingData
    device: torch.device
    weights: Path
    settings: dict[str, Any]

    @property
    def identity(self) -> str:
        return sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()


def train(options: Options, progress: Progress | None = None) -> dict[str, Any]:
    """Train, keep the epoch with most correct validation answers, score it once on the test split, write weights and card.

    While it runs, a folder `<output>.training` holds a snapshot; with `resume` a run goes on from there and on a CPU ends
    with the same weights as without the interruption. Returns the card.

    Raises UsageError (options that do not fit together, a file that is there already), InputError (data without training
    clips, a model that does not fit the data), EdgetkError (training diverges, the disk is full).
    """
    listener = progress or Silent()
    plan = _plan(options)
    finished = _finished(plan)
    if finished is not None:
        listener.log(f"{plan.weights} was finished before: nothing to do")
        return finished
    run = Workspace.at(plan.weights.with_name(f"{plan.weights.stem}.training"))
    if not options.resume and (done := snapshot.epochs_done(run)) is not None:
        raise UsageError(
            f"train: a new run must not replace an unfinished one, got one with {done} finished epochs in {run.folder}; "
            "add --resume to go on, or remove that folder to begin again"
        )
    written = False
    try:
        with run.locked():
            about = _train(plan, run, listener)
        written = True
    finally:
        if written or not run.has(snapshot.FILE):  # nothing worth keeping
            Workspace(run.folder.parent).clear(run.folder.name)
    return about


def _train(plan: _Plan, run: Workspace, progress: Progress) -> dict[str, Any]:
    """All of the run, from reading the data to the two files; returns the card."""
    options, recipe, data = plan.options, plan.recipe, plan.data
    with progress.task(f"reading {data.origin}"):
        test, validation = data.split("test"), data.split("validation")
        check_features(plan.bundle, validation.features, "train")
        batches, rows = data.batches(plan.device, recipe.augmentation)
    training = _training(plan, batches, rows, validation)
    history = _run(training, run, plan, progress)
    made = _finish(training, plan.bundle, options.store)
    content = save_model(made, options.store)
    with progress.task("scoring"):
        accuracy = _accuracy(made, options.task, data, test)
    facts = {
        "seed": recipe.schedule.seed,
        "best_epoch": training.best_epoch,
        "seconds": round(history.seconds, 1),
        "device": _device_text(plan.device),
        "torch": _torch_version(),
        "date": datetime.now(UTC).date().isoformat(),
        "teacher": options.teacher,
        "identity": plan.identity,
        "loss": history.loss,
        "validation_correct": history.correct,
    }
    if fired := activity.rates(replace(made, data=data)):
        facts["firing"] = fired
    counts = {"train": rows, "validation": len(validation.labels), "test": len(test.labels)}
    about = card(made, plan.weights.name, content, {"origin": data.origin, **counts}, accuracy, recipe.to_json(), facts)
    folder = Workspace.at(plan.weights.parent)
    folder.write(plan.weights.name, content)
    folder.write_json(f"{plan.weights.stem}.json", about)
    return about


def _plan(options: Options) -> _Plan:
    """Everything that can be checked before the data are read."""
    recipe = options.recipe or read("paper")
    if recipe.schedule.distill > 0 and options.teacher is None:
        raise UsageError(f"train: distill = {recipe.schedule.distill} needs a teacher, got none; add --teacher or leave it out")
    device = _device(options.device)
    data = registry.load("task", options.task).open(options.data, options.labels)
    if not isinstance(data, TrainingData):
        raise UsageError(f"train: the task {options.task} must give batches to train on, got none; choose another --task")
    if recipe.task != options.task:
        fitting = [name for name in names() if read(name).task == options.task]
        raise UsageError(
            f"train: the recipe must be for the task {options.task}, got {recipe.name}, which is for {recipe.task}; "
            f"choose --recipe {' or '.join(fitting) or 'FILE with task = ' + repr(options.task)}"
        )
    bundle = _student(options, data, recipe.schedule.seed)
    further = options.model.endswith(".safetensors") or ":" in options.model or Path(options.model).is_dir()
    settings = {
        "model": bundle.name,
        "source": dict(bundle.source),
        "start": source.files(options.model) if further else {},
        "task": options.task,
        "labels": list(data.labels),
        "data": data.origin,
        "recipe": {k: v for k, v in recipe.to_json().items() if k != "name"},
        "teacher": {options.teacher: source.files(options.teacher)} if options.teacher else {},
        "store": options.store,
        "device": device.type,
    }
    check(options.store, bundle.module, f"train: {bundle.name}")
    weights = options.output if options.output.suffix == ".safetensors" else options.output / f"{bundle.name}.safetensors"
    return _Plan(options, recipe, bundle, data, device, weights, settings)


def _student(options: Options, data: Data, seed: int) -> Bundle:
    """The model to be trained, with the classes of the data."""
    if options.model.endswith(".onnx"):
        raise UsageError(f"train: {options.model} must be a torch model, got an ONNX graph; train what it was exported from")
    with seeded(seed):
        bundle = source.open_model(options.model, options.task, data.labels, trained=False)
    if bundle.forms()[0].signature.is_streaming:
        raise InputError(
            f"train: {bundle.name} must have a form for whole inputs, got only the stream form; give its module a clip method"
        )
    outputs = bundle.forms()[0].signature.outputs[0].shape[-1]
    if outputs != len(data.labels):
        raise InputError(
            f"train: {bundle.name} must have one output per label, got {outputs} for {len(data.labels)}; change one of them"
        )
    return replace(bundle, source={k: v for k, v in bundle.source.items() if k != "weights"})


def _device(name: str) -> torch.device:
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"train: the device must be auto, cpu or cuda, got {name!r}; correct it")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("train: the device cuda needs a GPU that torch can use, got none; use --device cpu")
    return torch.device("cuda" if name == "auto" and torch.cuda.is_available() else "cpu" if name == "auto" else name)


def _device_text(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, bfloat16"
    return f"CPU, {torch.get_num_threads()} threads, float32"


def _torch_version() -> str:
    import torch

    return str(torch.__version__)


def _finished(plan: _Plan) -> dict[str, Any] | None:
    """The card of this very run, finished before. Raises UsageError where other weights of that name are there."""
    weights, about = plan.weights, plan.weights.with_suffix(".json")
    if plan.options.resume and weights.is_file() and about.is_file():
        found = Workspace(weights.parent).read_json(about.name)
        if isinstance(found, dict) and found.get("training", {}).get("identity") == plan.identity:
            return found
    unfinished = plan.options.resume and weights.with_name(f"{weights.stem}.training").is_dir()
    for path in (weights, about):
        if path.exists() and not unfinished:
            raise UsageError(f"train: {path} must be a new file, got one that exists; choose another --output or remove it")
    return None


def _training(plan: _Plan, batches: Batches, rows: int, validation: Split) -> Training:
    from edgetk.tasks.training.loop import Training

    schedule, name, teacher = plan.recipe.schedule, plan.options.teacher, None
    if name is not None and schedule.distill > 0:
        taught = source.open_model(name, plan.options.task, plan.data.labels)
        check_features(taught, validation.features, "train: the teacher")
        if not taught.is_torch or taught.forms()[0].signature.is_streaming or source.is_untrained(taught):
            raise InputError(f"train: the teacher must be a trained torch model for whole inputs, got {name}; choose another")
        teacher = taught.module.to(plan.device).requires_grad_(False).eval()
    held_out = validation.features.to(plan.device), validation.labels.to(plan.device)
    return Training(plan.bundle.module.to(plan.device), batches, rows, held_out, schedule, teacher)


def _run(training: Training, run: Workspace, plan: _Plan, progress: Progress) -> snapshot.History:
    """All epochs that are left. A snapshot of what is finished is there whenever this ends early."""
    resume, every = plan.options.resume, plan.options.snapshot_every
    history = (snapshot.restore(run, training, plan.settings) if resume else None) or snapshot.History()
    if resume:
        progress.log(f"resumed after epoch {training.epoch}" if training.epoch else "nothing to resume: starting afresh")
    kept, when, total = training.epoch, time.monotonic(), training.schedule.epochs
    try:
        with progress.task(f"training {plan.bundle.name}", total) as step:
            step.advance(training.epoch)
            for epoch in training:
                history.add(epoch)
                _require_finite(epoch)
                step.advance(1, _note(epoch))
                due = epoch.number % every == 0 or time.monotonic() - when >= SNAPSHOT_S
                if due or epoch.number == total:
                    snapshot.save(run, training, plan.settings, history)
                    kept, when = epoch.number, time.monotonic()
    except KeyboardInterrupt:
        where = f"are kept in {run.folder}, --resume goes on from there" if kept else "are finished, there is nothing to keep"
        progress.log(f"train: interrupted; {kept} of {total} epochs {where}")
        raise
    return history


def _require_finite(epoch: Epoch) -> None:
    if not math.isfinite(epoch.loss):
        raise EdgetkError(f"train: the loss must stay finite, got {epoch.loss} in epoch {epoch.number}; lower --lr")


def _note(epoch: Epoch) -> str:
    best = units.percent(epoch.best_correct / epoch.n)
    return (
        f"loss {epoch.loss:.4f}, validation {units.percent(epoch.correct / epoch.n)}, best {best} (epoch {epoch.best_number})"
    )


def _finish(training: Training, bundle: Bundle, store: Store) -> Bundle:
    """The bundle with the best weights, rounded as they will be stored, on the CPU."""
    from edgetk.models.layers.exact import settle

    module = bundle.module
    module.load_state_dict(training.best)
    module.cpu().eval()
    settle(module)
    rounded(module, store)
    return bundle


def _accuracy(bundle: Bundle, task: str, data: Data, test: Split) -> dict[str, Score]:
    predict = predictor(bundle)
    scores = {
        "validation": evaluate(predict, task, data, "validation", official_only=False),
        "test": evaluate(predict, task, data, "test"),
    }
    if test.official is not None and not bool(test.official.all()):
        scores["test_all"] = evaluate(predict, task, data, "test", official_only=False)
    return scores
