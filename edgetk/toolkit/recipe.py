"""A run as data: which model, passes, goals, exports and targets. Read from TOML, refused early, printed back in full."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from edgetk.core import registry
from edgetk.core.contracts import Pass
from edgetk.core.errors import InputError, RecipeError, UnknownName, closest
from edgetk.toolkit.settings import coerce, construct

#: Version of the recipe format this code reads and writes.
SCHEMA_VERSION = 1

FOLDER = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Goals:
    """What a run must reach; a missed one ends the command with exit code 3 after everything is written.

    Sizes and latencies hold for every exported form. `max_drop` also guards every pass, `max_slowdown` only does that.
    """

    max_drop: float = 0.01  # accuracy a compressed model may lose, as a share of all examples (0.01 = one point)
    min_top1: float | None = None  # share of right answers of the exported model
    max_latency_s: float | None = None  # one inference at batch 1 on the first target
    max_size_bytes: int | None = None  # one exported file
    max_slowdown: float = 1.0  # how many times as long a form may take after a pass as before it

    def __post_init__(self) -> None:
        for name, low, high in (("max_drop", 0.0, 1.0), ("min_top1", 0.0, 1.0)):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise RecipeError(f"goals: {name} must be in [{low:g}, {high:g}], got {value!r}; 0.01 is one point")
        for name in ("max_latency_s", "max_size_bytes"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):
                raise RecipeError(f"goals: {name} must be above 0, got {value!r}; give seconds or bytes, or leave it out")
        if not 1.0 <= self.max_slowdown < math.inf:
            raise RecipeError(
                f"goals: max_slowdown must be at least 1, got {self.max_slowdown!r}; 1.5 allows half as long again"
            )


@dataclass(frozen=True)
class PassStep:
    """One pass of a recipe with all its settings, defaults included; an `optional` one is left out where it cannot work."""

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False

    def to_json(self) -> dict[str, Any]:
        """The keys of its `[[passes]]`; values that are not set are left out."""
        optional = {"optional": True} if self.optional else {}
        return {"name": self.name, **optional, **{k: v for k, v in self.settings.items() if v is not None}}

    def build(self) -> Pass:
        """The pass itself. Raises UnknownName, or RecipeError for a setting it does not have or refuses."""
        built: Pass = construct(registry.load("pass", self.name), self.settings, self.name)
        return built


@dataclass(frozen=True)
class Recipe:
    """One run.

    task         "": the one the model was made for;  data  "": the task's embedded sample;  labels  (): the model's own
    guard_split  judges every pass, `final_split` the result
    targets      the first is compressed for, figures are given for all
    exports      (): what the first target's stack reads
    """

    name: str
    model: str = "lmuformer"
    description: str = ""
    task: str = ""
    data: str = ""
    labels: tuple[str, ...] = ()
    guard_split: str = "validation"
    final_split: str = "test"
    passes: tuple[PassStep, ...] = ()
    goals: Goals = Goals()
    exports: tuple[str, ...] = ()
    targets: tuple[str, ...] = ("host",)
    seed: int = 0

    def __post_init__(self) -> None:
        who = f"recipe {self.name}"
        if not 0 <= self.seed < 2**32:
            raise RecipeError(f"{who}: seed must be in [0, 2³²), got {self.seed}; choose another")
        if not self.targets:
            raise RecipeError(f"{who}: targets must name at least one, got none; add one")
        if self.guard_split == self.final_split:
            raise RecipeError(
                f"{who}: guard_split and final_split must differ, got {self.final_split!r} for both; "
                "a split that chose the model cannot judge it"
            )

    def resolved(self) -> Recipe:
        """The same recipe with every default of its passes and the exports written out, every name looked up, and aliases of
        targets replaced.

        Raises UnknownName, RecipeError or InputError (a board file); loads the plug-ins it names.
        """
        from edgetk.targets import board

        steps = tuple(PassStep(s.name, _plain(asdict(s.build())), s.optional) for s in self.passes)  # type: ignore[call-overload]
        boards = [board.load(text) for text in self.targets]
        exports = self.exports or boards[0].stack.exports
        for kind, names in (("exporter", exports), ("task", (self.task,) if self.task else ())):
            for name in names:
                known = registry.entries(kind)
                if name not in known:
                    raise UnknownName(f"recipe {self.name}: {kind} {name!r}: no such {kind}; {closest(name, known)}")
        targets = tuple(text if text.endswith(".toml") else b.name for text, b in zip(self.targets, boards, strict=True))
        return replace(self, passes=steps, exports=exports, targets=targets)

    def to_json(self) -> dict[str, Any]:
        """Plain data with the key order of the file format; values that are not set are left out."""
        data = {"schema_version": SCHEMA_VERSION, **{f.name: getattr(self, f.name) for f in fields(self)}}
        data["goals"] = {k: v for k, v in asdict(self.goals).items() if v is not None}
        data["passes"] = [s.to_json() for s in self.passes]
        plain: dict[str, Any] = _plain(data)
        return plain

    def to_toml(self) -> str:
        """The recipe as a file that `read` accepts."""
        data = self.to_json()
        goals, passes = data.pop("goals"), data.pop("passes")
        lines = [f"{key} = {_toml(value)}" for key, value in data.items()]
        lines += ["", "[goals]", *(f"{key} = {_toml(value)}" for key, value in goals.items())]
        for step in passes:
            lines += ["", "[[passes]]", *(f"{key} = {_toml(value)}" for key, value in step.items())]
        return "\n".join(lines) + "\n"

    def sha256(self, files: Mapping[str, str] | None = None) -> str:
        """Identity of the run: the recipe with the hashes of the `files` (name -> sha256) it starts from.

        Name and description do not count; two recipes that do the same are the same run.
        """
        data = self.to_json()
        del data["name"], data["description"]
        content = {"recipe": data, "files": dict(files or {})}
        return sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def with_overrides(self, **changes: Any) -> Recipe:
        """The recipe with the options of a command line laid over it; None means "not given".

        Takes the fields of Recipe and of Goals by name, `target` for one target, and `finetune=True`, which adds that pass
        before quantization (or at the end) unless the recipe has it. Raises RecipeError.
        """
        given = {key: value for key, value in changes.items() if value is not None}
        if target := given.pop("target", None):
            given["targets"] = (target,)
        passes = self.passes
        if given.pop("finetune", False) and all(step.name != "finetune" for step in passes):
            at = next((i for i, step in enumerate(passes) if step.name == "quantize"), len(passes))
            passes = (*passes[:at], PassStep("finetune"), *passes[at:])
        goal_names = {f.name for f in fields(Goals)}
        goals = {key: given.pop(key) for key in list(given) if key in goal_names}
        for key in ("data", "model"):
            if key in given:
                given[key] = str(given[key])
        steps = given.pop("passes", passes)
        who = f"recipe {self.name}"
        base = {f.name: getattr(self, f.name) for f in fields(self)}
        merged = construct(Goals, {**asdict(self.goals), **goals}, "goals")
        return construct(Recipe, {**base, **given, "passes": tuple(steps), "goals": merged}, who)


def names() -> tuple[str, ...]:
    """The recipes that come with edgetk."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


