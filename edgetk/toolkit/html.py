"""A report (`report.json`, as data) as one self-contained HTML page: inline CSS and SVG, no script, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgetk.core import units
from edgetk.core.figures import METRICS, Figure, Measured, Missing, Predicted, Score
from edgetk.toolkit import binary, charts, report
from edgetk.toolkit.result import FormMeasures, PassRow

_TEMPLATES = Path(__file__).parent / "templates"


def render(data: Mapping[str, Any]) -> str:
    """The page for `data`, the content of a `report.json`. Every text in it is escaped."""
    return page("report.html.j2", view(data))


def page(template: str, shown: Mapping[str, Any]) -> str:
    """A template of this package, filled with what it shows. Every text is escaped, and a name that is missing is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    env = Environment(
        loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return env.get_template(template).render(**shown)


def view(data: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows, already as text."""
    from markupsafe import Markup

    seen, computed, absent = report.figure_rows(data)
    scatter = _scatter(data)
    return {
        "r": data,
        "title": f"{data['model']} → {data['target']}",
        "board": data["target_details"],
        "cards": _cards(data),
        "interval": Markup(_interval(data)),
        "passes": _passes(data),
        "has_measured": any(isinstance(f.latency, Measured) for f in _all_forms(data)),
        "has_predicted": any(isinstance(f.latency, Predicted) for f in _all_forms(data)),
        "scatter": Markup(scatter),
        "sizes": Markup(_sizes(data)),
        "operators": [
            {"file": path, "svg": Markup(charts.operators(load["operators"])), "total": sum(load["operators"].values())}
            for path, load in data["workloads"].items()
        ],
        "artifacts": [_artifact(a) for a in data["artifacts"]],
        "measured": [_measured(*row) for row in seen],
        "predicted": [_predicted(*row) for row in computed],
        "missing": [{"file": a, "target": t, "metric": m.metric, "reason": m.reason} for a, t, m in absent],
        "beside": report.beside_table(data),
        "beside_notes": report.beside_notes(data),
        "binary": binary.layer_table(data),
        "attention": binary.attention_table(data),
        "binary_notes": binary.notes(data),
        "energy": [_energy(path, row) for path, row in data["op_energy"].items()],
        "environment": _flat(data["environment"]),
        "recipe": _recipe_lines(data["recipe"]),
        "sources": _flat(data["target_details"]["sources"]),
    }


def _all_forms(data: Mapping[str, Any]) -> list[FormMeasures]:
    rows = [*data["original"], *(f for p in data["passes"] for f in p["forms"])]
    return [FormMeasures.from_json(f) for f in rows]


def _cards(data: Mapping[str, Any]) -> list[dict[str, str]]:
    """The figures on top, per form: the gain large, before and after small."""
    finals = report.final_forms(data)
    cards: list[dict[str, str]] = []
    for first in (FormMeasures.from_json(f) for f in data["original"]):
        last = finals[first.form]
        for name, text, a, b in (
            ("on disk", units.size, first.size_bytes, last.size_bytes),
            ("MACs", units.count, first.macs, last.macs),
        ):
            gain = _gain(a, b, "smaller" if name == "on disk" else "fewer")
            cards.append(
                {"name": f"{first.form}: {name}", "big": text(b), "small": f"from {text(a)}", "gain": gain, "kind": ""}
            )
        kind = "measured" if isinstance(last.latency, Measured) else "predicted"
        before, after = _value(first.latency, kind), _value(last.latency, kind)
        if before is None or after is None:
            continue
        small, gain = f"from {units.seconds(before)}", _gain(before, after, "faster")
        name = f"{first.form}: latency {kind}"
        cards.append({"name": name, "big": units.seconds(after), "small": small, "gain": gain, "kind": kind})
    return cards


def _value(figure: Figure, kind: str) -> float | None:
    """The number of a figure of that kind, None for one of another kind."""
    match figure:
        case Measured():
            return figure.median if kind == "measured" else None
        case Predicted():
            return figure.value if kind == "predicted" else None
        case Missing():
            return None


def _gain(before: float, after: float, word: str) -> str:
    """ "9.9× smaller"; "" where nothing was gained."""
    times = report.ratio(before, after)
    return f"{times} {word}" if times and before > after else ""


def _bounds(score: Score) -> tuple[float, float, float]:
    low, high = score.ci95
    return low, score.top1, high


def _interval(data: Mapping[str, Any]) -> str:
    before, after = report.score(data["accuracy"]["before"]), report.score(data["accuracy"]["after"])
    if after is None:
        return ""
    return charts.interval(_bounds(before) if before else None, _bounds(after), "accuracy with 95 % intervals")


def _passes(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    guard = report.score(data["accuracy"]["guard_before"])
    original = [FormMeasures.from_json(f) for f in data["original"]]
    rows: list[dict[str, Any]] = [
        {"name": "original", "verdict": "", "score": guard, "points": "", "reason": "", "settings": "", "seconds": "",
         "forms": [_form(f, None) for f in original], "notes": []}
    ]  # fmt: skip
    current = {f.form: f for f in original}
    for row in (PassRow.from_json(p) for p in data["passes"]):
        rows.append(
            {
                "name": row.name,
                "verdict": row.verdict,
                "score": row.score,
                "points": report.points(-row.drop if row.drop is not None else None),
                "reason": row.reason,
                "settings": ", ".join(f"{k} = {_short(v)}" for k, v in row.settings.items() if v not in (None, "", [], {})),
                "seconds": units.seconds(row.seconds),
                "forms": [_form(f, current.get(f.form), f.form in row.kept_forms) for f in row.forms],
                "notes": [(k.replace("_", " "), _short(v)) for k, v in row.notes.items()],
            }
        )
        current.update({f.form: f for f in row.forms if f.form in row.kept_forms})
    return rows


def _form(form: FormMeasures, before: FormMeasures | None, kept: bool = True) -> dict[str, Any]:
    return {
        "form": form.form,
        "precision": form.precision,
        "parameters": units.count(form.parameters),
        "macs": units.count(form.macs),
        "size": units.size(form.size_bytes),
        "measured": report.measured(form.latency),
        "predicted": report.predicted(form.latency),
        "kept": kept,
        "d_parameters": _change(before.parameters, form.parameters) if before else "",
        "d_macs": _change(before.macs, form.macs) if before else "",
        "d_size": _change(before.size_bytes, form.size_bytes) if before else "",
    }


def _change(before: float, after: float) -> str:
    """ "−63 %" or "+4 %"; "" below half a percent."""
    share = after / before - 1 if before else 0.0
    return "" if abs(share) < 0.005 else f"{100 * share:+.0f} %".replace("-", "−")


def _scatter(data: Mapping[str, Any]) -> str:
    """Accuracy against file size of the first form, over the passes; "" where nothing was scored."""
    guard = report.score(data["accuracy"]["guard_before"])
    if guard is None or not data["original"]:
        return ""
    first = FormMeasures.from_json(data["original"][0])
    found = [("original", guard, first.size_bytes, True)]
    for row in (PassRow.from_json(p) for p in data["passes"]):
        size = next((f.size_bytes for f in row.forms if f.form == first.form), None)
        if row.score is not None and size is not None:
            found.append((row.name, row.score, size, first.form in row.kept_forms))
    points = [charts.Point(name, float(size), s.top1, *s.ci95, kept, units.size(size), str(s)) for name, s, size, kept in found]
    return charts.scatter(
        points, f"{first.form} file on disk", f"accuracy on {guard.split}", "accuracy against size after each pass"
    )


def _sizes(data: Mapping[str, Any]) -> str:
    """File size of each form, as handed in and as exported."""
    finals = report.final_forms(data)
    rows = []
    for first in (FormMeasures.from_json(f) for f in data["original"]):
        last = finals[first.form]
        for when, form in (("before", first), ("after", last)):
            name = f"{form.form}, {when}"
            rows.append((name, float(form.size_bytes), f"{units.size(form.size_bytes)} {form.precision}"))
    return charts.bars(rows, "file size of each form before and after")


def _artifact(a: Mapping[str, Any]) -> dict[str, Any]:
    period = a["signature"]["period_s"]
    state = sum(_elements(s["shape"]) for s in a["signature"]["state"])
    facts = [f"built for {a['built_for']}"]
    if state:
        facts.append(f"state: {units.count(state)} values in {len(a['signature']['state'])} tensors")
    if period:
        facts.append(f"one step every {units.seconds(period)}, look-ahead {units.seconds(a['signature']['lookahead_s'])}")
    return {**a, "size": units.size(a["size_bytes"]), "facts": [*facts, *a["notes"]], "proof": report.parity_text(a["parity"])}


def _elements(shape: list[int | str]) -> int:
    total = 1
    for size in shape:
        total *= size if isinstance(size, int) else 1
    return total


def _measured(file: str, target: str, f: Measured) -> dict[str, Any]:
    unit = METRICS[f.metric]
    conditions = ", ".join(f"{k} {_short(v)}" for k, v in f.conditions.items())
    return {"file": file, "target": target, "f": f, "median": units.text(f.median, unit), "p95": units.text(f.p95, unit),
            "conditions": conditions}  # fmt: skip


def _predicted(file: str, target: str, f: Predicted) -> dict[str, Any]:
    v = f.validation
    trust = f"median error {units.percent(v.median_error, 0)} over {v.n} ({v.where})" if v else "unvalidated"
    return {"file": file, "target": target, "f": f, "value": units.text(f.value, METRICS[f.metric]), "trust": trust}


def _energy(file: str, row: Mapping[str, Any]) -> dict[str, str]:
    """Energy by operation counts of one file, beside the same graph done densely in int8 and float32."""
    texts = {key: units.joules(value) for key, value in row.items() if key.endswith("joules")}
    return {
        "file": file,
        **texts,
        "table": row["table"],
        "assumptions": "; ".join(row["assumptions"]),
        "formula": row.get("formula", ""),
        "prices": ", ".join(f"{name} {units.joules(value)}" for name, value in row.get("prices", {}).items()),
        "rates_from": row.get("rates_from", ""),
        "layers": [_layer(layer) for layer in row.get("layers", ()) if row.get("rates_from")],
    }


def _layer(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """One row of the table of layers: what it does, how often its inputs spike, and what that costs."""
    rate = layer["spike_rate"]
    return (
        layer["name"],
        f"{layer['kind']} {layer['dtype']}",
        units.percent(rate, 1) if rate is not None else "",
        *(
            units.count(layer[k]) if layer[k] else ""
            for k in ("accumulates", "multiply_accumulates", "element_operations", "neuron_updates")
        ),
        *(units.joules(layer[k]) for k in ("arithmetic_joules", "weight_joules", "activation_joules")),
    )


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {_short(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        head = ", ".join(_short(v) for v in value[:8])
        return f"{head}, … ({len(value)})" if len(value) > 8 else head
    return str(value)


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested data as (dotted name, text)."""
    rows: list[tuple[str, str]] = []
    for key, value in data.items():
        name = f"{prefix}{key}"
        rows.extend(_flat(value, f"{name} · ") if isinstance(value, Mapping) else [(name.replace("_", " "), _short(value))])
    return rows


def _recipe_lines(recipe: Mapping[str, Any]) -> str:
    import json

    return json.dumps(recipe, indent=2, ensure_ascii=False)
