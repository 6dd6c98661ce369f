"""Training recipes as files: what ships, what is refused, what overrides do."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from edgetk.core.errors import InputError, RecipeError, UnknownName, UsageError
from edgetk.tasks.images import augment as images
from edgetk.tasks.speech.augment import NO_AUGMENTATION, Augmentation
from edgetk.tasks.training.loop import Schedule
from edgetk.toolkit import training_recipe
from edgetk.toolkit.settings import construct
from edgetk.toolkit.source import WEIGHTS
from edgetk.toolkit.training_recipe import read


def write(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text)
    return str(path)


def test_paper_is_the_dataclasses_own_defaults() -> None:
    recipe = read("paper")
    assert recipe.schedule == Schedule()
    assert recipe.augmentation == Augmentation()


@pytest.mark.parametrize("name", training_recipe.names())
def test_every_shipped_recipe_reads(name: str) -> None:
    recipe = read(name)
    assert recipe.name == name
    assert recipe.description


@pytest.mark.parametrize(("name", "epochs"), [("lmuformer", 120), ("lmuformer-s", 200), ("lmuformer-xs", 120), ("ds-cnn", 120)])
def test_robust_is_what_the_shipped_weights_were_trained_by(name: str, epochs: int) -> None:
    card = json.loads((WEIGHTS / f"{name}.json").read_text())
    recipe = read("robust").with_schedule(epochs=epochs, seed=card["training"]["seed"])
    # cards are older than some settings, whose defaults change nothing
    kept = {**card["recipe"], "schedule": asdict(construct(Schedule, card["recipe"]["schedule"], "card"))}
    assert json.loads(json.dumps(kept)) == json.loads(json.dumps(recipe.to_json()))


def test_a_users_own_file_fills_in_defaults(tmp_path: Path) -> None:
    recipe = read(write(tmp_path, "schema_version = 1\n[schedule]\nlr = 1\n[augmentation]\nlevel = 0.5\nlevel_db = [-3, 3]\n"))
    assert recipe.name == "mine"
    assert recipe.schedule == Schedule(lr=1.0)
    assert recipe.augmentation == Augmentation(level=0.5, level_db=(-3.0, 3.0))


def test_overrides() -> None:
    recipe = read("robust").with_schedule(epochs=7, lr=None, seed=3)
    assert (recipe.schedule.epochs, recipe.schedule.lr, recipe.schedule.seed) == (7, 2.5e-3, 3)
    assert recipe.with_augmentation("none").augmentation == NO_AUGMENTATION
    assert recipe.with_augmentation("paper").augmentation == Augmentation()
    assert recipe.with_augmentation("paper").schedule == recipe.schedule
    with pytest.raises(UsageError, match=r"shape must be 'step' or 'cosine', got 'round'"):
        recipe.with_schedule(shape="round")


def test_a_recipe_is_for_a_task_and_has_that_tasks_augmentation() -> None:
    recipe = read("images")
    assert recipe.task == "cifar10"
    assert recipe.augmentation == images.Augmentation(mixup=0.5, smoothing=0.1)
    assert recipe.with_augmentation("none").augmentation == images.AUGMENTATIONS["none"]
    with pytest.raises(UsageError, match=r"recipe images: an augmentation must be for its task, cifar10, got paper, which is"):
        recipe.with_augmentation("paper")


def test_a_task_that_names_no_augmentations_has_no_recipes(tmp_path: Path, plugins: None) -> None:
    with pytest.raises(RecipeError, match=r"mine: the task tiny must have a mapping augmentations with 'none' in it, got none"):
        read(write(tmp_path, 'schema_version = 1\ntask = "tiny"\n'))


@pytest.mark.parametrize(
    ("text", "error", "match"),
    [
        ("schema_version = 2\n", RecipeError, r"training recipe mine: schema_version must be 1, got 2; add schema_version = 1"),
        ("", RecipeError, r"schema_version must be 1, got None; add schema_version = 1"),
        ("schema_version = 1\nshedule = 1\n", RecipeError, r"got 'shedule'; did you mean schedule\?"),
        ("schema_version = 1\n[schedule]\nepoch = 3\n", RecipeError, r"schedule: .*got 'epoch'; did you mean epochs"),
        ('schema_version = 1\n[schedule]\nepochs = "3"\n', RecipeError, r"epochs must be a whole number, got '3'"),
        ("schema_version = 1\nschedule = 3\n", RecipeError, r"schedule must be a table, got 3"),
        ("schema_version = 1\n[augmentation]\nmixup = 2\n", UsageError, r"mixup must be a probability in \[0, 1\], got 2"),
        ('schema_version = 1\ntask = "cifar"\n', UnknownName, r"task 'cifar': no such task; did you mean cifar10\?"),
        ('schema_version = 1\ntask = "cifar10"\n[augmentation]\nroll = 1\n', RecipeError, r"augmentation: .*got 'roll'"),
        ('schema_version = 1\n[schedule]\nloss = "mse"\n', UsageError, r"loss must be 'bce' or 'ce', got 'mse'; correct it"),
        ("= 1", RecipeError, r"training recipe mine: the file must be TOML, got: .*; correct that line"),
    ],
)
def test_refused_files(tmp_path: Path, text: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        read(write(tmp_path, text))


def test_unknown_name_and_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"training recipe 'robist': no such recipe; did you mean robust\?"):
        read("robist")
    with pytest.raises(InputError, match=r"x.toml must be a readable text file, got: No such file or directory"):
        read(str(tmp_path / "x.toml"))
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"b.toml must be a readable text file, got: it is not text"):
        read(str(tmp_path / "b.toml"))
