"""A study of composed streams for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edgetk.core import units
from edgetk.toolkit import report
from edgetk.toolkit.curve_report import interval

if TYPE_CHECKING:
    from rich.console import Console

Study = Mapping[str, Any]
Row = tuple[str, ...]

_COLUMNS = (
    "threshold",
    "false rejects",
    "95 % interval",
    "false accepts per hour",
    "95 % interval",
    "in words",
    "background",
    "twice",
)
_ALONE = ("word alone", "said", "threshold", "false rejects", "false accepts per hour", "both bars")
#: rows of the curve on both sides of the chosen threshold
_AROUND = 4


def terminal(study: Study, console: Console) -> None:
    """Print the curve around the chosen threshold, the bars, each word alone, and the cost."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    for text in heading(study):
        line(text)
    console.print(report.table("Operating points", _COLUMNS, curve_rows(study)))
    for text in verdicts(study):
        line(f"  {text}")
    if study["alone"]:
        bar = study["bar"]
        title = (
            f"Each word alone, at the fewest rejects with less than {bar['false_accepts_per_hour_below']:g} accepts per hour"
        )
        console.print(report.table(title, _ALONE, alone_rows(study)))
    line(f"  {cost(study)}")


def heading(study: Study) -> list[str]:
    """What listened to what."""
    rule, scene = study["rule"], study["scene"]
    what = f"keyword {study['keyword']}" if study["keyword"] else f"all {len(study['words'])} words"
    said = sum(scene["counts"].values())
    return [
        f"{study['model']} in {study['runtime']}: {what} in {study['streams']} streams of {scene['minutes']:g} minutes, "
        f"seeds from {study['seed']}, composed from the {study['split']} split of {study['data']}",
        f"  {said} words in each at {scene['snr_db'][0]:g} to {scene['snr_db'][1]:g} dB over {study['background']}; "
        f"{study['at_rule']['said']} occurrences of {study['distinct_clips']} clips count",
        f"  detector: mean of {rule['window']} steps, {rule['hold']} in a row, {rule['refractory']} between two; "
        f"right from the clip's start to {study['tolerance_s']:g} s after its end",
    ]


def curve_rows(study: Study) -> list[Row]:
    """The points around the detector's threshold and the one that the bar is judged at."""
    curve = study["curve"]
    chosen = next(i for i, point in enumerate(curve) if point["threshold"] == study["rule"]["threshold"])
    judged = {(study["bar"]["best"] or study["rule"])["threshold"]}
    near = [p for i, p in enumerate(curve) if abs(i - chosen) <= _AROUND or p["threshold"] in judged]
    return [_row(point, study) for point in near]


def _row(point: Study, study: Study) -> Row:
    mark = " *" if point["threshold"] == study["rule"]["threshold"] else ""
    rejects = f"{point['false_rejects']} of {point['said']}, {units.percent(point['false_reject_rate'])}"
    low, high = point["false_accepts_ci95"]
    accepts = f"{point['false_accepts']} in {point['hours']:.3g} h, {point['false_accepts_per_hour']:.3g}"
    kinds = (point["in_other_words"], point["in_background"], point["repeated"])
    return (f"{point['threshold']:g}{mark}", rejects, interval(point["false_reject_ci95"]), accepts, f"{low:.2g}–{high:.3g}",
            *map(str, kinds))  # fmt: skip


def verdicts(study: Study) -> list[str]:
    """The bars, in words."""
    bar, point, best = study["bar"], study["at_rule"], study["bar"]["best"]
    wanted = f"fewer than {bar['false_accepts_per_hour_below']:g} false accepts per hour at less than "
    wanted += f"{units.percent(bar['false_reject_rate_below'], 0)} false rejects"
    found = [f"{'met' if bar['met'] else 'NOT met'} at threshold {study['rule']['threshold']:g}: {wanted}; got {_pair(point)}"]
    if best is None:
        found.append("no threshold of the curve keeps to these false accepts")
    else:
        found.append(
            f"best point of this curve: {_pair(best)} at {best['threshold']:g}; choose by it on validation, not on test"
        )
    if rule := study["mlperf"]:
        counts = ", ".join(f"{s['false_positives']}/{s['false_negatives']}" for s in rule["streams"])
        found.append(f"{rule['met']} of {rule['of']} streams keep the rule of {rule['rule']}: {counts}")
    return found


def _pair(point: Study) -> str:
    return f"{point['false_accepts_per_hour']:.2g} per hour and {units.percent(point['false_reject_rate'])}"


def alone_rows(study: Study) -> list[Row]:
    """One row for each word as the only one that is watched, at the best point of its own curve."""
    rows: list[Row] = []
    for word in study["alone"]:
        best, most = word["bar"]["best"], study["bar"]["false_reject_rate_below"]
        name = (word["word"], str(word["said"]))
        if best is None:
            rows.append((*name, "none", "", "", "no"))
            continue
        numbers = (f"{best['threshold']:g}", units.percent(best["false_reject_rate"]), f"{best['false_accepts_per_hour']:.2g}")
        rows.append((*name, *numbers, "yes" if best["false_reject_rate"] < most else "no"))
    return rows


def cost(study: Study) -> str:
    """What a step takes, and how much of the time that is."""
    cost, network = study["cost"], study["cost"]["network"]
    steps = f"a step takes {units.seconds(network['p50_s'])} (p99 {units.seconds(network['p99_s'])}, n={network['n']}) measured"
    gate = f", the gate lets {units.percent(cost['steps_share'], 1)} of the frames through" if cost["gate"] else ""
    return f"{steps}{gate}: duty cycle {units.percent(cost['duty'], 1)} of one core, network alone"


__all__ = ["alone_rows", "cost", "curve_rows", "heading", "terminal", "verdicts"]
