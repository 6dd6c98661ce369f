"""`edgetk bench` and `compress --measure`: where files are measured, what is said of it, what is refused."""

from __future__ import annotations

import importlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import quick
from typer.testing import CliRunner

from edgetk.core.errors import InputError, UsageError
from edgetk.core.figures import Measured, Missing, Predicted
from edgetk.targets import board
from edgetk.targets.meters import _bench, _figures
from edgetk.targets.meters._bench import Item, Result, Settings
from edgetk.targets.meters._transport import Local, Ssh
from edgetk.targets.power import Trace
from edgetk.testing import tiny_bundle
from edgetk.toolkit import bench, place, runner
from edgetk.toolkit.cli import app
from edgetk.toolkit.recipe import Goals, Recipe

SIGNATURE = tiny_bundle().signature
STATE: dict[str, Any] = {
    "kind": "jetson",
    "model": "A Jetson",
    "kernel": "5.15",
    "power_mode": "25W",
    "l4t": "36.4.3",
    "jetpack": None,
    "governor": ["performance"],
    "cpu_clock_hz": {"min": 6e8, "max": 1.5e9, "current": 1.5e9},
    "gpu_clock_hz": None,
    "cores_online": "0-5",
    "temperature_c": {"cpu": 50.0},
    "throttling": [],
    "load_average": 0.1,
    "nvml": None,
}


def data(**changes: Any) -> dict[str, Any]:
    """What an agent brings back from a board that is known and stable."""
    return {
        "latency": {"warmup": 5, "samples_s": [1e-3] * 90 + [2e-3] * 10},
        "rss_before_bytes": 10_000_000,
        "rss_bytes": 50_000_000,
        "state": {"before": STATE, "after": STATE, "clocks_hz": [1.5e9], "gpu_clocks_hz": [], "unknown": [], "moved": []},
        "runtime": {"name": "onnxruntime", "version": "1.20"},
        "cores": [0],
        **changes,
    }


def energy(**changes: Any) -> dict[str, Any]:
    """Two windows of one second in which a board that idles at 3 W draws 5 W for 100 and 125 runs."""
    rows = [
        {"wall_begin": 100.0 + i, "wall_end": 101.0 + i, "runs": runs, "joules": 5.0, "watts": {"total": 5.0}, "updates": 50}
        for i, runs in enumerate((100, 125))
    ]
    idle = {"wall_begin": 90.0, "wall_end": 92.0, "runs": None}
    return {"sensor": "INA3221 VDD_IN", "sample_s": 0.01, "idle": idle, "idle_w": 3.0, "windows": rows, "moved": [], **changes}


def result(content: dict[str, Any], **changes: Any) -> Result:
    graph = quick.stream_graph(tiny_bundle()).SerializeToString()
    given = {"settings": Settings(windows=2, window_s=1.0), "outputs": b"", "where": "ssh://b", "sha256": "00"}
    return Result(Item("m.onnx", graph, SIGNATURE), data=content, **(given | changes))


def test_figures_of_a_known_and_stable_board() -> None:
    latency, factor, rss, whole, above = _figures.figures(result(data(energy=energy())))
    assert isinstance(latency, Measured)
    assert (latency.median, latency.p95, latency.n, latency.warmup) == (1e-3, 2e-3, 100, 5)
    assert latency.device == "A Jetson (power mode 25W)"
    assert latency.conditions["mean_s"] == pytest.approx(1.1e-3)
    assert isinstance(factor, Measured)
    assert SIGNATURE.period_s is not None
    assert factor.median == pytest.approx(1e-3 / SIGNATURE.period_s)
    assert isinstance(rss, Measured)
    assert rss.median == 50_000_000
    assert isinstance(whole, Measured)
    assert whole.median == pytest.approx((5 / 100 + 5 / 125) / 2)
    assert whole.conditions["idle"] == "not subtracted"
    assert isinstance(above, Measured)
    assert above.median == pytest.approx((2 / 100 + 2 / 125) / 2)
    assert (above.n, above.conditions["idle_w"], above.conditions["sensor"]) == (2, 3.0, "INA3221 VDD_IN")


