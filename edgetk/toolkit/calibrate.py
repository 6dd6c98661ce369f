"""Calibrations as data: stacks of microcontrollers from published results, and the kernels of this machine from a suite."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgetk.core.target import Target
    from edgetk.core.workload import Workload
    from edgetk.targets.fit_device import Timing
    from edgetk.targets.fit_published import Left

#: shares of the micro-benchmarks that are left out in turn
FOLDS = 10
#: relative errors that predictions are held to
LATENCY, ENERGY = 0.10, 0.25


def published() -> dict[str, Any]:
    """What `edgetk calibrate published` prints: errors of left out cells, and the constants of each board and stack."""
    from edgetk.targets import fit_published as fits
    from edgetk.targets import published as results

    latency, energy = fits.leave_one_out(), fits.energy_leave_one_out()
    boards = [cell for cell in fits.leave_board_out() if cell.key.stack in fits.CALIBRATED]
    rows = []
    for key, both in fits.cells().items():
        if len(both) == len(fits.NETWORKS):
            costs = fits.costs(both)
            rows.append({"board": str(key), "core": key.core, "gemm": costs.gemm, "gemv": costs.gemv})
    return {
        "source": f"MLPerf Tiny v0.5 to v1.3, closed division: {len(results.rows())} results of two networks",
        "latency": _by_stack(latency, LATENCY, fits.CALIBRATED),
        "energy": _by_stack(energy, ENERGY, fits.CALIBRATED),
        "board_left_out": fits.summary(boards, LATENCY).to_json(),
        "boards": rows,
        "assumed": f"a depthwise multiply-accumulate costs {fits.DEPTHWISE:g}, an output {fits.OUTPUT:g} of those of many rows",
    }


def _by_stack(left: Sequence[Left], bound: float, chosen: Sequence[str]) -> dict[str, Any]:
    from edgetk.targets.fit_published import summary

    calibrated = [cell for cell in left if cell.key.stack in chosen]
    found = {
        f"calibrated stacks ({', '.join(chosen)})": summary(calibrated, bound).to_json(),
        "all": summary(left, bound).to_json(),
    }
    for stack in sorted({cell.key.stack for cell in left}):
        found[stack] = summary([cell for cell in left if cell.key.stack == stack], bound).to_json()
    return found


@contextmanager
def runners(files: Mapping[str, tuple[Any, Any]]) -> Iterator[dict[str, Callable[[], float]]]:
    """Functions that run graphs once each in ONNX Runtime, by name, from (model, signature)."""
    from edgetk.targets.meters._session import Runner

    with tempfile.TemporaryDirectory() as folder:
        steps = {}
        for index, (name, (model, signature)) in enumerate(files.items()):
            path = Path(folder) / f"{index}.onnx"
            path.write_bytes(model.SerializeToString())
            steps[name] = Runner(path, signature).step
        yield steps


def host(rounds: int) -> dict[str, Any]:
    """Time the suite on this machine and fit the costs of its kernels."""
    from edgetk.targets import board, fit_device, suite

    target = with_caches(board.load("host"))
    cases = {case.name: (case.model, case.signature) for case in suite.cases()}
    with runners(cases) as steps:
        timings = fit_device.interleave(steps, rounds)
    return fitted(timings, works(cases), target, rounds)


def with_caches(target: Target) -> Target:
    """This machine with the sizes of its caches, and nothing fitted."""
    from dataclasses import replace

    from edgetk.targets import machine

    return replace(target, caches=tuple((float(size), 0.0) for size in machine.cache_bytes()), kernels={})


def works(cases: Mapping[str, tuple[Any, Any]]) -> dict[str, Workload]:
    """What is counted in each graph."""
    from edgetk.targets.count import count

    return {name: count(model, signature) for name, (model, signature) in cases.items()}


def fitted(timings: Sequence[Timing], work: Mapping[str, Workload], target: Target, rounds: int) -> dict[str, Any]:
    """The calibration of this machine from the times of the suite."""
    import numpy as np
    import onnxruntime

    from edgetk.targets import calibrations, fit_device, machine

    sizes = [int(size) for size, _ in target.caches]
    share = fit_device.last_cache_share(work, timings, target)
    target = calibrations.with_share(target, share)
    errors = []
    for fold in range(FOLDS):
        costs = fit_device.fit(work, [t for i, t in enumerate(timings) if i % FOLDS != fold], target)
        seen = [t for i, t in enumerate(timings) if i % FOLDS == fold]
        errors += [abs(fit_device.predicted(work[t.name], target, costs) / t.seconds - 1) for t in seen]
    processor = machine.cpu_model()
    day = datetime.now(UTC).date().isoformat()
    return {
        "schema_version": calibrations.SCHEMA_VERSION,
        "source": f"{len(timings)} micro-benchmarks on {processor}, ONNX Runtime {onnxruntime.__version__}, one thread, {day}",
        "device": processor,
        "runtime": f"onnxruntime {onnxruntime.__version__}",
        "cache_bytes": sizes,
        "last_cache_share": share,
        "rounds": rounds,
        "turn_s": fit_device.TURN_S,
        "load_average": machine.load_average(),
        "spread": float(np.median([t.spread for t in timings])),
        "suite_errors": {
            "n": len(errors),
            "median_error": float(np.median(errors)),
            "share_within": float(np.mean(np.array(errors) <= LATENCY)),
            "bound": LATENCY,
        },
        "kernels": fit_device.fit(work, timings, target),
        "seconds": {t.name: float(f"{t.seconds:.4g}") for t in timings},
    }
