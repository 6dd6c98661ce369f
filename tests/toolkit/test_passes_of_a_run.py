"""Whole runs on the tiny model: what is kept and why, what is written, what a broken plug-in is told."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fake_plugins
import onnx
import pytest
import quick

from edgetk.core.artifact import Parity
from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import (
    EdgetkError,
    GoalMissed,
    InputError,
    ParityError,
    PostconditionError,
    PreconditionError,
    UnknownName,
)
from edgetk.core.figures import Measured, Missing, Predicted, Score
from edgetk.core.target import Target
from edgetk.targets import board
from edgetk.testing import tiny_bundle
from edgetk.toolkit import cost, judge, runner
from edgetk.toolkit.recipe import Goals, PassStep, Recipe
from edgetk.toolkit.result import FormMeasures, PassRow, RunResult
from edgetk.toolkit.workspace import Workspace

pytestmark = pytest.mark.usefixtures("plugins", "quick_lower")


def recipe(*passes: tuple[str, dict[str, Any]] | str, **changes: Any) -> Recipe:
    """A recipe for the tiny model on a board that is predicted, so that nothing depends on this machine's speed."""
    steps = tuple(PassStep(p) if isinstance(p, str) else PassStep(*p) for p in passes)
    return Recipe("test", model="edgetk.testing:tiny_bundle", targets=("raspberry-pi-4",), passes=steps).with_overrides(
        **changes
    )


def run(tmp_path: Path, *passes: tuple[str, dict[str, Any]] | str, **changes: Any) -> RunResult:
    return runner.run(recipe(*passes, **changes), tmp_path / "runs")


def test_a_run_leaves_proven_files_and_a_report(tmp_path: Path) -> None:
    result = run(tmp_path, "rescale", ("shrink", {"hidden": 7}))
    folder = Path(result.folder)
    assert folder.parent == tmp_path / "runs"
    assert folder.name == f"tiny-raspberry-pi-4-{result.recipe_sha256[:12]}"
    report = json.loads((folder / "report.json").read_text())
    assert report == json.loads(json.dumps(result.to_json()))
    assert (report["schema_version"], report["model"], report["target"]) == (1, "tiny", "raspberry-pi-4")
    assert {"top1", "n", "ci95"} <= report["accuracy"]["after"].keys()
    assert [(p["name"], p["kept"], p["kept_forms"]) for p in report["passes"]] == [
        ("rescale", True, ["clip", "stream"]),
        ("shrink", True, ["clip", "stream"]),
    ]
    assert [a["path"] for a in report["artifacts"]] == ["model.onnx", "model.stream.onnx"]
    for artifact in report["artifacts"]:
        content = (folder / artifact["path"]).read_bytes()
        assert artifact["sha256"] == hashlib.sha256(content).hexdigest()
        assert artifact["size_bytes"] == len(content)
        assert artifact["parity"]["passed"]
    figures = {(f["artifact"], f["metric"], f["kind"]) for f in report["figures"]}
    assert ("model.onnx", "latency", "predicted") in figures
    assert ("model.stream.onnx", "macs", "predicted") in figures
    assert [record["name"] for record in report["lineage"]] == ["rescale", "shrink"]
    assert report["op_energy"]["model.onnx"]["joules"] > 0
    assert report["environment"]["seed"] == 0
    assert report["recipe"]["passes"][0] == {"name": "rescale", "factor": 2.0}
    assert (folder / "testdata" / "clip" / "inputs.npz").is_file()
    metadata = {p.key: p.value for p in onnx.load(folder / "model.onnx").metadata_props}
    assert metadata["recipe_sha256"] == result.recipe_sha256
    assert json.loads(metadata["accuracy"])["n"] == 96
    assert not (folder / "scratch").exists()


def test_rows_survive_json(tmp_path: Path) -> None:
    result = run(tmp_path, ("shrink", {"hidden": 7}), "spoil")
    for row in result.passes:
        assert PassRow.from_json(json.loads(json.dumps(row.to_json()))) == row
    for form in result.original:
        assert FormMeasures.from_json(json.loads(json.dumps(form.to_json()))) == form


