"""What is in a graph: operators, MACs, bytes, state, look-ahead, versions, metadata, and on which boards it fits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core import units
from edgetk.core.figures import Predicted
from edgetk.core.signature import Signature, TensorSpec
from edgetk.core.target import Target
from edgetk.toolkit.result import figure_from_json

if TYPE_CHECKING:
    import onnx
    from rich.console import Console

#: operators that only change the number format: they cost time and compute nothing
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "Cast", "DynamicQuantizeLinear")

#: boards that a line of methods names; more are "the others"
_NAMED = 6


def examine(model: str, targets: Sequence[str] = ()) -> dict[str, Any]:
    """Everything `edgetk inspect` prints, as JSON-ready data, for each form of `model` (see `source.open_model`).

    A torch model is lowered for the first of `targets` (the host where none is named); the fit is given for each of them, or
    for every built-in board. Raises what opening the model, lowering it or loading a board raises.
    """
    from edgetk.export.graph import precision_of
    from edgetk.export.lower import lower
    from edgetk.targets import board
    from edgetk.toolkit import source

    chosen = [unit for name in targets for unit in board.units(name)]  # the GPU and the CPU of one module side by side
    boards = [board.load(name) for name in chosen or board.names()]
    bundle = source.open_model(model)
    if bundle.is_torch:
        lowered = lower(bundle, boards[0] if targets else board.load("host"))
        forms = [_form(low.form, low.precision, low.graph, low.signature, boards) for low in lowered]
    else:
        form = "stream" if bundle.signature.is_streaming else "clip"
        forms = [_form(form, precision_of(bundle.body), bundle.body, bundle.signature, boards)]
        forms[0]["size_bytes"] = Path(model).stat().st_size
    return {
        "model": model,
        "task": bundle.task,
        "labels": list(bundle.labels),
        "trained": not source.is_untrained(bundle),
        "source": dict(bundle.source),
        "lineage": [record.name for record in bundle.lineage],
        "forms": forms,
    }


def _form(name: str, precision: str, graph: onnx.ModelProto, signature: Signature, boards: Sequence[Target]) -> dict[str, Any]:
    from edgetk.export.graph import opset_of
    from edgetk.targets.count import count
    from edgetk.targets.memory import fits
    from edgetk.toolkit.cost import predict

    work = count(graph, signature)
    fit = []
    for board in boards:
        verdict = fits(work, board)
        figures = [figure.to_json() for figure in predict(work, board)]
        fit.append({"target": board.name, "fits": verdict.ok, "reasons": list(verdict.reasons), "figures": figures})
    return {
        "form": name,
        "precision": precision,
        "opset": opset_of(graph),
        "ir_version": int(graph.ir_version),
        "size_bytes": graph.ByteSize(),
        **work.to_json(),
        "conversions": sum(n for kind, n in work.count_by_kind().items() if kind in CONVERSIONS),
        "signature": signature.to_json(),
        "metadata": {p.key: p.value for p in graph.metadata_props},
        "targets": fit,
        **({"generated_c": _generated_c(graph, signature)} if signature.is_streaming else {}),
    }


def _generated_c(graph: onnx.ModelProto, signature: Signature) -> dict[str, Any]:
    """Bytes of constants, of a stream's state and of the arena that `edgetk export --c` gives this graph, or why it refuses."""
    from edgetk.core.errors import PreconditionError
    from edgetk.export.c.plan import plan
    from edgetk.export.c.program import Program

    try:
        made = Program("step", plan(graph, signature))
    except PreconditionError as error:
        return {"refused": str(error)}
    return {"constant_bytes": made.constant_bytes, "state_bytes": made.state_bytes, "arena_bytes": made.arena_bytes}


def terminal(found: dict[str, Any], console: Console) -> None:
    """Print what `examine` found."""

    def line(text: str, style: str = "") -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line(found["model"] + (f", task {found['task']}" if found["task"] else ""), "bold")
    if found["labels"]:
        line(f"  {len(found['labels'])} classes: {', '.join(found['labels'])}")
    if not found["trained"]:
        line("  untrained: its weights are random")
    for form in found["forms"]:
        line("")
        line(f"{form['form']} form, {form['precision']}, opset {form['opset']}, IR {form['ir_version']}", "bold")
        for name, text in _facts(form):
            line(f"  {name:<12} {text}")
        console.print(_fit_table(form))
        for text in _methods(form):
            line(f"  {text}")
        for row in form["targets"]:
            for reason in dict.fromkeys(f["reason"] for f in row["figures"] if f["kind"] == "missing"):
                line(f"  — on {row['target']}: {reason}")


