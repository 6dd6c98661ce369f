"""A report (`report.json`, as data) for the terminal: compact tables in which measured and predicted never share a column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgetk.core import units
from edgetk.core.artifact import Parity
from edgetk.core.figures import METRICS, Figure, Measured, Missing, Predicted, Score
from edgetk.toolkit import binary
from edgetk.toolkit.result import FormMeasures, PassRow, figure_from_json, score_from_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Report = Mapping[str, Any]


def score(data: Mapping[str, Any] | None) -> Score | None:
    """The score of a report's entry, None where there is none."""
    return score_from_json(data) if data else None


def points(share: float | None) -> str:
    """An accuracy difference as signed percentage points: -0.0041 is "−0.41"."""
    if share is None:
        return ""
    text = f"{100 * share:+.2f}".replace("-", "−")
    return "0.00" if text in ("+0.00", "−0.00") else text


def ratio(before: float, after: float) -> str:
    """How many times smaller: "9.9×"; "" where that says nothing."""
    if after <= 0 or before <= 0 or before == after:
        return ""
    return f"{before / after:.3g}×"


def measured(figure: Figure) -> str:
    """The text of a measurement; "" for anything else, so that a column stays pure."""
    return units.text(figure.median, METRICS[figure.metric]) if isinstance(figure, Measured) else ""


def predicted(figure: Figure) -> str:
    """The text of a prediction; "" for anything else."""
    return units.text(figure.value, METRICS[figure.metric]) if isinstance(figure, Predicted) else ""


def final_forms(report: Report) -> dict[str, FormMeasures]:
    """Each form as it was exported: the last pass that kept it, else the original."""
    forms = {f["form"]: FormMeasures.from_json(f) for f in report["original"]}
    for row in (PassRow.from_json(r) for r in report["passes"]):
        forms.update({f.form: f for f in row.forms if f.form in row.kept_forms})
    return forms


def title(report: Report) -> str:
    """ "lmuformer → jetson-orin-nano-8g (power mode 15W, stack tensorrt-10.3)"."""
    board = report["target_details"]
    return f"{report['model']} → {report['target']} (power mode {board['power_mode']}, stack {board['stack']})"