def test_the_same_recipe_gives_the_same_files(tmp_path: Path) -> None:
    first = runner.run(recipe("nudge"), tmp_path / "a")
    second = runner.run(recipe("nudge"), tmp_path / "b")
    other = runner.run(recipe("nudge", seed=1), tmp_path / "c")
    hashes = [[a.sha256 for a in r.artifacts] for r in (first, second, other)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert first.recipe_sha256 == second.recipe_sha256 != other.recipe_sha256


def test_a_pass_that_costs_too_much_accuracy_is_taken_back(tmp_path: Path) -> None:
    result = run(tmp_path, "spoil", ("shrink", {"hidden": 7}))
    spoiled, shrunk = result.passes
    assert not spoiled.kept
    assert spoiled.file == "checkpoints/01-spoil.safetensors"  # still there for who wants it
    assert (Path(result.folder) / spoiled.file).is_file()
    assert spoiled.drop is not None
    assert spoiled.drop > 0.5
    assert "accuracy on validation fell by" in spoiled.reason
    assert "more than 1.00 points" in spoiled.reason
    assert spoiled.forms  # its cost is still shown
    assert shrunk.kept
    assert [record.name for record in result.lineage] == ["shrink"]
    assert result.after == result.before


def test_a_pass_that_is_slower_in_every_form_is_taken_back(tmp_path: Path) -> None:
    result = run(tmp_path, ("shrink", {"hidden": 4096}))
    (row,) = result.passes
    assert not row.kept
    assert "clip got slower" in row.reason
    assert "stream got slower" in row.reason
    assert "predicted (roofline" in row.reason
    assert result.lineage == ()


def test_a_form_that_gets_slower_keeps_the_model_from_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slower = cost.Costs.slower

    def only_stream(self: cost.Costs, before: FormMeasures, after: FormMeasures, graphs: Any) -> str | None:
        if before.form == "stream" and after.parameters < before.parameters:
            return "9 ms measured against 1 ms measured"
        return slower(self, before, after, graphs)

    monkeypatch.setattr(cost.Costs, "slower", only_stream)
    result = run(tmp_path, "rescale", ("shrink", {"hidden": 7}))
    row = result.passes[1]
    assert row.kept
    assert row.kept_forms == ("clip",)
    assert row.reason == "stream got slower, 9 ms measured against 1 ms measured; that form keeps the model from before"
    states = {a.form: a.signature for a in result.artifacts}["stream"].state
    assert states[0].spec.shape == (1, 8)
    passes = {
        name: {p.key: p.value for p in onnx.load(Path(result.folder) / name).metadata_props}["passes"]
        for name in ("model.onnx", "model.stream.onnx")
    }
    assert passes == {"model.onnx": "rescale, shrink", "model.stream.onnx": "rescale"}
    assert "the stream form is exported from the model after rescale: the passes after it made that form slower" in result.notes


def test_nothing_worth_changing_keeps_the_old_body(tmp_path: Path) -> None:
    result = run(tmp_path, ("shrink", {"hidden": 8}))
    assert (result.passes[0].kept, result.passes[0].reason) == (False, "nothing worth changing")


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ("liar", r"pass liar: is lossless, so outputs must stay equal up to 1e-04, got \d\.\de[-+]\d\d in the \w+ form; mend"),
        (
            ("break", {"how": "raise"}),
            r"pass break: must finish, got ZeroDivisionError: division by zero; the passes before it",
        ),
        (("break", {"how": "nan"}), r"pass break: clip output scores must be finite, got NaN or infinity"),
        (("break", {"how": "states"}), r"pass break: the stream form must accept inputs of shape .*, got RuntimeError"),
        (("break", {"how": "notes"}), r"pass break: notes must be plain numbers, texts, lists and tables, got: "),
    ],
)
def test_a_pass_that_breaks_its_promise(tmp_path: Path, step: Any, text: str) -> None:
    with pytest.raises(PostconditionError, match=text) as caught:
        run(tmp_path, "rescale", step)
    assert "\n" not in str(caught.value)
    folder = next((tmp_path / "runs").iterdir())
    assert (folder / "checkpoints" / "01-rescale.safetensors").is_file()  # what was done before is kept


def test_everything_is_checked_before_any_work(tmp_path: Path) -> None:
    for wrong, kind, text in (
        (recipe("rescale", targets=("jetsn",)), UnknownName, "did you mean jetson"),
        (recipe("rescale", model="edgetk.testing:TinyData"), InputError, "must give an edgetk Bundle or a torch nn.Module"),
        (recipe("rescale", task="speech-commands"), InputError, "must be made for the task speech-commands, got one for tiny"),
        (recipe("rescale", "strip"), PreconditionError, r"pass strip: the model must be onnx, got torch \(tiny\); passes that"),
        (recipe("rescale", data="/data"), InputError, r"data is made up, so the folder must be none, got /data"),
    ):
        with pytest.raises(kind, match=text):
            runner.run(wrong, tmp_path / "runs")
    assert fake_plugins.calls == []
    assert not (tmp_path / "runs").exists()


