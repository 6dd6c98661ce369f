"""Fits microcontroller stacks to published results with few physical constants, and says how far off that is elsewhere.

A network costs, in clock cycles,

    C = a · (MACs of gemm + ρ_dw · MACs of depthwise + ρ_gemv · MACs of gemv + ρ_out · outputs of products)

with a: cycles of one multiply-accumulate where weights are met by many rows, of one stack version on one board; ρ_gemv: how
much dearer it is where each weight is used once, of a stack on a core; ρ_dw and ρ_out: assumed, because two networks cannot
tell them apart. What the ratio of the two networks tells of ρ_gemv is a sum of small effects (stack, stack on core, version of
a stack), least squares with a penalty on each, so that a stack with few results leans on the others.

Leave one out: each published cell (board, stack, version, variant, network) is predicted from all others; its own board and
stack give a, and all others give ρ_gemv. A board is also left out whole: then other boards with its core and stack give a.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgetk.core.workload import Workload
from edgetk.targets import published
from edgetk.targets.kinds import product
from edgetk.targets.published import Row

#: a multiply-accumulate of a depthwise convolution, in those of gemm: too few channels meet to fill the inner loop (assumed)
DEPTHWISE = 2.0
#: one output of a product (bias, rescaling, storing), in multiply-accumulates of gemm (assumed)
OUTPUT = 10.0
#: how strongly the effects of log ρ_gemv are pulled to zero: stack, stack on core, version
_PULL = {"all": 1e-3, "stack": 0.1, "core": 0.3, "version": 1.0}
#: stacks that boards of edgetk are calibrated on and that are published often enough to be left out
CALIBRATED = ("X-CUBE-AI", "Bosch HALE")
NETWORKS = ("ds-cnn", "auto-encoder")


@dataclass(frozen=True)
class Key:
    """A board with a stack in one version; a published result of it is a cell for each network."""

    stack: str
    variant: str
    version: str
    board: str
    core: str

    def __str__(self) -> str:
        return " ".join(part for part in (self.board, self.stack, self.version, self.variant) if part)


@dataclass(frozen=True)
class Costs:
    """Cycles of one int8 multiply-accumulate by kind, and of one output of a product."""

    gemm: float
    gemv: float

    @property
    def depthwise(self) -> float:
        return DEPTHWISE * self.gemm

    @property
    def output(self) -> float:
        return OUTPUT * self.gemm


@dataclass(frozen=True)
class Left:
    """A cell that was predicted from the others: relative error, signed."""

    key: Key
    network: str
    published: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted / self.published - 1


def cells(
    rows: Sequence[Row] | None = None, of: Callable[[Row], float | None] = lambda row: row.cycles
) -> dict[Key, dict[str, float]]:
    """Cycles (or what `of` gives) of each key and network, int8; the geometric mean where it was submitted more than once."""
    found: dict[Key, dict[str, list[float]]] = {}
    for row in published.rows() if rows is None else rows:
        value = of(row)
        if row.precision == "int8" and value is not None:
            key = Key(row.stack, row.variant, row.version, row.board, row.core)
            found.setdefault(key, {}).setdefault(row.network, []).append(value)
    return {key: {n: math.exp(float(np.mean(np.log(v)))) for n, v in both.items()} for key, both in found.items()}


def calibrated(table: Mapping[Key, Mapping[str, float]]) -> tuple[Key, ...]:
    """The keys that can be left out and still be told: both networks are published, and so they are for the same stack and core
    on another board or in another version."""
    pairs = [key for key in table if len(table[key]) == len(NETWORKS)]
    kin = Counter((key.stack, key.variant, key.core) for key in pairs)
    return tuple(key for key in pairs if kin[key.stack, key.variant, key.core] > 1)


def ratio(both: Mapping[str, float]) -> float:
    """log of: cycles of the auto-encoder for those of the keyword spotter."""
    return math.log(both["auto-encoder"] / both["ds-cnn"])


def fitted_ratio(table: Mapping[Key, Mapping[str, float]], key: Key) -> float:
    """`ratio` of `key` as the others in `table` tell it."""
    pairs = [k for k in table if len(table[k]) == len(NETWORKS)]
    names: dict[tuple[str, ...], int] = {}
    columns = [[names.setdefault(effect, len(names)) for effect in _effects(k)] for k in pairs]
    design = np.zeros((len(pairs), len(names)))
    for row, used in enumerate(columns):
        design[row, used] = 1.0
    pull = np.diag([_PULL[name[0]] for name in names])
    seen = np.array([ratio(table[k]) for k in pairs])
    effects = np.linalg.solve(design.T @ design + pull, design.T @ seen)
    return float(sum(effects[names[e]] for e in _effects(key) if e in names))


def _effects(key: Key) -> list[tuple[str, ...]]:
    return [("all",), ("stack", key.stack, key.variant), ("core", key.stack, key.core), ("version", key.stack, key.version)]


def costs(both: Mapping[str, float]) -> Costs:
    """The two constants that give these cycles of the two networks."""
    work = published.networks()
    spotter, detector = (_amounts(work[name]) for name in NETWORKS)
    # C_i = gemm · fixed_i + gemv · vector_i
    system = np.array([spotter, detector])
    gemm, gemv = np.linalg.solve(system, [both[name] for name in NETWORKS])
    return Costs(float(gemm), float(gemv))


def _amounts(workload: Workload) -> tuple[float, float]:
    """Multiply-accumulates that gemm stands for, and those of gemv."""
    fixed = vector = 0.0
    for op in workload.ops:
        if op.macs:
            kind = product(op)
            vector += op.macs if kind == "gemv" else 0.0
            fixed += op.macs * {"gemm": 1.0, "depthwise": DEPTHWISE, "gemv": 0.0}[kind] + OUTPUT * op.elements
    return fixed, vector


def leave_one_out(of: Callable[[Row], float | None] = lambda row: row.cycles) -> tuple[Left, ...]:
    """Every cell of the calibrated keys, predicted from all others: its partner gives the speed, the other keys the ratio."""
    table = cells(of=of)
    found = []
    for key in calibrated(table):
        others = {k: v for k, v in table.items() if k != key}
        log = fitted_ratio(others, key)
        both = table[key]
        found.append(Left(key, "auto-encoder", both["auto-encoder"], both["ds-cnn"] * math.exp(log)))
        found.append(Left(key, "ds-cnn", both["ds-cnn"], both["auto-encoder"] * math.exp(-log)))
    return tuple(found)


def leave_board_out() -> tuple[Left, ...]:
    """Every cell whose stack version is published on another board with the same core: predicted from those boards alone."""
    table = cells()
    found = []
    for key, both in table.items():
        same = [k for k in table if _alike(k) == _alike(key) and k.board != key.board]
        for network, value in both.items():
            others = [table[k][network] for k in same if network in table[k]]
            if others:
                found.append(Left(key, network, value, math.exp(float(np.mean(np.log(others))))))
    return tuple(found)


def _alike(key: Key) -> tuple[str, ...]:
    return (key.stack, key.variant, key.version, key.core)


def energy_leave_one_out() -> tuple[Left, ...]:
    """Energy of every cell of calibrated keys: the predicted time at the power that the partner drew."""
    return leave_one_out(lambda row: row.energy_j)


@dataclass(frozen=True)
class Summary:
    """How far off predictions of cells were that the fit did not see."""

    n: int
    within: float
    bound: float
    median: float

    def to_json(self) -> dict[str, float]:
        return {"n": self.n, "share_within": self.within, "bound": self.bound, "median_error": self.median}


def summary(left: Sequence[Left], bound: float) -> Summary:
    """Share of cells within `bound`, and the median of the absolute relative error."""
    errors = np.abs([cell.error for cell in left])
    return Summary(len(left), float(np.mean(errors <= bound)), bound, float(np.median(errors)))