def reasons(content: dict[str, Any], log: Trace | str | None = None, **changes: Any) -> dict[str, str]:
    return {f.metric: f.reason for f in _figures.figures(result(content, **changes), log) if isinstance(f, Missing)}


def test_why_there_is_no_figure() -> None:
    few = data(latency={"warmup": 5, "samples_s": [1.0] * 3}, rss_bytes=None)
    text = "only 3 runs in 2 s, a median needs 20; give a larger budget"
    assert reasons(few) == {
        "latency": text,
        "realtime_factor": text,
        "rss": "the board does not tell a process's memory (/proc/self/status)",
    }
    still = reasons(data(energy=energy(reason="INA3221 VDD_IN: 0 new values")))
    assert still == {"energy": "INA3221 VDD_IN: 0 new values", "energy_above_idle": "INA3221 VDD_IN: 0 new values"}
    warm = reasons(data(energy=energy(moved=["throttled by heat"])))
    assert set(warm.values()) == {"the board's state was not stable: throttled by heat"}
    busy = reasons(data(energy=energy(idle_w=5.0)))
    assert busy == {"energy_above_idle": "the idle board drew 5 W, not less than the busy one: something else ran meanwhile"}
    assert reasons(data(energy=energy(idle_w="too few values"))) == {"energy_above_idle": "idle power: too few values"}
    assert set(reasons({"error": "RuntimeError: x"})) == {"latency", "realtime_factor", "rss", "energy", "energy_above_idle"}


def test_energy_from_a_log_by_this_machines_clock() -> None:
    """The board's clock is ten seconds behind this machine's, whose meter saw 3 W, and 7 W while it worked."""
    times = [95.0 + 0.05 * i for i in range(500)]
    log = Trace("power log x.csv", "W", ("supply",), times, [(7.0 if 109.9 < t < 112.5 else 3.0,) for t in times], True)
    content = data(energy={**energy(), "reason": "no INA3221 power monitor"})
    *_, whole, above = _figures.figures(result(content, clock_offset_s=10.0), log)
    assert isinstance(whole, Measured)
    assert whole.median == pytest.approx((7 / 100 + 7 / 125) / 2)
    assert isinstance(above, Measured)
    assert above.median == pytest.approx((4 / 100 + 4 / 125) / 2)
    assert whole.conditions["sensor"] == "power log x.csv"
    missed = reasons(content, replace(log, times=[t + 1000 for t in times]))
    assert missed["energy"].startswith("power log x.csv: its readings cover")
    assert reasons(content, "no log")["energy"] == "no log"


def test_settings_that_are_none() -> None:
    for changes, text in (
        ({"threads": 0}, "threads must be at least 1, got 0; correct it"),
        ({"windows": -1}, "windows must be at least 0, got -1; correct it"),
        ({"budget_s": 0.0}, r"budget_s must be above 0, got 0\.0; give seconds"),
        ({"warmup_s": -1.0}, r"warmup_s must not be below 0, got -1\.0; give seconds"),
        ({"idle_s": float("nan")}, r"idle_s must not be below 0, got nan; give seconds"),
        ({"precision": "int8"}, r"precision must be fp32 or fp16, got 'int8'; int8 "),
    ):
        with pytest.raises(UsageError, match=text):
            Settings(**changes)  # type: ignore[arg-type]


def test_where_a_target_is_measured(tmp_path: Path) -> None:
    here = place.place("host")
    assert isinstance(here.transport(), Local)
    assert (here.name, here.runtime_of("x.onnx")) == ("host", "onnxruntime")
    there = place.place("ssh://u@b", python="~/venv/bin/python3")
    way = there.transport()
    assert isinstance(way, Ssh)
    assert (str(way.address), way.python) == ("ssh://u@b", "~/venv/bin/python3")
    assert (there.runtime_of("x.onnx"), there.runtime_of("x.engine")) == ("onnxruntime", "tensorrt")
    jetson = place.place("jetson", host="ssh://nano")
    assert jetson.runtime_of("x.onnx") == "tensorrt"
    assert isinstance(jetson.transport(), Ssh)
    with pytest.raises(UsageError, match="raspberry-pi-4 must have an address to be measured, got none; give --host ssh://"):
        place.place("raspberry-pi-4")
    with pytest.raises(UsageError, match="--host must not stand beside --target ssh://…, got ssh://c; leave one out"):
        place.place("ssh://u@b", host="ssh://c")
    with pytest.raises(UsageError, match="a board must be ssh://user@host"):
        place.place("raspberry-pi-4", host="pi@b")
    with pytest.raises(UsageError, match="the runtime must be one of onnxruntime, tensorrt, got 'x-cube-ai'; name one with"):
        place.place("stm32h7a3", host="ssh://b").runtime_of("x.onnx")


