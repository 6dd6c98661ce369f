"""DSFormer from end to end: a recipe of the model's own, proven files for three boards, a checkpoint that opens again."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetk.core import registry
from edgetk.models.layers.dense_sparse import groups_of
from edgetk.models.layers.dense_sparse_int8 import QuantSparseFactor
from edgetk.targets import board
from edgetk.toolkit import recipe, runner
from edgetk.toolkit.checkpoint import load_model

ENCODER = {"dim": 32, "layers": 1, "heads": 2, "ffn": 64}


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


@pytest.mark.parametrize("targets", [("host", "raspberry-pi-5"), ("jetson",)])
def test_from_text_to_proven_files(targets: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = registry.load("model", "dsformer")
    monkeypatch.setattr(
        "edgetk.core.registry.load",
        lambda kind, name, load=registry.load: (
            (lambda variant, **config: build("tiny", **{**ENCODER, **config})) if name == "dsformer" else load(kind, name)
        ),
    )
    (tmp_path / "data").mkdir()
    made = recipe.read("dsformer").with_overrides(
        model="dsformer-tiny", targets=targets, data=texts(tmp_path / "data"), max_drop=1.0
    )
    step, last = made.passes
    first = {**step.settings["factorize"], "min_weights": 512, "rounds": 2, "calibration": 16}
    settings = {**step.settings, "factorize": first, "epochs": 1, "batch": 16, "device": "cpu"}
    rounded = {**last.settings, "min_weights": 64, "max_change": 1.0, "max_drop": 1.0}
    made = recipe.replace(
        made,
        passes=(recipe.PassStep(step.name, settings), recipe.PassStep(last.name, rounded)),
        goals=recipe.replace(made.goals, max_slowdown=1000.0),  # the smallest of encoders: calls of operators take all its time
    )
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
