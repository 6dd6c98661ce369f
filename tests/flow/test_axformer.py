"""AxFormer from end to end: a recipe of the model's own, proven files for three boards, a checkpoint that opens again."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetk.core import registry
from edgetk.models.axformer import found_in
from edgetk.targets import board
from edgetk.toolkit import recipe, runner
from edgetk.toolkit.checkpoint import load_model

ENCODER = {"dim": 32, "layers": 2, "heads": 2, "ffn": 64, "removed": (), "hardened": {}}


def texts(folder: Path) -> Path:
    """Made-up sentences: one word tells their class."""
    words = ("bad", "good")
    for part, n in (("train", 400), ("dev", 40)):
        lines = [f"a {words[i // 2 % 2]} film number {i}\t{i // 2 % 2}" for i in range(n)]
        (folder / f"{part}.tsv").write_text("\n".join(["sentence\tlabel", *lines]) + "\n")
    return folder


def test_the_recipe_of_a_models_own_name() -> None:
    assert {recipe.name_for(model) for model in ("axformer", "axformer-tiny")} == {"axformer"}


@pytest.mark.parametrize("target", ["host", "raspberry-pi-5", "jetson"])
def test_from_text_to_proven_files(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = registry.load("model", "axformer")
    monkeypatch.setattr(
        "edgetk.core.registry.load",
        lambda kind, name, load=registry.load: (
            (lambda variant, **config: build("tiny", **{**ENCODER, **config})) if name == "axformer" else load(kind, name)
        ),
    )
    (tmp_path / "data").mkdir()
    made = recipe.read("axformer").with_overrides(
        model="axformer-tiny", targets=(target,), data=texts(tmp_path / "data"), max_drop=1.0
    )
    step, last = made.passes
    settings = {**step.settings, "goal": "size", "max_loss": 0.5, "max_drop": 0.0, "neurons": 32, "keep": 2, "device": "cpu"}
    rounded = {**last.settings, "min_weights": 64, "max_drop": 1.0}
    both = (recipe.PassStep(step.name, settings), recipe.PassStep(last.name, rounded))
    made = recipe.replace(
        made,
        passes=both if target == "jetson" else both[:1],
        goals=recipe.replace(made.goals, max_slowdown=1000.0),  # the smallest of encoders: calls of operators take all its time
    )
    result = runner.run(made, tmp_path / "runs")
    data, folder = result.to_json(), Path(result.folder)
    exported = [a for a in data["artifacts"] if a["format"] == "onnx"]
    assert exported
    assert all(a["parity"]["passed"] for a in exported)
    rows = [f for f in data["figures"] if f["target"] == board.load(target).name]
    assert {"macs", "parameters", "latency"} <= {f["metric"] for f in rows}
    row = data["passes"][0]
    assert row["notes"]["removed"]
    assert row["kept"]
    before, after = (m["size_bytes"] for m in (data["original"][0], row["forms"][0]))
    assert before - after >= 4 * row["notes"]["parameters_removed"]  # and the nodes of what is gone
    assert (folder / "notebooks" / "01-prune-blocks.jsonl").read_text().count("\n") == row["notes"]["evaluations"]
    smaller = load_model(folder / row["file"]).module
    again = build("tiny", **{**ENCODER, **found_in(folder / "report.json")}).module
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in smaller.state_dict().items()}
