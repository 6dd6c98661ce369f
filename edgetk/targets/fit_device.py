"""Times the micro-benchmark suite on this machine, and fits the costs of its stack's kernels to the times.

Every case is timed in rounds, all cases in turn, so that a busy machine treats them alike. What counts is the processor's time
(the same as the clock's on a quiet machine, and on a busy one without the waiting), and of each round the fastest run, among
those with nobody else on the core (`quiet`). A case's time is the median of its rounds: the fastest of all would favour short
runs, which need less luck. The fit is one least-squares problem over all cases: relative errors, no cost below zero; a byte
from memory costs the same in every kernel, for few cases reach so far. Other cores use the last cache too: how much of it is
left is fitted as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter, thread_time

import numpy as np

from edgetk.core.target import Target
from edgetk.core.workload import Workload
from edgetk.targets.calibrations import with_share
from edgetk.targets.kernel_costs import RUN, Costs, amounts, seconds
from edgetk.targets.quiet import Probe

#: seconds that one case runs in one round, and how many rounds there are
TURN_S = 0.004
#: how often a case runs in one round at least: of few runs, the fastest is slower
RUNS = 4
ROUNDS = 15
#: seconds between two looks at the processor, and how many times its turn a case waits for being left alone
BATCH_S, PATIENCE = 0.0003, 6.0
#: how names of small networks in the suite begin, and the weight of their relative errors in the fit, beside 1 of a chain of
#: one operator: networks are what is predicted
NETWORKS, NETWORK_WEIGHT = "network", 3.0
#: parts of the last cache that may be left to one core
SHARES = (1.0, 0.5, 0.25)
#: terms that all kernels share
SHARED = frozenset({"byte_memory", "far_memory"})


@dataclass(frozen=True)
class Timing:
    """Seconds of one run of a case: the fastest run of each round, and whether the processor was left alone in it."""

    name: str
    fastest: tuple[float, ...]
    quiet: tuple[bool, ...] = ()

    @property
    def seconds(self) -> float:
        """The median of the rounds in which the processor was left alone; where it never was, the fastest of all."""
        return float(np.median(self._counted())) if any(self.quiet) else float(np.min(self.fastest))

    @property
    def spread(self) -> float:
        """How far the median of the rounds that count lies above the fastest of them."""
        return float(np.median(self._counted()) / np.min(self._counted())) - 1

    def _counted(self) -> list[float]:
        alone = [s for s, quiet in zip(self.fastest, self.quiet or (False,) * len(self.fastest), strict=True) if quiet]
        return alone or list(self.fastest)


def interleave(
    steps: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, turn_s: float = TURN_S, probe: Probe | None = None
) -> tuple[Timing, ...]:
    """Processor time of one run of each function, all in turn; the first run of a turn, with cold caches, is discarded."""
    found: dict[str, list[tuple[float, bool]]] = {name: [] for name in steps}
    probe = probe or Probe()
    for _ in range(rounds):
        for name, step in steps.items():
            found[name].append(_turn(step, turn_s, probe))
    return tuple(Timing(name, tuple(s for s, _ in turns), tuple(quiet for _, quiet in turns)) for name, turns in found.items())


def _turn(step: Callable[[], object], turn_s: float, probe: Probe) -> tuple[float, bool]:
    """The fastest run between two probes that found the processor left alone; of all runs where none was, within PATIENCE."""
    step()
    best = {True: float("inf"), False: float("inf")}
    runs, quiet_s, quiet_runs = 0, 0.0, 0
    begin, before = perf_counter(), probe.quiet()
    while True:
        started, batch = perf_counter(), 0
        fastest = float("inf")
        while not batch or perf_counter() < started + BATCH_S:
            batch += 1
            start = thread_time()
            step()
            taken = thread_time() - start
            fastest = min(fastest, taken) if taken > 0 else fastest  # virtual machines' accounts have been seen to stand still
        ended, after = perf_counter(), probe.quiet()
        runs += batch
        best[before and after] = min(best[before and after], fastest)
        if before and after:
            quiet_s, quiet_runs = quiet_s + ended - started, quiet_runs + batch
        before = after
        known = min(best.values()) < float("inf") and runs >= RUNS
        patient = ended - begin < PATIENCE * max(turn_s, RUNS * (ended - begin) / runs)
        if known and ((quiet_runs >= RUNS and quiet_s >= turn_s) or not patient):
            return (best[True], True) if best[True] < float("inf") else (best[False], False)


def fit(work: Mapping[str, Workload], timings: Sequence[Timing], target: Target) -> dict[str, dict[str, float]]:
    """Costs of every kernel in the cases, seconds of each unit, for the stack and caches of `target`."""
    columns: dict[tuple[str, str], int] = {}
    kernels: dict[str, dict[str, float]] = {}
    rows = []
    for timing in timings:
        row: dict[int, float] = {}
        for _, name, found in amounts(work[timing.name], target):
            kernels.setdefault(name, {})
            for key, amount in found.items():
                if amount:
                    column = columns.setdefault(("" if key in SHARED else name, key), len(columns))
                    row[column] = row.get(column, 0.0) + amount / timing.seconds
        rows.append(row)
    matrix = np.zeros((len(rows), len(columns)))
    for index, row in enumerate(rows):
        matrix[index, list(row)] = list(row.values())
    weights = _weights(timings)
    costs = nonnegative(matrix * weights[:, None], weights)
    for (name, key), column in columns.items():
        if costs[column] > 0:
            for chosen in (name,) if name else kernels.keys() - {RUN}:
                kernels[chosen][key] = float(f"{costs[column]:.4g}")
    return kernels


def _weights(timings: Sequence[Timing]) -> np.ndarray:
    return np.array([NETWORK_WEIGHT if timing.name.startswith(NETWORKS) else 1.0 for timing in timings])


def last_cache_share(work: Mapping[str, Workload], timings: Sequence[Timing], target: Target) -> float:
    """How much of the last cache a core has to itself, of SHARES: what the times are told by best."""

    def missed(share: float) -> float:
        cut = with_share(target, share)
        costs = fit(work, timings, cut)
        errors = np.array([predicted(work[timing.name], cut, costs) / timing.seconds - 1 for timing in timings])
        return float(np.linalg.norm(errors * _weights(timings)))

    return min(SHARES, key=missed) if target.caches else 1.0


def nonnegative(matrix: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """argmin |A x − b|² over x ≥ 0 (Lawson & Hanson 1974, chapter 23), with columns scaled to length 1."""
    length = np.maximum(np.linalg.norm(matrix, axis=0), 1e-30)
    q, a = np.linalg.qr(matrix / length)  # the same problem with as many rows as columns
    wanted = q.T @ wanted
    x = np.zeros(a.shape[1])
    free = np.zeros(a.shape[1], dtype=bool)
    for _ in range(10 * a.shape[1]):
        gradient = a.T @ (wanted - a @ x)
        gradient[free] = -np.inf
        enter = int(np.argmax(gradient))
        if gradient[enter] <= 1e-10:
            break
        free[enter] = True
        while True:
            trial = np.zeros_like(x)
            trial[free] = np.linalg.lstsq(a[:, free], wanted, rcond=None)[0]
            if trial[free].min() > 0:
                x = trial
                break
            falling = free & (trial <= 0)
            step = float(np.min(x[falling] / np.maximum(x[falling] - trial[falling], 1e-30)))
            x = x + step * (trial - x)
            free &= x > 1e-14
            x[~free] = 0.0
    return np.asarray(x / length)


def predicted(workload: Workload, target: Target, costs: Costs) -> float:
    """Seconds of one run with these costs."""
    return sum(found for _, found, _, _ in seconds(workload, replace(target, kernels=costs)))