def _clip_file(tmp_path: Path, task: str = "tiny") -> str:
    graph = quick.clip_graph(tiny_bundle())
    graph.doc_string = "text"
    onnx.helper.set_model_props(graph, {"task": task} if task else {})
    path = tmp_path / "user.onnx"
    path.write_bytes(graph.SerializeToString())
    return str(path)


def test_torch_passes_on_a_users_graph_fail_with_those_that_work(tmp_path: Path) -> None:
    text = r"pass rescale: the model must be torch, got onnx \(user\); passes that accept onnx: .*strip"
    with pytest.raises(PreconditionError, match=text):
        run(tmp_path, "rescale", model=_clip_file(tmp_path))


def test_a_users_graph_goes_through_passes_and_export(tmp_path: Path) -> None:
    result = run(tmp_path, "strip", model=_clip_file(tmp_path))
    assert [row.kept for row in result.passes] == [True]
    assert result.before == result.after
    assert result.labels == ("falling", "flat", "rising")
    again = runner.run(recipe("strip", model=_clip_file(tmp_path)), tmp_path / "runs", resume=True)
    assert again.passes == result.passes
    assert [r.name for r in again.lineage] == ["strip"]


def test_without_data_the_guard_says_that_it_is_off(tmp_path: Path) -> None:
    result = run(tmp_path, "strip", model=_clip_file(tmp_path, task=""))
    assert result.passes[0].reason == "kept without an accuracy check: no data"
    assert (result.before, result.after) == (None, None)
    assert any("no data: accuracy was not checked" in text for text in result.warnings)
    with pytest.raises(InputError, match=r"must have a task to read data, got none; name it with --task"):
        run(tmp_path, "strip", model=_clip_file(tmp_path, task=""), data="x")


def test_missed_goals_come_after_everything_is_written(tmp_path: Path) -> None:
    result = run(tmp_path, "rescale", max_latency_s=1e-9, max_size_bytes=10, min_top1=0.999)
    assert (Path(result.folder) / "report.json").is_file()
    assert len(result.goals_missed) == 5
    with pytest.raises(
        GoalMissed, match=r"min_top1: accuracy must be at least 99\.90 %, got .*max_size_bytes: model\.onnx must"
    ) as e:
        judge.require_goals(result)
    assert e.value.exit_code == 3
    assert "max_latency_s: model.stream.onnx on raspberry-pi-4 must take at most 1 ns, got" in str(e.value)
    judge.require_goals(run(tmp_path, "rescale", max_latency_s=1, max_size_bytes=10**6, min_top1=0.5))


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = Parity("the model", "a fake", 8, 1.0, 1.0, 0.1, 0.5)
    monkeypatch.setattr("edgetk.export.parity.prove", lambda *_: wrong)
    with pytest.raises(ParityError, match=r"exporter onnx: model\.onnx must compute what the model computes, got NOT equal"):
        run(tmp_path, "rescale")
    folder = next((tmp_path / "runs").iterdir())
    assert not (folder / "model.onnx").exists()
    assert (folder / "checkpoints" / "01-rescale.safetensors").is_file()


def test_a_broken_exporter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("edgetk.export.parity.prove", fail)
    with pytest.raises(
        PostconditionError, match=r"exporter onnx: must finish, got ZeroDivisionError: oops; the finished passes"
    ):
        run(tmp_path)


def test_this_machine_is_measured_and_others_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "BUDGET_S", 0.05)
    result = run(tmp_path, targets=("host", "raspberry-pi-4"))
    assert isinstance(result.original[0].latency, Measured)
    kinds = {(r.target, type(r.figure)) for r in result.figures if r.figure.metric == "latency"}
    assert kinds == {("host", Measured), ("raspberry-pi-4", Predicted)}


@pytest.mark.parametrize(("n", "wrong", "missed"), [(160, 4, False), (160, 5, True), (1463, 10, False), (1463, 15, True)])
def test_a_few_examples_do_not_make_a_goal_missed(n: int, wrong: int, missed: bool) -> None:
    before, after = Score(n, n), Score(n - wrong, n)
    goals = Goals()
    texts = judge.missed(goals, before, after, (), (), "host")
    assert bool(texts) == missed
    doubt = judge.doubt(goals, before, after)
    if missed:
        assert texts[0].startswith("max_drop: accuracy on test must fall by at most 1.00 points, got ")
        assert doubt is None
    elif n == 160:
        assert doubt is not None
        assert doubt.endswith("but that is 4 of 160 examples: too few to tell; judge it on more data")


