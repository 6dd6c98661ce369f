"""`edgetk train`: train a zoo model on a task's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgetk.core import registry
from edgetk.core.figures import Score
from edgetk.toolkit.commands import shared


def train(
    model: Annotated[
        str, typer.Option("--model", "-m", help="A zoo name; package.module:function or x.safetensors are trained further.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="x.safetensors, or a folder; the card is written beside it.")
    ],
    task: Annotated[str, typer.Option("--task", help="What the model is for.")] = "speech-commands",
    folder: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="The task's data, or a folder of your own words.", show_default=False),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="Classes: 12, 16, 35, or words with commas; default: all words of the data.")
    ] = None,
    recipe: Annotated[str, typer.Option("--recipe", "-r", help="A training recipe's name, or a .toml file.")] = "paper",
    epochs: Annotated[int | None, typer.Option("--epochs", help="Replaces the recipe's.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Clips per step; replaces the recipe's.")] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Learning rate; replaces the recipe's.")] = None,
    shape: Annotated[str | None, typer.Option("--shape", help="Of the learning rate: step or cosine.")] = None,
    average: Annotated[
        float | None, typer.Option("--average", help="Decay of the moving average of the weights; 0 for none.")
    ] = None,
    augment: Annotated[str | None, typer.Option("--augment", help="Augmentation of another recipe, or none.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Everything random follows from it.")] = None,
    teacher: Annotated[str | None, typer.Option("--teacher", help="A trained model to learn from as well.")] = None,
    distill: Annotated[
        float | None, typer.Option("--distill", help="Share of the teacher in the targets; 0.5 where there is a teacher.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    store: Annotated[
        Literal["float32", "float16", "int8"], typer.Option("--store", help="Numbers that weights are stored in.")
    ] = "float32",
    snapshot_every: Annotated[int, typer.Option("--snapshot-every", min=1, help="Epochs between snapshots.")] = 5,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    as_json: shared.Json = False,
) -> None:
    """Train a model, keep the best epoch by validation, score it once on the test split, write weights and a model card."""
    from edgetk.toolkit import train as training
    from edgetk.toolkit import training_recipe

    if teacher is not None and distill is None:
        distill = 0.5
    chosen = training_recipe.read(recipe).with_schedule(
        epochs=epochs, batch=batch, lr=lr, shape=shape, average=average, seed=seed, distill=distill
    )
    options = training.Options(
        model,
        output,
        task,
        folder,
        _labels(labels, task),
        chosen if augment is None else chosen.with_augmentation(augment),
        teacher,
        device,
        resume,
        store,
        snapshot_every,
    )
    card = training.train(options, shared.listener())
    if as_json:
        shared.print_json(card)
        return
    weights = output if output.suffix == ".safetensors" else output / card["weights"]["file"]
    _print(card, weights)


def _labels(text: str | None, task: str) -> tuple[str, ...] | None:
    """ "12" and its like as the task names them, or words with commas between."""
    if text is None:
        return None
    sets = getattr(registry.load("task", task), "label_sets", {})
    return tuple(sets[text]) if text in sets else tuple(word.strip() for word in text.split(",") if word.strip())


def _print(card: dict[str, Any], weights: Path) -> None:
    training = card["training"]
    print(f"{card['name']} ({card['parameters']:,} parameters) on {card['data']['origin']}")
    for name, figures in card["accuracy"].items():
        print(f"  {name.replace('_', ' '):<12} {Score(figures['correct'], figures['n'])}, {figures['note']}")
    print(f"  best epoch   {training['best_epoch']} by validation, {training['seconds']:.0f} s on {training['device']}")
    print(f"weights: {weights} ({card['weights']['size_bytes']:,} bytes), card: {weights.with_suffix('.json')}")
