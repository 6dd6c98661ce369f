"""A study of early decisions (`curve.json`, as data) for the terminal, and as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from edgetk.core import units
from edgetk.toolkit import html, line_chart, report

if TYPE_CHECKING:
    from rich.console import Console

Study = Mapping[str, Any]
Row = tuple[str, ...]

#: after which shares of the real frames the table has a row of its own
_SHARES = {0.25: "a quarter", 0.5: "half", 0.75: "three quarters"}
#: the second chart begins this far below the best final accuracy, as a share of it
_CLOSE = 0.9

_COLUMNS = ("model", "point", "token", "frames heard", "time heard", "accuracy", "95 % interval")
_SAVING_COLUMNS = ("model", "counted in", "from", "heard by then", "saved", "accuracy there")
_EXIT_COLUMNS = (
    "model",
    "sure at",
    "accuracy",
    "95 % interval",
    "mean heard",
    "median",
    "saved",
    "decided early",
    "never sure",
)


def terminal(study: Study, console: Console) -> None:
    """Print what matters of a study: a few points of each curve, the savings both ways of counting, and the exits."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    models = _shortened(study["models"])
    line(heading(study))
    line("")
    points = [row for model in models for row in point_rows(model)]
    console.print(report.table("Accuracy by how much was heard", _COLUMNS, points))
    savings = [row for model in models for row in saving_rows(model)]
    console.print(report.table("From where on accuracy stays at 99 % of the final one", _SAVING_COLUMNS, savings))
    exits = [row for model in models for row in exit_rows(model)]
    if exits:
        console.print(report.table("Stopping when sure", _EXIT_COLUMNS, exits))
        line(f"  {exit_text(study)}")


def heading(study: Study) -> str:
    """ "early decision on speech-commands, test split of …, n=1463 (the 1463 clips of …)"."""
    note = f" ({study['note']})" if study["note"] else ""
    return f"early decision on {study['task']}, {study['split']} split of {study['data']}, n={study['n']}{note}"


def point_rows(model: Study) -> list[Row]:
    """The first decision, some on the way, where accuracy stays at 99 % of the final one, and the end."""
    real, curve, saving = model["real_frames"], model["curve"], model["saving"]
    heard = {point["frames"]: point for point in curve}  # the last token known after so many frames
    chosen = {round(real * share): name for share, name in _SHARES.items() if round(real * share) in heard}
    chosen |= {min(heard): "first decision", saving["frames"]: "99 % of final", real: "end"}
    rows: list[Row] = []
    for frames, point in sorted(chosen.items()):
        p, name = heard[frames], "" if rows else model["model"]
        where = f"{frames} of {real}"
        cells = (str(p["token"]), where, units.seconds(p["seconds"]), units.percent(p["top1"]), interval(p["ci95"]))
        rows.append((name, point, *cells))
    return rows


def saving_rows(model: Study) -> list[Row]:
    """What need not be heard, counted honestly and as papers do."""
    s, real = model["saving"], model["real_frames"]
    p = s["published"]
    honest = "frames heard, look-ahead included"
    papers = "tokens, as published: no look-ahead, padding counted as input"
    return [
        (model["model"], honest, f"{s['frames']} of {real}", units.seconds(s["seconds"]), units.percent(s["saved"], 1),
         units.percent(s["top1"])),
        ("", papers, f"{p['token']} of {p['of_tokens']}", "", units.percent(p["saved"], 1), units.percent(p["top1"])),
    ]  # fmt: skip


def exit_rows(model: Study) -> list[Row]:
    """One row per confidence."""
    rows = []
    for i, e in enumerate(model["exits"]):
        heard = f"{e['mean_frames']:.1f} frames, {units.seconds(e['mean_s'])}"
        shares = (units.percent(e[key], 1) for key in ("saved", "early", "never"))
        name, score = (model["model"] if i == 0 else ""), (units.percent(e["top1"]), interval(e["ci95"]))
        rows.append((name, f"{e['threshold']:g}", *score, heard, f"{e['median_frames']:g}", *shares))
    return rows


def interval(bounds: Sequence[float]) -> str:
    """ "96.8–98.3"."""
    return f"{100 * bounds[0]:.1f}–{100 * bounds[1]:.1f}"


