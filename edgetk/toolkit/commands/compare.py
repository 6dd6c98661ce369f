"""`edgetk compare`: how far predictions were off from measurements of the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgetk.core import units
from edgetk.toolkit.commands import shared


def compare(
    predicted: Annotated[Path, typer.Argument(metavar="PREDICTED", help="JSON with predicted figures.")],
    measured: Annotated[Path, typer.Argument(metavar="MEASURED", help="JSON with measured figures of the same artifacts.")],
    device: Annotated[str, typer.Option("--device", help="Predictions for the device with this in its name.")] = "",
    bound: Annotated[float, typer.Option("--bound", help="Relative error to count the figures within.")] = 0.10,
    as_json: shared.Json = False,
) -> None:
    """Set predictions against measurements: the error of each figure, and the validation of each metric."""
    from edgetk.toolkit import compare as comparison

    pairs = comparison.compare(predicted, measured, device)
    found = comparison.validations(pairs)
    within = {
        metric: sum(abs(p.error) <= bound for p in pairs if p.predicted.metric == metric) / seen.n
        for metric, seen in found.items()
    }
    if as_json:
        rows = [
            {
                "artifact": p.artifact,
                "metric": p.predicted.metric,
                "predicted": p.predicted.value,
                "measured": p.measured.median,
                "error": p.error,
            }
            for p in pairs
        ]
        summary = {m: {**seen.to_json(), "bound": bound, "share_within": within[m]} for m, seen in found.items()}
        shared.print_json({"figures": rows, "validation": summary})
        return
    for p in pairs:
        print(f"{p.artifact}  {p.predicted.metric}: {p.predicted}, {p.measured}: {100 * p.error:+.1f} %")
    for metric, seen in found.items():
        print(
            f"{metric}: median error {units.percent(seen.median_error, 1)}, {units.percent(within[metric], 0)} within "
            f"{units.percent(bound, 0)} (n={seen.n}, {seen.where})"
        )