def test_a_graph_pass_that_breaks_its_promise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(what: str) -> Any:
        def call(self: fake_plugins.Strip, bundle: Bundle) -> PassResult:
            graph = bundle.body.graph
            if what == "name":
                graph.output[0].name = "other"
            elif what == "checker":
                graph.node[0].input[0] = "nowhere"
            else:
                graph.node[2].op_type = "Sigmoid"
            return PassResult(bundle.body, True)

        return call

    for what, text in (
        ("name", r"must pass the ONNX checker|must keep the signature"),
        ("checker", r"pass strip: the graph must pass the ONNX checker, got: .*nowhere"),
        ("values", r"pass strip: is lossless, so outputs must stay equal up to 1e-04, got"),
    ):
        monkeypatch.setattr(fake_plugins.Strip, "__call__", spoil(what))
        with pytest.raises(PostconditionError, match=text):
            run(tmp_path, "strip", model=_clip_file(tmp_path))


def _measures(latency: Measured | Predicted | Missing) -> FormMeasures:
    return FormMeasures("clip", "float32", 1, 1, 4, 100, latency)


def _measured(median: float) -> Measured:
    return Measured("latency", median, median, 100, 5, "fake", "here")


def _again(monkeypatch: pytest.MonkeyPatch, values: Sequence[float]) -> cost.Costs:
    """Costs whose next looks give these medians."""
    left = list(values)
    monkeypatch.setattr(cost.Costs, "latency", lambda *_: _measured(left.pop(0)))
    return cost.Costs(board.load("raspberry-pi-4"), Workspace(Path()))


@pytest.mark.parametrize(
    ("old", "new", "again", "slow"),
    [
        (1.0, 1.05, (1.0, 1.0), False),  # noise
        (2.0, 1.7, (1.0, 1.5, 1.0, 1.5), True),  # the look at the old one was disturbed
        (1.0, 2.0, (1.0, 2.0, 1.0, 2.0), True),
        (1.0, 2.0, (1.0, 1.02, 1.0, 2.0), False),  # the first look was disturbed
        (2.0, 1.0, (), False),
    ],
)
def test_slower_measurements_are_repeated(
    monkeypatch: pytest.MonkeyPatch, old: float, new: float, again: tuple[float, ...], slow: bool
) -> None:
    costs = _again(monkeypatch, again)
    graphs: Any = (None, None)
    text = costs.slower(_measures(_measured(old)), _measures(_measured(new)), graphs)
    assert (text is not None) == slow
    if text is not None:
        assert text.endswith(" against 1 s measured (n=100, p95 1 s)")


def test_predictions_count_from_a_tenth_on_and_are_never_compared_with_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = _again(monkeypatch, ())
    graphs: Any = (None, None)
    one, near, two = (_measures(Predicted("latency", v, "roofline", "x")) for v in (1.0, 1.09, 1.11))
    assert costs.slower(one, near, graphs) is None
    assert costs.slower(one, two, graphs) is not None
    assert costs.slower(two, one, graphs) is None
    assert costs.slower(one, _measures(_measured(9.0)), graphs) is None
    assert costs.slower(one, _measures(Missing("latency", "no meter")), graphs) is None
    patient = cost.Costs(costs.target, costs.workspace, max_slowdown=1.5)
    assert patient.slower(one, _measures(Predicted("latency", 1.6, "roofline", "x")), graphs) is None
    assert patient.slower(one, _measures(Predicted("latency", 1.7, "roofline", "x")), graphs) is not None


def test_a_board_file_is_a_target_and_counts_for_the_identity(tmp_path: Path) -> None:
    builtin = Path(board.__file__).parent / "boards" / "raspberry-pi-4.toml"
    mine = tmp_path / "mine.toml"
    text = builtin.read_text().replace("aliases", "#aliases")
    mine.write_text(text)
    first = runner.plan(recipe(targets=(str(mine),)))
    assert isinstance(first.target, Target)
    assert first.target.name == "mine"
    mine.write_text(text + "\n# changed\n")
    assert runner.plan(recipe(targets=(str(mine),))).identity != first.identity
    with pytest.raises(EdgetkError, match="must be a readable file"):
        runner.plan(recipe(targets=(str(tmp_path / "none.toml"),)))