def test_a_board_file_says_where_it_is(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "adding-a-board.md").read_text(encoding="utf-8")
    text = page.partition("```toml\n")[2].partition("```")[0]
    more = 'host = "ssh://me@board"\npython = "~/v/bin/python"\ntotal_rails = ["A", "B"]\n'
    (tmp_path / "my.toml").write_text(more + text, encoding="utf-8")
    found = place.place(str(tmp_path / "my.toml"))
    way = found.transport()
    assert isinstance(way, Ssh)
    assert (str(way.address), way.python) == ("ssh://me@board", "~/v/bin/python")
    assert found.settings(Settings()).total_rails == ("A", "B")


def save(folder: Path, name: str = "m.onnx") -> Path:
    path = folder / name
    path.write_bytes(quick.stream_graph(tiny_bundle()).SerializeToString())
    return path


def test_files_to_measure(tmp_path: Path) -> None:
    here = place.place("host")
    assert place.item(save(tmp_path), here).signature.is_streaming
    with pytest.raises(InputError, match=r"no\.onnx must be a readable file, got No such file"):
        place.item(tmp_path / "no.onnx", here)
    heavy = onnx.load(save(tmp_path, "heavy.onnx"))
    heavy.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros((64, 64), np.float32), "unused"))
    onnx.save(heavy, tmp_path / "heavy.onnx", save_as_external_data=True, location="heavy.bin", size_threshold=100)
    with pytest.raises(InputError, match=r"heavy\.onnx must hold its own weights, got external data; save it as one file"):
        place.item(tmp_path / "heavy.onnx", here)


def test_an_engine_is_measured_as_its_graph_says(tmp_path: Path) -> None:
    there = place.place("ssh://b")
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"ftrt")
    with pytest.raises(InputError, match=r"m\.engine must have the graph it was built from beside it, got no m\.onnx; copy it"):
        place.item(engine, there)
    graph = save(tmp_path)
    item = place.item(engine, there)
    assert (item.runtime, item.content, item.reference) == ("tensorrt", b"ftrt", graph.read_bytes())
    label = tmp_path / "m.engine.json"
    label.write_text('{"onnx": "other.onnx"}')
    with pytest.raises(InputError, match=r"beside it, got no other\.onnx"):
        place.item(engine, there)
    label.write_text("{}")
    with pytest.raises(InputError, match=r"m\.engine\.json must be an engine's label, got KeyError; build the engine again"):
        place.item(engine, there)


def outputs(of: Result) -> bytes:
    """What this machine computes."""
    from edgetk.targets.meters.agent import ort

    files, (task,) = _bench._prepare([of.item], of.settings)
    return ort.Model(of.item.content, task, files[task["data"]]).outputs()


def test_what_a_reader_must_know() -> None:
    seen = result(data())
    right = outputs(seen)
    where = place.Place(replace(board.load("jetson"), power_mode="15W"), "ssh://b")
    row = bench._row(replace(seen, outputs=right), where, None)
    assert row["agreement"] == {
        "reference": "onnxruntime on this machine",
        "n": 64,
        "max_abs": 0.0,
        "scale": row["agreement"]["scale"],
        "same_argmax": 64,
    }
    assert row["warnings"] == [
        f"{where.name} is described in power mode 15W, the board is in 25W: its predictions are for the former"
    ]
    wrong = np.frombuffer(right, np.float32) + 100
    texts = bench._row(replace(seen, outputs=wrong.tobytes(), resumed=True), place.Place(address="ssh://b"), None)["warnings"]
    assert texts[0].startswith("the outputs differ from ONNX Runtime's here by up to 1e+02 of ")
    assert texts[1] == "measured before an interruption, and kept"


