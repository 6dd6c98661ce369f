"""DSFormer from end to end: a recipe of the model's own, proven files for three boards, a checkpoint that opens again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgetk.core import registry
from edgetk.models.layers.dense_sparse import groups_of
from edgetk.models.layers.dense_sparse_int8 import QuantSparseFactor
from edgetk.targets import board
from edgetk.tasks.training.loop import Schedule
from edgetk.tasks.training.tuning import tune
from edgetk.toolkit import recipe, runner
from edgetk.toolkit.checkpoint import load_model, save_model

ENCODER = {"dim": 32, "layers": 1, "heads": 2, "ffn": 64}
TOKENS = 64


def texts(folder: Path) -> Path:
    """Made-up sentences: one word tells their class."""
    words = ("bad", "good")
    for part, n in (("train", 160), ("dev", 40)):
        lines = [f"a {words[i % 2]} film number {i}\t{i % 2}" for i in range(n)]
        (folder / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return folder


def test_the_recipe_of_a_models_own_name() -> None:
    names = {model: recipe.name_for(model) for model in ("dsformer", "dsformer-tiny", "lmuformer", "ecoformer-kws", None)}
    assert names == {
        "dsformer": "dsformer",
        "dsformer-tiny": "dsformer",
        "lmuformer": "default",
        "ecoformer-kws": "default",
        None: "default",
    }


def shortened(model: str, targets: tuple[str, ...], data: Path) -> recipe.Recipe:
    """The recipe `dsformer` with fewer rounds and epochs, for layers that are too small for its defaults."""
    made = recipe.read("dsformer").with_overrides(model=model, targets=targets, data=texts(data), max_drop=1.0)
    step, last = made.passes
    first = {**step.settings["factorize"], "min_weights": 512, "rounds": 2, "calibration": 16}
    settings = {**step.settings, "factorize": first, "epochs": 1, "batch": 16, "device": "cpu"}
    rounded = {**last.settings, "min_weights": 64, "max_change": 1.0, "max_drop": 1.0}
    return recipe.replace(
        made,
        passes=(recipe.PassStep(step.name, settings), recipe.PassStep(last.name, rounded)),
        goals=recipe.replace(made.goals, max_slowdown=1000.0),  # the smallest of encoders: calls of operators take all its time
    )


@pytest.mark.parametrize("targets", [("host", "raspberry-pi-5"), ("jetson",)])
def test_from_text_to_proven_files(targets: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = registry.load("model", "dsformer")
    monkeypatch.setattr(
        "edgetk.core.registry.load",
        lambda kind, name, load=registry.load: (
            (lambda variant, **config: build("tiny", **{**ENCODER, **config})) if name == "dsformer" else load(kind, name)
        ),
    )
    made = shortened("dsformer-tiny", targets, tmp_path)
    result = runner.run(made, tmp_path / "runs")
    data, folder = result.to_json(), Path(result.folder)
    exported = [a for a in data["artifacts"] if a["format"] == "onnx"]
    assert exported
    assert all(a["parity"]["passed"] for a in exported)
    for target in targets:
        rows = [f for f in data["figures"] if f["target"] == board.load(target).name]
        assert {"macs", "parameters", "latency"} <= {f["metric"] for f in rows}
    row, int8 = data["passes"]
    assert row["notes"]["factorize"]["ratio"] >= 2.8
    assert len(groups_of(load_model(folder / row["file"]).module)) == 4
    assert int8["notes"]["pairs"]["ratio"] >= 1.5
    again = load_model(folder / int8["file"]).module
    assert {type(m) for n, m in again.named_modules() if n.endswith(".sparse")} == {QuantSparseFactor}
    assert "int8" in {a["precision"] for a in exported}


def test_a_trained_encoder_stays_right_in_a_proven_int8_file(tmp_path: Path) -> None:
    """What a user does: a checkpoint of a trained encoder to pairs, trained on, to int8, to a file."""
    torch.manual_seed(0)
    bundle = registry.load("model", "dsformer")("tiny", length=TOKENS, **ENCODER)
    bundle = replace(bundle, data=registry.load("task", "sst2").open(texts(tmp_path)))
    tune(bundle.module, bundle, Schedule(epochs=3, batch=16, lr=3e-3, loss="ce", seed=0), "none", "cpu")
    file = tmp_path / "trained.safetensors"
    file.write_bytes(save_model(bundle))
    result = runner.run(shortened(str(file), ("raspberry-pi-5",), tmp_path), tmp_path / "runs")
    data = result.to_json()
    assert [step["kept"] for step in data["passes"]] == [True, True]
    (exported,) = [a for a in data["artifacts"] if a["format"] == "onnx"]
    assert exported["precision"] == "int8"
    assert exported["parity"]["passed"]
    assert exported["parity"]["agreement"] == 1.0
    assert [(score["top1"], score["n"]) for score in (data["accuracy"]["before"], data["accuracy"]["after"])] == [(1.0, 40)] * 2