def table(heading: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without the columns that are empty in every row; numbers to the right where short."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    used = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    table = Table(title=heading, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for i in used:
        wide = max(len(row[i]) for row in rows) > 24
        number = any(row[i][:1].isdigit() for row in rows) and columns[i] != "sha256"
        table.add_column(columns[i], justify="right" if number and not wide else "left", overflow="fold", no_wrap=not wide)
    for row in rows:
        table.add_row(*(Text(row[i]) for i in used))
    return table


def _cost_cells(form: FormMeasures) -> tuple[str, ...]:
    return (
        form.form,
        form.precision,
        units.count(form.parameters),
        units.count(form.macs),
        units.size(form.size_bytes),
        measured(form.latency),
        predicted(form.latency),
    )


def pass_table(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of what each pass did, one row per pass and form."""
    columns = (
        "pass", "verdict", "accuracy", "Δ points", "form", "precision", "parameters", "MACs", "on disk", "latency measured",
        "latency predicted",
    )  # fmt: skip
    guard = score(report["accuracy"]["guard_before"])
    rows: list[tuple[str, ...]] = []
    for i, form in enumerate(FormMeasures.from_json(f) for f in report["original"]):
        lead = ("original", "", units.percent(guard.top1) if guard else "", "") if i == 0 else ("",) * 4
        rows.append((*lead, *_cost_cells(form)))
    for row in (PassRow.from_json(r) for r in report["passes"]):
        accuracy = units.percent(row.score.top1) if row.score else ""
        lead = (row.name, row.verdict, accuracy, points(-row.drop if row.drop is not None else None))
        if not row.forms:
            rows.append((*lead, *("",) * 7))
        for i, form in enumerate(row.forms):
            rows.append((*(lead if i == 0 else ("",) * 4), *_cost_cells(form)))
    return columns, rows


def figure_rows(
    report: Report,
) -> tuple[list[tuple[str, str, Measured]], list[tuple[str, str, Predicted]], list[tuple[str, str, Missing]]]:
    """(artifact, target, figure) of each kind, apart."""
    seen: list[tuple[str, str, Measured]] = []
    computed: list[tuple[str, str, Predicted]] = []
    absent: list[tuple[str, str, Missing]] = []
    for row in report["figures"]:
        match figure_from_json(row):
            case Measured() as figure:
                seen.append((row["artifact"], row["target"], figure))
            case Predicted() as forecast:
                computed.append((row["artifact"], row["target"], forecast))
            case Missing() as missing:
                absent.append((row["artifact"], row["target"], missing))
    return seen, computed, absent


def predicted_tables(
    rows: Sequence[tuple[str, str, Predicted]],
) -> dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """Predictions by "predictor, how far it can be trusted": columns, and one row per file and target.

    Plain counts are left out, the table of passes has them.
    """
    tables: dict[str, dict[tuple[str, str], dict[str, str]]] = {}
    for artifact, target, figure in rows:
        if METRICS[figure.metric] != "1":
            tables.setdefault(figure.method, {}).setdefault((artifact, target), {})[figure.metric] = predicted(figure)
    made = {}
    for by, table in tables.items():
        metrics = [m for m in METRICS if any(m in cells for cells in table.values())]
        columns = ("file", "target", *(m.replace("_", " ") for m in metrics))
        made[by] = (columns, [(*key, *(cells.get(m, "") for m in metrics)) for key, cells in table.items()])
    return made


def beside_table(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows of a spiking model's energy from counts beside the same network without spikes."""
    columns = (
        "model", "precision", "accuracy", "form", "ACs", "MACs", "neuron updates", "arithmetic", "memory", "energy",
        "with all weights read",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = []
    for entry in report.get("beside", ()):
        accuracy = score(entry["accuracy"])
        lead = (entry["model"], entry["precision"], units.percent(accuracy.top1) if accuracy else "")
        for i, (form, energy) in enumerate(entry["forms"].items()):
            counts = (energy["accumulates"], energy["multiply_accumulates"], energy["neuron_updates"])
            joules = (energy[k] for k in ("arithmetic_joules", "memory_joules", "joules", "joules_dense_reads"))
            cells = [*(units.count(n) for n in counts), *(units.joules(j) for j in joules)]
            rows.append((*(lead if i == 0 else ("",) * 3), form, *cells))
    return columns, rows


def beside_notes(report: Report) -> list[str]:
    """How the energies of `beside_table` were come by, and where spiking does not win."""
    entries = report.get("beside", ())
    if not entries:
        return []
    own = entries[0]
    notes = [f"{form}: spike rates from {e['rates_from']}" for form, e in own["forms"].items() if e["rates_from"]]
    for entry in entries[1:]:
        for form, energy in entry["forms"].items():
            if form in own["forms"] and energy["joules"] <= own["forms"][form]["joules"]:
                times = ratio(own["forms"][form]["joules"], energy["joules"]) or "1×"
                notes.append(f"{form}: spiking does not win, {entry['model']} in {entry['precision']} needs {times} less")
    return notes


def headline(report: Report) -> list[tuple[str, str]]:
    """What matters, as (name, text): accuracy before and after with n and intervals, then cost per form."""
    lines: list[tuple[str, str]] = []
    before, after = score(report["accuracy"]["before"]), score(report["accuracy"]["after"])
    if after is not None:
        lines.append(("accuracy", f"{before} → {after}" if before else str(after)))
    else:
        lines.append(("accuracy", "not available: no data was given"))
    finals = final_forms(report)
    for first in (FormMeasures.from_json(f) for f in report["original"]):
        last = finals[first.form]
        for name, word, text, a, b in (
            ("on disk", "smaller", units.size, first.size_bytes, last.size_bytes),
            ("MACs", "fewer", units.count, first.macs, last.macs),
        ):
            gain = ratio(a, b)
            lines.append((f"{first.form} {name}", f"{text(a)} → {text(b)}" + (f" ({gain} {word})" if gain and a > b else "")))
        lines.append((f"{first.form} latency", f"{first.latency} → {last.latency}"))
    return lines


def terminal(report: Report, console: Console) -> None:
    """Print the report: headline, passes with reasons, artifacts with parity, measured, predicted and missing figures."""

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line(title(report), "bold")
    for name, text in headline(report):
        line(f"  {name:<15} {text}")
    line("")
    console.print(table("What each pass did", *pass_table(report)))
    for row in report["passes"]:
        line(f"  {row['name']}: {PassRow.from_json(row).verdict}; {row['reason']}")
    line("")
    files = [
        (a["path"], a["form"], a["precision"], units.size(a["size_bytes"]), a["sha256"][:12], parity_text(a["parity"]))
        for a in report["artifacts"]
    ]
    console.print(table("Files", ("file", "form", "precision", "size", "sha256", "proof"), files))
    for a in report["artifacts"]:
        for text in a["notes"]:
            line(f"  {a['path']}: {text}")
    seen, computed, absent = figure_rows(report)
    if seen:
        cells = [(artifact, target, f.metric, str(f)) for artifact, target, f in seen]
        console.print(table("Measured", ("file", "target", "metric", "figure"), cells))
    for by, (columns, rows) in predicted_tables(computed).items():
        console.print(table(f"Predicted ({by})", columns, rows))
    if report.get("beside"):
        heading = "Energy from operation counts (45 nm table, for comparing architectures; not the energy of any board)"
        console.print(table(heading, *beside_table(report)))
        for text in beside_notes(report):
            line(f"  {text}")
    if report.get("binary"):
        console.print(table("Binary layers (operations of one inference)", *binary.layer_table(report)))
        if report["binary"]["attention"]:
            console.print(table("The network with each attention (computed)", *binary.attention_table(report)))
        for text in binary.notes(report):
            line(f"  {text}")
    for text in dict.fromkeys(f"{target}: {f.metric} {f}" for _, target, f in absent):
        line(text)
    for text in report["notes"]:
        line(f"note: {text}")
    for text in report["warnings"]:
        line(f"warning: {text}", "yellow")
    for text in report["goals_missed"]:
        line(f"goal missed: {text}", "bold red")


def parity_text(parity: Mapping[str, Any] | None) -> str:
    """A parity proof in one line."""
    if parity is None:
        return "no proof: not a graph that runs here"
    proof = Parity.from_json(parity)
    return (
        f"{proof.verdict} {proof.reference} in {proof.runtime} (n={proof.n}, max |Δ| {proof.max_abs:.1e}, {proof.allowed}, "
        f"same arg-max {units.percent(proof.agreement, 1)})"
    )
