"""`edgetk compare`: predictions set against measurements of the same artifacts, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgetk.core.errors import InputError
from edgetk.core.figures import Measured, Predicted
from edgetk.toolkit.commands.compare import compare as command
from edgetk.toolkit.compare import compare, validations


def predicted(value: float, device: str = "a board", metric: str = "latency") -> dict[str, Any]:
    return Predicted(metric, value, "roofline", device).to_json()


def measured(median: float, metric: str = "latency") -> dict[str, Any]:
    return Measured(metric, median, 2 * median, 30, 5, "onnxruntime", "that board").to_json()


def write(folder: Path, name: str, data: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def files(folder: Path) -> tuple[Path, Path]:
    """A report's rows, and figures under the name of their file."""
    rows = [{"artifact": f"run/{name}.onnx", **predicted(value)} for name, value in (("a", 0.9), ("b", 2.1), ("c", 3.0))]
    rows.append({"artifact": "run/a.onnx", **predicted(4.0, metric="energy")})
    seen = {"files": {"a.onnx": [measured(1.0), measured(5.0, "energy")], "b.onnx": [measured(2.0)], "d.onnx": [measured(1.0)]}}
    return write(folder, "report.json", {"figures": rows}), write(folder, "bench.json", seen)


def test_figures_of_one_artifact_are_paired(tmp_path: Path) -> None:
    pairs = compare(*files(tmp_path))
    assert [(p.artifact, p.predicted.metric, round(p.error, 6)) for p in pairs] == [
        ("a.onnx", "latency", -0.1),
        ("b.onnx", "latency", 0.05),
        ("a.onnx", "energy", -0.2),
    ]
    found = validations(pairs)
    assert (found["latency"].n, found["latency"].median_error) == (2, pytest.approx(0.075))
    assert (found["energy"].n, found["energy"].where) == (1, "that board")


def test_the_command_prints_each_figure_and_each_metric(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(*files(tmp_path), device="", bound=0.07, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a.onnx  latency: 900 ms predicted (roofline, unvalidated), 1 s measured (n=30, p95 2 s): -10.0 %"
    assert lines[3] == "latency: median error 7.5 %, 50 % within 7 % (n=2, that board)"
    command(*files(tmp_path), device="", bound=0.10, as_json=True)
    data = json.loads(capsys.readouterr().out)
    assert data["validation"]["latency"] == {
        "n": 2,
        "median_error": pytest.approx(0.075),
        "where": "that board",
        "bound": 0.10,
        "share_within": 1.0,
    }
    assert data["figures"][1] == {
        "artifact": "b.onnx",
        "metric": "latency",
        "predicted": 2.1,
        "measured": 2.0,
        "error": pytest.approx(0.05),
    }


def test_inspections_are_paired_by_model_and_form(tmp_path: Path) -> None:
    forms = [{"form": form, "targets": [{"target": "b", "figures": [predicted(1.0)]}]} for form in ("clip", "stream")]
    guess = write(tmp_path, "inspect.json", {"model": "ds-cnn", "forms": forms})
    seen = write(tmp_path, "seen.json", {"model": "ds-cnn", "forms": [{"form": "stream", "figure": measured(2.0)}]})
    assert [(p.artifact, p.error) for p in compare(guess, seen)] == [("ds-cnn/stream", -0.5)]
    guess = write(tmp_path, "file.json", {"model": "runs/x.onnx", "forms": forms[:1]})
    seen = write(tmp_path, "bench.json", {"rows": [{"artifact": "x.onnx", "figures": [measured(4.0)]}]})
    assert [(p.artifact, p.error) for p in compare(guess, seen)] == [("x.onnx", -0.75)]


def test_predictions_for_two_devices_need_a_choice(tmp_path: Path) -> None:
    rows = [{"artifact": "a.onnx", **predicted(1.0, device)} for device in ("jetson", "jetson:cpu", "pi")]
    guess, seen = write(tmp_path, "p.json", rows), write(tmp_path, "m.json", [{"artifact": "a.onnx", **measured(1.0)}])
    with pytest.raises(
        InputError, match=r"latency of a\.onnx must be predicted for one device, got jetson, jetson:cpu, pi; name"
    ):
        compare(guess, seen)
    assert len(compare(guess, seen, device="pi")) == 1


def test_two_files_of_one_name_and_two_boards_are_told_apart(tmp_path: Path) -> None:
    guess = write(tmp_path, "p.json", [{"artifact": "a.onnx", **predicted(1.0)}])
    other = {**measured(2.0), "device": "this board"}
    seen = write(tmp_path, "m.json", [{"artifact": "a.onnx", **one} for one in (measured(1.0), other)])
    text = r"latency of a\.onnx must be measured on one device from one file, got that board, this board; give one of them"
    with pytest.raises(InputError, match=text):
        compare(guess, seen)
    rows = [{**measured(1.0), "conditions": {"artifact_sha256": digest * 8}} for digest in ("0123", "4567")]
    seen = write(tmp_path, "m.json", [{"artifact": f"{i}/a.onnx", **row} for i, row in enumerate(rows)])
    with pytest.raises(InputError, match=r"got that board \(sha256 01230123\), that board \(sha256 45674567\); give one"):
        compare(guess, seen)


def test_wrong_files_get_one_sentence(tmp_path: Path) -> None:
    guess, seen = files(tmp_path)
    with pytest.raises(InputError, match=r"compare: .*none\.json must be a readable file, got No such file"):
        compare(tmp_path / "none.json", seen)
    bad = tmp_path / "bad.json"
    bad.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"compare: .*bad\.json must be JSON, got .*; write it with --json or -o"):
        compare(guess, bad)
    text = r"report\.json and report\.json must have a figure of one artifact in common, got 4 predicted and 0 measured figures"
    with pytest.raises(InputError, match=text):
        compare(guess, guess)
