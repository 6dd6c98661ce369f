"""Binary layers in the report: as data, text and page; savings against both baselines; the kernel library for meters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edgetk.core import registry
from edgetk.core.target import Target
from edgetk.models import ecoformer
from edgetk.targets import board
from edgetk.toolkit import binary, checkpoint, cost, html, report, runner
from edgetk.toolkit.recipe import read
from edgetk.toolkit.report import Report

SMALL = {"dims": [8, 16], "depths": [1, 1], "heads": [1, 2], "mlp_ratios": [1, 1], "reductions": [2, 1], "classes": 16}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report of a small EcoFormer, exported as it is."""
    folder = tmp_path_factory.mktemp("runs")
    model = folder / "small.safetensors"
    model.write_bytes(checkpoint.save_model(replace(ecoformer.build("kws", **SMALL), task="")))
    recipe = replace(read("export"), model=str(model), targets=("raspberry-pi-5",))
    return runner.run(recipe, folder).to_json()


def test_layers_are_named_with_their_bits_and_operations(found: Report) -> None:
    columns, rows = binary.layer_table(found)
    assert len(rows) == 1
    row = dict(zip(columns, rows[0], strict=True))
    assert row["what"] == "attention on codes"
    assert row["shape"] == "1 heads x 1024 tokens x 16 bits, values of 8"
    assert (row["on disk"], row["packed"]) == ("computed", "2.05 kB")


def test_savings_are_against_both_baselines(found: Report) -> None:
    _, rows = binary.attention_table(found)
    assert [row[0] for row in rows] == ["ecoformer", "msa", "sra"]
    for row in rows[1:]:
        assert row[-1].endswith("% less")
        assert row[-2].endswith("% less")
    own, softmax, _ = found["binary"]["attention"]
    assert rows[1][-2] == f"{1 - own['joules'] / softmax['joules']:.1%} less"
    assert own["joules_with_distances"] > own["joules"]
    assert softmax["joules_with_distances"] == softmax["joules"]


def test_text_and_page_say_what_runs_as_what(found: Report) -> None:
    console = Console(width=200)
    with console.capture() as captured:
        report.terminal(found, console)
    text, page = captured.get(), html.render(found)
    for view in (text, page):
        assert "Binary layers" in view
        assert "its body of standard operators: float32 products" in view
        assert "the native kernel: codes of packed bits, additions" in view


def test_other_reports_have_no_such_part() -> None:
    assert binary.layer_table({})[1] == binary.attention_table({})[1] == binary.notes({}) == []


def test_meters_get_the_library_only_for_graphs_that_use_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from edgetk.export.lower import lower

    library = tmp_path / "libedgetk_ops.so"
    library.write_bytes(b"")
    monkeypatch.setenv("EDGETK_OPS", str(library))
    host: Target = board.load("host")
    uses, plain = (lower(ecoformer.build(v, **SMALL), host)[0].graph for v in ("kws", "kws-msa"))
    assert cost.meter_for(host, uses).operators == library.resolve()  # type: ignore[attr-defined]
    assert cost.meter_for(host, plain) == registry.load("meter", "onnxruntime")
    monkeypatch.delenv("EDGETK_OPS")
    monkeypatch.setattr("edgetk.export.operators.library", lambda: None)
    assert cost.meter_for(host, uses) == registry.load("meter", "onnxruntime")
