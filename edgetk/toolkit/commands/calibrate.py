"""`edgetk calibrate`: constants of predictors, from published results or from micro-benchmarks on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgetk.core import units
from edgetk.core.errors import UnknownName, closest
from edgetk.toolkit.commands import shared

_SOURCES = ("published", "host")


def calibrate(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="published: microcontrollers, from MLPerf Tiny; host: this machine, from micro-benchmarks."
        ),
    ],
    rounds: Annotated[int, typer.Option("--rounds", help="host: how often every micro-benchmark has its turn.")] = 15,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the JSON there: what a board file names as kernels."),
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Fit the constants that predictions use, and say how far off they are where the fit did not look."""
    from edgetk.toolkit import calibrate as calibration
    from edgetk.toolkit.workspace import Workspace

    if source not in _SOURCES:
        raise UnknownName(
            f"calibrate: the source must be one of {', '.join(_SOURCES)}, got {source!r}; {closest(source, _SOURCES)}"
        )
    with shared.listener().task(f"calibrating from {source}"):
        found = calibration.published() if source == "published" else calibration.host(rounds)
    if output is not None:
        Workspace.at(output.parent).write_json(output.name, found)
    if as_json:
        shared.print_json(found)
    elif source == "published":
        _print_published(found)
    else:
        _print_host(found)


def _print_published(found: dict[str, Any]) -> None:
    print(found["source"])
    for title, rows in (("latency, one result left out", "latency"), ("energy, one result left out", "energy")):
        print(f"\n{title}:")
        for name, row in found[rows].items():
            print(f"  {name:<34} {_error(row)}")
    print(f"\nlatency, a whole board left out:\n  {'calibrated stacks':<34} {_error(found['board_left_out'])}")
    print("\ncycles of one int8 multiply-accumulate (many rows, one row):")
    for row in found["boards"]:
        print(f"  {row['board']:<34} {row['gemm']:.2f}  {row['gemv']:.2f}  {row['core']}")
    print("\nassumed, because two networks cannot tell: " + found["assumed"])


def _print_host(found: dict[str, Any]) -> None:
    error = found["suite_errors"]
    print(found["source"])
    print(
        f"median of {found['rounds']} rounds' fastest runs with nobody else on the core, in the median case "
        f"{units.percent(found['spread'], 0)} above the fastest of all; left of the last cache: "
        f"{units.percent(found['last_cache_share'], 0)}"
    )
    print(f"micro-benchmarks that the fit did not see: {_error(error)}")
    for name, costs in found["kernels"].items():
        text = ", ".join(f"{units.seconds(value)} per {key.replace('_', ' ')}" for key, value in costs.items())
        print(f"  {name:<24} {text or 'nothing of its own'}")


def _error(row: dict[str, float]) -> str:
    return (
        f"median error {units.percent(row['median_error'], 1)}, {units.percent(row['share_within'], 0)} within "
        f"{units.percent(row['bound'], 0)} (n={row['n']})"
    )
