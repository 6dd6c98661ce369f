"""`edgetk calibrate`: from published results, and a whole calibration of this machine on a few cases of the suite."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetk.core.errors import UnknownName
from edgetk.targets import board, calibrations, machine, suite
from edgetk.toolkit.calibrate import host, published
from edgetk.toolkit.commands.calibrate import calibrate
from edgetk.toolkit.commands.listing import listing


def test_published_says_what_is_within_the_bars_and_what_is_not() -> None:
    found = published()
    chosen = found["latency"]["calibrated stacks (X-CUBE-AI, Bosch HALE)"]
    assert chosen["share_within"] >= 0.8
    assert found["latency"]["Plumerai"]["share_within"] < 0.8
    assert found["energy"]["all"]["share_within"] == 1.0
    assert {"board": "STM32H7A3 X-CUBE-AI 9.0", "core": "Cortex-M7"}.items() <= next(
        row for row in found["boards"] if row["board"] == "STM32H7A3 X-CUBE-AI 9.0"
    ).items()


def test_the_command_prints_and_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibrate("published", output=tmp_path / "published.json")
    out = capsys.readouterr().out
    assert "X-CUBE-AI                          median error 4.0 %, 94 % within 10 % (n=34)" in out
    assert "assumed, because two networks cannot tell: a depthwise multiply-accumulate costs 2" in out
    assert json.loads((tmp_path / "published.json").read_text(encoding="utf-8"))["source"].startswith("MLPerf Tiny")
    with pytest.raises(
        UnknownName, match=r"calibrate: the source must be one of published, host, got 'hosst'; did you mean host"
    ):
        calibrate("hosst")


def test_this_machine_is_calibrated_by_its_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = [
        case for case in suite.cases() if case.name.startswith(("tensors", "vector 64", "Exp 1x40", "Concat 1x64", "Mul 1x"))
    ]
    monkeypatch.setattr(suite, "cases", lambda: tuple(few))
    monkeypatch.setattr("edgetk.targets.fit_device.TURN_S", 0.0)
    calibrate("host", rounds=2, output=tmp_path / "mine.json")
    assert "micro-benchmarks that the fit did not see: median error" in capsys.readouterr().out
    data = calibrations.read(tmp_path / "mine.json")
    assert data["device"] == machine.cpu_model()
    assert set(data["seconds"]) == {case.name for case in few}
    assert {"run", "Neg", "gemv.float32", "gemv.int8", "Exp", "Mul"} <= set(data["kernels"])
    assert data["suite_errors"]["n"] == len(few)
    applied = calibrations.applied(board.load("host"), data)
    assert applied.calibration["source"] == data["source"]
    assert host(rounds=1)["rounds"] == 1


def test_list_says_what_is_calibrated_validated_and_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    listing("targets")
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    text = (
        "calibrated on X-CUBE-AI 9.0 on STM32H7A3: 2 published results of MLPerf Tiny; validated: latency to 4 % (median of 34)"
    )
    assert text in lines["stm32h7a3"]
    assert "not calibrated; unvalidated" in lines["jetson-nano"]
    listing("targets", as_json=True)
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["targets"]}
    assert rows["jetson-nano"]["parts"] == ["cpu", "MAXN", "5W"]
    assert "overhead_s_per_op" in rows["jetson-nano"]["assumed"]
    assert rows["jetson-nano"]["calibrated"] is None
    assert rows["stm32u385"]["validated"]["energy"]["n"] == 34
