"""Ctrl-C in every phase, and a full disk: what was finished stays, and the run goes on from there to the same result."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_plugins
import pytest

from edgetk.core.errors import EdgetkError, InputError
from edgetk.toolkit import runner
from edgetk.toolkit.progress import Silent
from edgetk.toolkit.recipe import PassStep, Recipe
from edgetk.toolkit.result import RunResult

pytestmark = pytest.mark.usefixtures("plugins", "quick_lower")

RECIPE = Recipe(
    "test",
    model="edgetk.testing:tiny_bundle",
    targets=("raspberry-pi-4",),
    passes=(PassStep("nudge"), PassStep("shrink"), PassStep("rescale")),
)


class Log(Silent):
    """Keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


def _comparable(result: RunResult) -> dict[str, Any]:
    """The report without what time and place put into it."""
    data: dict[str, Any] = json.loads(json.dumps(result.to_json()))
    del data["environment"]
    for row in data["passes"]:
        del row["seconds"]
    return data


def _interrupting(phase: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        fake_plugins.interrupt(phase)
        return real(*args, **kwargs)

    return call


#: phase -> what is called in it, and how many passes are finished by then
PHASES = {
    "open": ("edgetk.toolkit.source.open_model", 0),
    "lower": ("edgetk.export.lower.lower", 0),
    "pass": (None, 1),
    "checkpoint": ("edgetk.toolkit.checkpoint.save_model", 0),
    "final evaluation": ("edgetk.toolkit.runner.graph_predictor", 3),
    "export": ("edgetk.export.parity.prove", 3),
    "figures": ("edgetk.targets.predict.predict", 0),
    "report": ("edgetk.toolkit.runner.environment", 3),
}


@pytest.mark.parametrize("phase", PHASES)
def test_ctrl_c_in_every_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str) -> None:
    undisturbed = _comparable(runner.run(RECIPE, tmp_path / "undisturbed"))
    fake_plugins.calls.clear()
    where, done = PHASES[phase]
    if where is not None:
        module, _, name = where.rpartition(".")
        real = getattr(__import__(module, fromlist=[name]), name)
        monkeypatch.setattr(where, _interrupting(phase, real))
    fake_plugins.interrupts.add(phase)
    with pytest.raises(KeyboardInterrupt):
        runner.run(RECIPE, tmp_path / "runs")
    before = list(fake_plugins.calls)
    log = Log()
    result = runner.run(RECIPE, tmp_path / "runs", resume=True, progress=log)
    assert _comparable(result) == undisturbed
    finished = {"nudge", "shrink", "rescale"} if done == 3 else set(("nudge", "shrink", "rescale")[:done])
    assert not finished & set(fake_plugins.calls[len(before) :]), "a finished pass ran again"
    assert any(line.startswith("resumed after") for line in log.lines) == bool(done)
    assert not fake_plugins.interrupts


def test_ctrl_c_while_measuring_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgetk.targets.meters import onnxruntime

    monkeypatch.setattr("edgetk.toolkit.cost.BUDGET_S", 0.02)
    meter = type(onnxruntime.METER)
    real = meter.measure
    monkeypatch.setattr(meter, "measure", lambda *a: (fake_plugins.interrupt("meter"), real(*a[:3], 0.02))[1])
    recipe = RECIPE.with_overrides(target="host", passes=(PassStep("rescale"),))
    fake_plugins.interrupts.add("meter")
    with pytest.raises(KeyboardInterrupt):
        runner.run(recipe, tmp_path)
    result = runner.run(recipe, tmp_path, resume=True)
    assert [row.name for row in result.passes] == ["rescale"]
    assert not (Path(result.folder) / "scratch").exists()


def test_a_full_disk_in_a_checkpoint_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    undisturbed = _comparable(runner.run(RECIPE, tmp_path / "undisturbed"))
    real = os.replace

    def replace(source: str, target: Path) -> None:
        if "02-shrink" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(EdgetkError, match=r"02-shrink\.safetensors must fit on the disk, got: .*continue with --resume"):
        runner.run(RECIPE, tmp_path / "runs")
    monkeypatch.setattr(os, "replace", real)
    fake_plugins.calls.clear()
    result = runner.run(RECIPE, tmp_path / "runs", resume=True)
    assert fake_plugins.calls == ["shrink", "rescale"]
    assert _comparable(result) == undisturbed


def test_a_finished_run_resumes_to_the_same_report(tmp_path: Path) -> None:
    first = _comparable(runner.run(RECIPE, tmp_path))
    fake_plugins.calls.clear()
    assert _comparable(runner.run(RECIPE, tmp_path, resume=True)) == first
    assert fake_plugins.calls == []


def test_without_resume_it_starts_again(tmp_path: Path) -> None:
    runner.run(RECIPE, tmp_path)
    fake_plugins.calls.clear()
    runner.run(RECIPE, tmp_path)
    assert fake_plugins.calls == ["nudge", "shrink", "rescale"]


def test_resume_of_another_recipe_starts_from_the_beginning(tmp_path: Path) -> None:
    runner.run(RECIPE, tmp_path)
    log = Log()
    runner.run(RECIPE.with_overrides(seed=5), tmp_path, resume=True, progress=log)
    assert "nothing to resume for this recipe: starting from the beginning" in log.lines


def test_damaged_checkpoints_are_told(tmp_path: Path) -> None:
    folder = Path(runner.run(RECIPE, tmp_path).folder)
    path = folder / "checkpoints" / "03-rescale.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=r"03-rescale\.safetensors: must be a whole safetensors file of 100 bytes"):
        runner.run(RECIPE, tmp_path, resume=True)
    (folder / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json must be JSON, got: .*; run again without --resume"):
        runner.run(RECIPE, tmp_path, resume=True)
    (folder / "state.json").write_text(json.dumps({"schema_version": 1}))
    assert runner.run(RECIPE, tmp_path, resume=True).passes
