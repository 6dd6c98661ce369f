"""How to train, as data: a TOML file with a schedule and an augmentation, shipped in recipes/train/ or a user's own."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core import registry
from edgetk.core.errors import InputError, RecipeError, UnknownName, UsageError, closest
from edgetk.toolkit.settings import coerce, construct

if TYPE_CHECKING:
    from edgetk.tasks.training.loop import Schedule

FOLDER = Path(__file__).resolve().parent / "recipes" / "train"
SCHEMA_VERSION = 1
_KEYS = ("schema_version", "description", "task", "schedule", "augmentation")


@dataclass(frozen=True)
class TrainingRecipe:
    """A schedule and an augmentation under a name; what a file leaves out has the dataclasses' own defaults.

    `task` is the one whose examples the augmentation is for; `augmentation` is of that task's own dataclass.
    """

    name: str
    schedule: Schedule
    augmentation: Any
    description: str = ""
    task: str = "speech-commands"

    def with_schedule(self, **given: Any) -> TrainingRecipe:
        """The same with some fields of the schedule replaced; None leaves a field as it is. Raises UsageError."""
        known = {f.name: getattr(self.schedule, f.name) for f in fields(self.schedule)}
        changes = {key: value for key, value in given.items() if value is not None}
        schedule = construct(type(self.schedule), {**known, **changes}, "training")
        return replace(self, schedule=schedule)

    def with_augmentation(self, of: str) -> TrainingRecipe:
        """The same with the augmentation of another recipe of its task, or with "none" at all.

        Raises UnknownName, or UsageError for a recipe of another task.
        """
        if of == "none":
            return replace(self, augmentation=_augmentations(self.task, f"training recipe {self.name}")["none"])
        other = read(of)
        if other.task != self.task:
            raise UsageError(
                f"training recipe {self.name}: an augmentation must be for its task, {self.task}, got {of}, which is for "
                f"{other.task}; choose another"
            )
        return replace(self, augmentation=other.augmentation)

    def to_json(self) -> dict[str, Any]:
        """Every setting, written out."""
        return {"name": self.name, "schedule": asdict(self.schedule), "augmentation": asdict(self.augmentation)}


def names() -> tuple[str, ...]:
    """The training recipes that come with edgetk."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


def read(name_or_path: str) -> TrainingRecipe:
    """The recipe of that name or file.

    Raises UnknownName (no such recipe), InputError (unreadable file) or RecipeError (unknown key, wrong type or value).
    """
    is_path = name_or_path.endswith(".toml")
    if not is_path and name_or_path not in names():
        raise UnknownName(f"training recipe {name_or_path!r}: no such recipe; {closest(name_or_path, names())}")
    path = Path(name_or_path) if is_path else FOLDER / f"{name_or_path}.toml"
    who = f"training recipe {path.stem}"
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(f"{who}: {path} must be a readable text file, got: {reason}; check the path") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{who}: the file must be TOML, got: {error}; correct that line") from error
    return _parse(data, path.stem, who)


def _parse(data: Mapping[str, Any], name: str, who: str) -> TrainingRecipe:
    from edgetk.tasks.training.loop import Schedule

    for key in data:
        if key not in _KEYS:
            raise RecipeError(f"{who}: a key must be one of a training recipe's, got {key!r}; {closest(key, _KEYS)}")
    if data.get("schema_version") != SCHEMA_VERSION:
        raise RecipeError(
            f"{who}: schema_version must be {SCHEMA_VERSION}, got {data.get('schema_version')!r}; "
            f"add schema_version = {SCHEMA_VERSION}"
        )
    schedule, augmentation = (
        coerce(data.get(key, {}), Mapping[str, Any], f"{who}: {key}") for key in ("schedule", "augmentation")
    )
    task = coerce(data.get("task", TrainingRecipe.task), str, f"{who}: task")
    return TrainingRecipe(
        name,
        construct(Schedule, schedule, f"{who}: schedule"),
        construct(type(_augmentations(task, who)["none"]), augmentation, f"{who}: augmentation"),
        coerce(data.get("description", ""), str, f"{who}: description"),
        task,
    )


def _augmentations(task: str, who: str) -> Mapping[str, Any]:
    """The augmentations that a task names; "none" is always among them. Raises UnknownName, RecipeError where it has none."""
    known: Mapping[str, Any] | None = getattr(registry.load("task", task), "augmentations", None)
    if known is None:
        raise RecipeError(
            f"{who}: the task {task} must have a mapping augmentations with 'none' in it, got none; add it to the task"
        )
    return known