def name_for(model: str | None) -> str:
    """The recipe that goes with a zoo model where none is named: the one of its family's name and for that, else "default"."""
    fitting = [name for name in names() if model is not None and (model == name or model.startswith(f"{name}-"))]
    return next((name for name in sorted(fitting, key=len, reverse=True) if read(name).model == name), "default")


def read(name_or_path: str | Path) -> Recipe:
    """The recipe of that name or file, checked but not yet resolved (`Recipe.resolved` loads the plug-ins).

    Raises UnknownName (no such recipe), InputError (unreadable file) or RecipeError (not a recipe).
    """
    text = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or text.endswith(".toml") or "/" in text
    path = Path(text) if is_path else FOLDER / f"{text}.toml"
    if not is_path and text not in names():
        raise UnknownName(f"recipe {text!r}: no such recipe; {closest(text, names())}")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"recipe: {path} must be a readable text file, got: {reason}; check the path") from error
    return parse(content, path.stem)


def parse(content: str, name: str) -> Recipe:
    """A recipe from TOML text; `name` is used where the text gives none. Raises RecipeError."""
    who = f"recipe {name}"
    try:
        data = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{who}: the file must be TOML, got: {error}; correct that line") from error
    version = data.pop("schema_version", None)
    if version != SCHEMA_VERSION:
        raise RecipeError(
            f"{who}: schema_version must be {SCHEMA_VERSION}, got {version!r}; add schema_version = {SCHEMA_VERSION}"
        )
    goals, steps = data.pop("goals", {}), data.pop("passes", [])
    keys = [f.name for f in fields(Recipe)]
    for key in data:
        if key not in keys:
            raise RecipeError(f"{who}: a key must be one of the recipe's, got {key!r}; {closest(key, keys)}")
    merged = construct(Goals, coerce(goals, Mapping[str, Any], f"{who}: goals"), f"{who}: goals")
    steps = coerce(steps, tuple[Mapping[str, Any], ...], f"{who}: passes")
    return construct(Recipe, {"name": name, **data, "goals": merged, "passes": tuple(_step(s, who) for s in steps)}, who)


def _step(step: Mapping[str, Any], who: str) -> PassStep:
    settings = dict(step)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise RecipeError(f'{who}: every [[passes]] must have a name, got {name!r}; add name = "…"')
    optional = coerce(settings.pop("optional", False), bool, f"{who}: {name}: optional")
    known = registry.entries("pass")
    if name not in known:
        raise UnknownName(f"{who}: pass {name!r}: no such pass; {closest(name, known)}")
    return PassStep(name, settings, optional)


def _plain(value: Any) -> Any:
    """Tuples to lists, recursively, so that JSON and TOML give back what went in."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_toml(str(k))} = {_toml(v)}" for k, v in value.items() if v is not None) + " }"
    return repr(value)