def exit_text(study: Study) -> str:
    """What "sure" means."""
    earliest = next((e["earliest_frame"] for model in study["models"] for e in model["exits"]), 1)
    after = f", not before {earliest} frames are heard" if earliest > 1 else ""
    return (
        f"sure: the first token whose largest probability reaches that{after}; probability: {study['confidence']}. "
        "Early: before all real frames were heard. Never sure: decided at the end"
    )


def render(study: Study) -> str:
    """The page for a study. Every text in it is escaped, nothing is fetched, there is no script."""
    from markupsafe import Markup

    models = _shortened(study["models"])
    best = max(model["final"]["top1"] for model in models)
    return html.page(
        "curve.html.j2",
        {
            "title": ", ".join(model["model"] for model in models),
            "s": study,
            "cards": [_card(i, model) for i, model in enumerate(models)],
            "whole": Markup(_chart(models, 0.0)),
            "close": Markup(_chart(models, _CLOSE * best) if best else ""),
            "columns": _COLUMNS,
            "saving_columns": _SAVING_COLUMNS,
            "savings": [row for model in models for row in saving_rows(model)],
            "points": [row for model in models for row in point_rows(model)],
            "exit_columns": _EXIT_COLUMNS,
            "exits": [row for model in models for row in exit_rows(model)],
            "exit_text": exit_text(study),
            "files": [(m["model"], m["form"], name, sha) for m in models for name, sha in m["files"].items()],
        },
    )


def _shortened(models: Sequence[Study]) -> list[Study]:
    """Models that are files under the ends of their paths that tell them apart; curve.json has the whole paths."""
    paths = [PurePath(model["model"]) for model in models]
    ends = ([str(PurePath(*path.parts[-n:])) for path in paths] for n in range(1, max(len(p.parts) for p in paths) + 1))
    names = next((names for names in ends if len(set(names)) == len(names)), [str(path) for path in paths])
    return [{**model, "model": name} for model, name in zip(models, names, strict=True)]


def _card(i: int, model: Study) -> dict[str, Any]:
    s, final = model["saving"], model["final"]
    p = s["published"]
    return {
        "series": i % line_chart.SERIES,
        "model": model["model"],
        "frames": f"{s['frames']} of {model['real_frames']} frames",
        "seconds": units.seconds(s["seconds"]),
        "saved": units.percent(s["saved"], 1),
        "final": f"{units.percent(final['top1'])} at the end ({interval(final['ci95'])})",
        "lookahead": f"{model['lookahead_frames']} frames, {units.seconds(model['lookahead_s'])}",
        "published": f"{p['token']} of {p['of_tokens']} tokens, {units.percent(p['saved'], 1)} saved",
    }


def _chart(models: Sequence[Study], floor: float) -> str:
    lines = [_line(model) for model in models]
    window, hop = models[0]["window_s"], models[0]["hop_s"]

    def times(low: float, high: float) -> list[tuple[float, str]]:
        first, last = (window + (frames - 1) * hop for frames in (low, high))
        step = next(m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5) if last - first <= 12 * m * 10.0**e)
        return [
            ((n * step - window) / hop + 1, units.seconds(n * step)) for n in range(ceil(first / step), int(last / step) + 1)
        ]

    scales = line_chart.Scales("frames heard", "accuracy", "time heard, window of the last frame included", times)
    name = "accuracy against frames heard" + (", close to the end" if floor else "")
    return line_chart.draw(lines, scales, name, floor)


def _line(model: Study) -> line_chart.Line:
    heard = {p["frames"]: (p["top1"], *p["ci95"]) for p in model["curve"]}
    s, name = model["saving"], model["model"]
    title = f"{name}: {units.percent(s['top1'])} after {s['frames']} frames, 99 % of its final accuracy"
    marks = [line_chart.Mark(s["frames"], s["top1"], f"99 % at {s['frames']}", title)]
    for e in model["exits"]:
        title = f"{name}, sure at {e['threshold']:g}: {units.percent(e['top1'])} after {e['mean_frames']:.1f} frames on average"
        marks.append(line_chart.Mark(e["mean_frames"], e["top1"], f"sure at {e['threshold']:g}", title, diamond=True))
    level = s["of_final"] * model["final"]["top1"]
    return line_chart.Line(name, [(f, *ys) for f, ys in sorted(heard.items())], level, marks)


__all__ = ["render", "terminal"]
