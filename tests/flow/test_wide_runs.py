"""Wide encoders from end to end: trained on reviews by their recipe, folded and quantized for a board, proven."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetk.core import registry
from edgetk.models.layers.pooled_attention import PooledAttention
from edgetk.toolkit import recipe, runner, train, training_recipe
from edgetk.toolkit.checkpoint import load_model

SMALL = {"heads": 3, "dim": 32, "head_width": 8, "ffn": 32, "dropout": 0.0}


def reviews(folder: Path) -> Path:
    """Reviews of which one byte tells the mood."""
    for part in ("train", "test"):
        for name, mark in (("neg", "-"), ("pos", "+")):
            (folder / part / name).mkdir(parents=True)
            for i in range(24):
                (folder / part / name / f"{i:02}.txt").write_text(f"{part} {i} " + mark * (20 + i))
    return folder


@pytest.mark.parametrize(("task", "name"), [("imdb-bytes", "reviews"), ("imdb-tokens", "reviews-tokens")])
def test_the_recipes_are_for_the_tasks(task: str, name: str) -> None:
    made = training_recipe.read(name)
    assert made.task == task
    assert (made.schedule.loss, made.schedule.decoupled) == ("ce", True)


def test_the_keyword_spotter_has_a_recipe_of_its_own() -> None:
    made = training_recipe.read("wide")
    assert made.task == registry.load("model", "wide")("kws").task == "speech-commands"


def test_from_reviews_to_proven_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = registry.load("model", "wide")
    monkeypatch.setattr(
        "edgetk.core.registry.load",
        lambda kind, name, load=registry.load: (
            (lambda variant, **config: build(variant, **{**SMALL, **config}))
            if (kind, name) == ("model", "wide")
            else load(kind, name)
        ),
    )
    data = reviews(tmp_path / "reviews")
    how = training_recipe.read("reviews").with_schedule(epochs=6, batch=8, lr=1e-2)
    card = train.train(train.Options("wide", tmp_path / "wide.safetensors", "imdb-bytes", data, None, how, device="cpu"))
    assert card["accuracy"]["test"]["correct"] == 48
    made = recipe.read("int8").with_overrides(model=str(tmp_path / "wide.safetensors"), target="raspberry-pi-5", data=data)
    fold, quantize = made.passes
    made = recipe.replace(
        made, passes=(fold, recipe.PassStep("quantize", {**quantize.settings, "min_weights": 64, "calibration": 16}))
    )
    result = runner.run(made, tmp_path / "runs").to_json()
    folded, rounded = result["passes"]
    assert folded["kept"]
    assert rounded["kept"]
    assert all(a["parity"]["passed"] for a in result["artifacts"] if a["format"] == "onnx")
    folder = next((tmp_path / "runs").iterdir())
    again = load_model(folder / folded["file"]).module
    assert isinstance(again.layers[0].attention, PooledAttention)  # type: ignore[union-attr, index]