def _facts(form: dict[str, Any]) -> list[tuple[str, str]]:
    signature = Signature.from_json(form["signature"])
    macs = ", ".join(f"{units.count(n)} {dtype}" for dtype, n in form["macs_by_dtype"].items())
    facts = [
        ("inputs", ", ".join(_spec(t) for t in signature.inputs)),
        ("outputs", ", ".join(_spec(t) for t in signature.outputs)),
        ("size", f"{units.size(form['size_bytes'])} file, {units.size(form['weight_bytes'])} weights"),
        ("parameters", units.count(form["parameters"])),
        ("MACs", units.count(form["macs"]) + (f" ({macs})" if macs else "")),
        ("activations", f"{units.size(form['peak_activation_bytes'])} at the peak"),
        ("operators", ", ".join(f"{kind} {n}" for kind, n in form["operators"].items())),
        ("conversions", f"{form['conversions']} of {sum(form['operators'].values())} nodes only change the number format"),
    ]
    if signature.is_streaming:
        facts.append(("state", f"{units.size(form['state_bytes'])}: {', '.join(_spec(s.spec) for s in signature.state)}"))
    if signature.period_s is not None:
        late = units.seconds(signature.lookahead_s)
        facts.append(("timing", f"one step every {units.seconds(signature.period_s)}, answers look ahead {late}"))
    if "generated_c" in form:
        facts.append(("generated C", _in_c(form["generated_c"])))
    short = {k: v for k, v in form["metadata"].items() if k not in ("signature", "labels")}
    facts.extend((k, v if len(v) <= 100 else v[:97] + "…") for k, v in sorted(short.items()))
    return facts


def _in_c(found: dict[str, Any]) -> str:
    if "refused" in found:
        return f"none: {found['refused']}"
    ram = f"{found['state_bytes']:,} bytes of state and {found['arena_bytes']:,} of arena in RAM"
    return f"{found['constant_bytes']:,} bytes of constants in flash, {ram}; code not included"


def _spec(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype}[{', '.join(map(str, tensor.shape))}]"


def _fit_table(form: dict[str, Any]) -> Any:
    """One row per board: does it fit, and every prediction; no column mixes kinds because all of them are predictions."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, title="predicted", title_justify="left")
    columns = _columns(form)
    for heading in ("target", "fits", *columns):
        table.add_column(heading.replace("_", " "), justify="left" if heading in ("target", "fits") else "right")
    for row in form["targets"]:
        figures = {f["metric"]: figure_from_json(f) for f in row["figures"]}
        cells = [_cell(figures.get(c)) for c in columns]
        fit = {True: "yes", None: "not known"}.get(row["fits"], "no: " + "; ".join(row["reasons"]))
        table.add_row(*(Text(c) for c in (row["target"], fit, *cells)))
    return table


def _columns(form: dict[str, Any]) -> tuple[str, ...]:
    """The figures of the table: of one inference, and what a stream asks of a board that is always on."""
    streamed = ("duty_cycle", "average_power", "slowest_clock") if form["signature"]["period_s"] else ()
    return ("latency", "energy", "ram", "flash", *streamed)


def _methods(form: dict[str, Any]) -> list[str]:
    """How each figure of the table was come by, what that was calibrated on and how far off it was: one line a method."""
    boards: dict[tuple[str, str], list[str]] = {}
    for row in form["targets"]:
        for data in row["figures"]:
            figure = figure_from_json(data)
            if isinstance(figure, Predicted) and figure.metric in _columns(form):
                boards.setdefault((figure.method, figure.metric), []).append(row["target"])
    metrics: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (method, metric), names in boards.items():
        metrics.setdefault((method, tuple(names)), []).append(metric.replace("_", " "))
    rows = sorted(metrics.items(), key=lambda item: len(item[0][1]) > _NAMED)  # a long list last: all that are not named before
    return [
        f"{', '.join(found)} by {method}: {', '.join(names) if len(names) <= _NAMED else f'the other {len(names)} boards'}"
        for (method, names), found in rows
    ]


def _cell(figure: Any) -> str:
    from edgetk.toolkit.report import predicted

    return predicted(figure) if isinstance(figure, Predicted) else "—"
