"""The report in the terminal: what it says, and that measured and predicted never meet in a column."""

import copy
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from edgetk.toolkit import report
from edgetk.toolkit.result import UNFIT, PassRow

DATA = Path(__file__).resolve().parent.parent / "data" / "report.json"


@pytest.fixture
def data():
    return json.loads(DATA.read_text(encoding="utf-8"))


def printed(data, width=200):
    out = io.StringIO()
    report.terminal(data, Console(file=out, width=width))
    return out.getvalue()


def test_it_opens_with_model_board_and_accuracy_with_intervals(data):
    lines = printed(data).splitlines()
    assert lines[0] == "lmuformer → jetson-orin-nano-8g (power mode 15W, stack tensorrt-10.3)"
    assert "97.06 % (n=1463, 95 % interval 96.1–97.8) → 96.65 % (n=1463, 95 % interval 95.6–97.5)" in lines[1]


def test_figures_are_printed_with_unit_n_and_kind(data):
    text = printed(data)
    assert "810 µs measured (n=200, p95 859 µs)" in text
    assert "230 µs predicted (roofline, unvalidated)" in text
    assert "host: energy not available: no energy counter on this machine" in text


def test_measured_and_predicted_stand_in_tables_of_their_own(data):
    text = printed(data)
    measured = text[text.index("\nMeasured") : text.index("\nPredicted")]
    predicted = text[text.index("\nPredicted") : text.index("\nhost: energy")]
    assert predicted.startswith("\nPredicted (roofline, unvalidated)")
    assert "predicted" not in measured
    assert "measured" not in predicted


def test_predictions_of_one_predictor_share_a_table_and_counts_are_left_out(data):
    figure = {**data["figures"][2], "metric": "macs", "unit": "1", "predicted": 5.0}
    checked = {**data["figures"][2], "validation": {"n": 9, "median_error": 0.12, "where": "a board"}}
    data["figures"] += [figure, checked]
    tables = report.predicted_tables(report.figure_rows(data)[1])
    assert list(tables) == ["roofline, unvalidated", "roofline, median error 12 %"]
    columns, rows = tables["roofline, unvalidated"]
    assert columns == ("file", "target", "latency", "energy", "ram")
    assert rows[0] == ("model.onnx", "jetson-orin-nano-8g", "230 µs", "1.1 mJ", "2.7 MB")


def test_latency_of_passes_has_one_column_per_kind(data):
    columns, rows = report.pass_table(data)
    measured, predicted = columns.index("latency measured"), columns.index("latency predicted")
    assert all(not row[measured] for row in rows)
    assert rows[0][predicted] == "790 µs"
    data["original"][0]["latency"] = data["figures"][0]
    _, rows = report.pass_table(data)
    assert (rows[0][measured], rows[0][predicted]) == ("810 µs", "")


def test_what_was_taken_back_says_why(data):
    text = printed(data)
    assert (
        "factorize: taken back; clip slower on jetson-orin-nano-8g: 1.2 ms predicted (roofline, unvalidated) against 410 µs"
        in text
    )
    rows = [PassRow.from_json(row) for row in data["passes"]]
    assert [row.verdict for row in rows] == ["kept", "kept", "taken back", "kept for clip"]
    assert PassRow("prune", {}, False, f"{UNFIT}: prune: the module must …").verdict == "left out"


def test_a_form_that_was_not_kept_is_not_the_final_one(data):
    finals = report.final_forms(data)
    assert finals["clip"].precision == "int8"
    assert finals["stream"].precision == "float32"
    assert finals["stream"].parameters == 583_412  # pruned, neither factorized nor quantized


@pytest.mark.parametrize(("drop", "text"), [(None, ""), (0.0, "0.00"), (-0.00001, "0.00"), (-0.0041, "−0.41"), (0.01, "+1.00")])
def test_points(drop, text):
    assert report.points(drop) == text


@pytest.mark.parametrize(
    ("before", "after", "text"), [(10, 1, "10×"), (1, 1, ""), (0, 1, ""), (1, 0, ""), (6530, 662, "9.86×")]
)
def test_ratio(before, after, text):
    assert report.ratio(before, after) == text


def test_missing_accuracy_and_goals_are_said(data):
    data["accuracy"] = {"before": None, "after": None, "guard_before": None}
    data["goals_missed"] = ["min_top1 must be 0.99, got 0.9665"]
    for row in data["passes"]:
        row["accuracy"] = row["drop"] = None
    text = printed(data)
    assert "not available: no data was given" in text
    assert "goal missed: min_top1 must be 0.99, got 0.9665" in text


def test_failed_parity_is_loud(data):
    parity = copy.deepcopy(data["artifacts"][0]["parity"])
    parity["max_abs"] = 2 * parity["bound"]
    assert report.parity_text(parity).startswith("NOT equal to")
    parity["max_abs"] = parity["bound"] = 0.0
    assert report.parity_text(parity).startswith("bit-exact with ")
    assert report.parity_text(None) == "no proof: not a graph that runs here"


def test_markup_in_texts_is_printed_as_it_is(data):
    data["warnings"] = ["[bold]x[/bold] [/nonsense]"]
    assert "warning: [bold]x[/bold] [/nonsense]" in printed(data)