def test_a_profile_is_folded_to_layers() -> None:
    rows = [
        {"name": "fused net.a/Gemm", "op_type": "FusedGemm", "dtype": "float32", "mean_s": 2e-6, "share": 0.5, "n": 9},
        {"name": "h", "op_type": "Relu", "dtype": "float32", "mean_s": 1e-6, "share": 0.25, "n": 9},
        {"name": "gone", "op_type": "X", "dtype": "", "mean_s": 1e-6, "share": 0.25, "n": 9},
    ]
    graph = quick.clip_graph(tiny_bundle())
    for node in graph.graph.node:
        node.name = {"a": "net.a/MatMul", "scores": "net.head/Gemm"}.get(node.output[0], node.output[0])
    item = replace(result(data(operators=rows)).item, content=graph.SerializeToString())
    layers = bench._layers(replace(result(data(operators=rows)), item=item))
    assert [(layer.name, layer.share, layer.operators) for layer in layers] == [
        ("net.a", 0.5, {"FusedGemm": 1}),
        ("net.head", 0.25, {"Relu": 1}),  # it has no module's name; the head reads what it makes
        ("(graph)", 0.25, {"X": 1}),
    ]


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments), prog_name="edgetk")


def test_the_command(tmp_path: Path) -> None:
    quickly = ("--seconds", "0.05", "--warmup", "0.01", "--windows", "0", "--profile")
    done = invoke("bench", str(save(tmp_path)), *quickly, "--json", "-o", str(tmp_path / "out.json"))
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert (found["target"], found["where"], found["schema_version"]) == ("host", "this machine", 1)
    (row,) = found["results"]
    assert [figure["metric"] for figure in row["figures"]] == ["latency", "rss"]
    assert row["figures"][1]["kind"] == "measured"
    assert row["agreement"]["max_abs"] == 0
    assert sum(layer["share"] for layer in row["layers"]) == pytest.approx(1)


def test_where_nothing_runs_the_command_fails(tmp_path: Path) -> None:
    """The table says why; a script sees it by the exit status."""
    quickly = ("--seconds", "0.05", "--warmup", "0.01", "--windows", "0")
    done = invoke("bench", str(save(tmp_path)), *quickly, "--cores", "9999", "-o", str(tmp_path / "out.json"))
    assert done.exit_code == 1
    assert "cores must be among" in " ".join(done.stdout.split())
    assert "bench: 1 of 1 files did not run" in done.stderr
    assert len(json.loads((tmp_path / "out.json").read_text())["results"]) == 1


def test_a_missing_runtime_has_its_remedy() -> None:
    text = "onnxruntime: ModuleNotFoundError: No module named 'numpy'; name a Python that has it with --python"
    missing = {"error": "ModuleNotFoundError: No module named 'numpy'"}
    assert set(reasons(missing).values()) == {text}
    here = _figures.figures(result(missing, where="this machine"))  # it has no other Python to name
    assert {str(figure) for figure in here} == {f"not available: {text.partition(';')[0]}"}


def test_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        paths.append(save(tmp_path / name))
    here = place.place("host")
    assert [item.name for item in place.items([paths[0], paths[0]], here)] == [paths[0].name]
    assert [item.name for item in place.items(paths, here)] == [str(path) for path in paths]


def test_the_command_prints_what_was_found(capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module("edgetk.toolkit.commands.bench")
    seen = result(data(operators=[]))
    row = bench._row(replace(seen, outputs=outputs(seen)), place.Place(address="ssh://b"), None)
    many = [{"name": f"l{i}", "mean_s": 1e-3, "share": 0.05, "operators": {"Gemm": 1}} for i in range(20)]
    command._print({"results": [{**row, "layers": many, "warnings": ["mind this"]}], "where": "ssh://b"})
    printed = capsys.readouterr().out
    assert "m.onnx on A Jetson, ssh://b" in printed
    assert "1 ms measured (n=100, p95 2 ms)" in printed
    assert (
        "state: power mode 25W, governor performance, clock 1.5 GHz of 1.5 GHz, cores 0-5 online, 50 °C, L4T 36.4.3" in printed
    )
    assert "same arg-max 64 of 64" in printed
    assert "warning: mind this" in printed
    assert "5 more" in printed
    command._print({"results": [bench._row(result({"error": "no"}), place.Place(address="x"), None)], "where": "ssh://b"})
    assert "not available: onnxruntime: no" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--cores", "a"), "bench: --cores must be numbers with commas, got 'a'; give them as 0,1"),
        (("--power-log-start", "noon"), "bench: --power-log-start must be like 2026-01-31T12:00:00 or seconds since 1970"),
        (("--target", "jetson"), "must have an address to be measured, got none; give --host"),
        (("--power-log", "log.csv", "--windows", "0"), "bench: --power-log must stand beside windows of energy, got 0; leave"),
    ],
)
def test_the_command_refuses(tmp_path: Path, arguments: tuple[str, ...], text: str) -> None:
    done = invoke("bench", str(save(tmp_path)), *arguments)
    assert done.exit_code == 2
    assert text in done.stderr


def test_a_log_that_is_given(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text("time,power\n1000000001,1\n1000000002,1\n")
    quickly = ("--seconds", "0.05", "--warmup", "0.01", "--windows", "1", "--window", "0.01", "--idle", "0.01")
    done = invoke("bench", str(save(tmp_path)), *quickly, "--power-log", str(log), "--power-log-start", "2026-01-01", "--json")
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)["results"]
    reasons = {f["metric"]: f.get("reason", "") for f in row["figures"]}
    assert reasons["energy"].startswith("power log log.csv: its readings cover")
    none = invoke("bench", str(save(tmp_path)), *quickly, "--power-log", str(tmp_path / "none.csv"), "--json")
    assert none.exit_code == 0, none.output  # what was measured is not lost
    (row,) = json.loads(none.stdout)["results"]
    assert {f["metric"] for f in row["figures"]} == {"latency", "rss", "energy", "energy_above_idle"}
    assert "must be a readable file, got No such file" in row["figures"][-1]["reason"]


def test_a_log_that_is_saved_afterwards(tmp_path: Path) -> None:
    seen = result(data(energy={**energy(), "reason": "no INA3221 power monitor"}), clock_offset_s=0.0)
    row = bench._row(replace(seen, outputs=outputs(seen)), place.Place(address="ssh://b"), None)
    base = 1_750_000_000.0
    for window in (row["raw"]["energy"]["idle"], *row["raw"]["energy"]["windows"]):
        window.update(wall_begin=base + window["wall_begin"], wall_end=base + window["wall_end"])
    settings = asdict(seen.settings)
    document = {"schema_version": 1, "target": "b", "where": "ssh://b", "when": "", "settings": settings, "results": [row]}
    (tmp_path / "seen.json").write_text(json.dumps(document))
    lines = [f"{base + 85 + 0.05 * i},{5.0 if 99.9 < 85 + 0.05 * i < 102.1 else 3.0}" for i in range(500)]
    (tmp_path / "log.csv").write_text("\n".join(["time,power", *lines]))
    command = ("bench", "--from", str(tmp_path / "seen.json"), "--power-log", str(tmp_path / "log.csv"))
    done = invoke(*command, "--json")
    assert done.exit_code == 0, done.output
    figures = {f["metric"]: f for f in json.loads(done.stdout)["results"][0]["figures"]}
    assert figures["energy"]["median"] == pytest.approx((5 / 100 + 5 / 125) / 2)
    assert figures["energy_above_idle"]["median"] == pytest.approx((2 / 100 + 2 / 125) / 2)
    assert figures["energy"]["conditions"]["sensor"] == "power log log.csv"
    assert figures["latency"]["median"] == 1e-3
    assert invoke(*command).exit_code == 0

    for change, text in (
        ({"schema_version": 9}, "bench: --from must name what edgetk bench -o wrote, with windows of energy, got none"),
        ({"results": [{**row, "raw": {}}]}, "got none ('windows'); measure again"),
    ):
        (tmp_path / "seen.json").write_text(json.dumps({**document, **change}))
        refused = invoke(*command)
        assert refused.exit_code == 1
        assert text in refused.stderr
    (tmp_path / "seen.json").write_text("no")
    assert "seen.json must be a JSON file, got JSONDecodeError; check the path" in invoke(*command).stderr
    assert "--from must stand beside --power-log and without files" in invoke(*command[:3]).stderr
    assert "bench: a file must be named, got none; name exported files, or --from" in invoke("bench").stderr


@pytest.mark.usefixtures("plugins", "quick_lower")
def test_measured_figures_join_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe("test", model="edgetk.testing:tiny_bundle", targets=("raspberry-pi-4",), goals=Goals(max_latency_s=0.5))
    run = runner.run(recipe, tmp_path / "runs")
    assert run.goals_missed == ()

    def measured(transport: Any, items: list[Item], settings: Settings, say: Any, keep: bool = False) -> list[Result]:
        slow = data(latency={"warmup": 5, "samples_s": [1.0] * 30})
        seen = [Result(item, Settings(windows=0), slow, b"", "ssh://pi@b") for item in items]
        return [replace(r, outputs=outputs(r)) for r in seen]

    monkeypatch.setattr(_bench, "run", measured)
    places = place.places(run.recipe["targets"], True, "ssh://pi@b")
    more = bench.add(run, places)
    seen = [row for row in more.figures if isinstance(row.figure, Measured) and row.figure.metric == "latency"]
    assert {row.artifact for row in seen} == {"model.onnx", "model.stream.onnx"}
    assert {row.target for row in seen} == {"raspberry-pi-4"}
    assert any(isinstance(row.figure, Predicted) and row.figure.metric == "latency" for row in more.figures)
    assert len(more.goals_missed) == 2  # judged by what was measured, not by what was predicted
    assert all("1 s measured" in text for text in more.goals_missed)
    again = bench.add(more, places)
    assert len(again.figures) == len(more.figures)
    assert again.to_json()["figures"] == more.to_json()["figures"]
    monkeypatch.setattr(
        _bench, "run", lambda transport, items, *rest: [replace(result({"error": "no"}), item=i) for i in items]
    )
    kept = bench.add(more, places)
    assert [row for row in kept.figures if isinstance(row.figure, Measured)] == [
        row for row in more.figures if isinstance(row.figure, Measured)
    ]
    missing = [(row.artifact, row.figure.metric) for row in bench.add(kept, places).figures if isinstance(row.figure, Missing)]
    assert len(missing) == len(set(missing))


@pytest.mark.usefixtures("plugins", "quick_lower")
def test_compress_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []

    def add(run: Any, places: Any, say: Any) -> Any:
        calls.append(tuple(str(place.transport().name) for place in places))
        return replace(run, warnings=("measured",))

    monkeypatch.setattr(bench, "add", add)
    command = ("compress", "-m", "edgetk.testing:tiny_bundle", "-r", "export", "-o", str(tmp_path / "runs"))
    done = invoke(*command, "-t", "raspberry-pi-4", "--measure", "--host", "ssh://pi@b", "--json")
    assert done.exit_code == 0, done.output
    assert calls == [("ssh://pi@b",)]
    assert json.loads(done.stdout)["warnings"] == ["measured"]
    (report,) = (tmp_path / "runs").glob("*/report.json")
    assert json.loads(report.read_text())["warnings"] == ["measured"]
    for arguments, text in (
        (("-t", "raspberry-pi-4", "--measure"), "raspberry-pi-4 must have an address to be measured"),
        (("-t", "raspberry-pi-4", "--host", "ssh://b"), "compress: --host must stand beside --measure, got ssh://b alone"),
    ):
        refused = invoke(*command, *arguments)
        assert refused.exit_code == 2
        assert text in refused.stderr
    assert len(calls) == 1
