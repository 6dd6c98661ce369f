"""Published results on microcontrollers: the rows, and the two networks as operators."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from edgetk.core.workload import Op, Workload

_FILE = Path(__file__).parent / "mlperf_tiny.csv"


@dataclass(frozen=True)
class Row:
    """One published result: a network on a board with a software stack; `energy_j` and `power_w` where they were measured."""

    round: str
    submitter: str
    board: str
    core: str
    clock_hz: float
    supply_v: float | None
    stack: str
    version: str
    variant: str
    precision: str
    network: str
    latency_s: float
    energy_j: float | None
    power_w: float | None
    source: str

    @property
    def cycles(self) -> float:
        return self.latency_s * self.clock_hz


def rows() -> tuple[Row, ...]:
    """All published results."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(_row(line) for line in csv.DictReader(file))


def _row(line: dict[str, str]) -> Row:
    energy = float(line["energy_uj"]) * 1e-6 if line["energy_uj"] else None
    seconds = float(line["energy_run_latency_ms"] or line["latency_ms"]) * 1e-3
    return Row(
        round=line["round"],
        submitter=line["submitter"],
        board=line["board"],
        core=line["core"],
        clock_hz=float(line["clock_mhz"]) * 1e6,
        supply_v=float(line["supply_v"]) if line["supply_v"] else None,
        stack=line["stack"],
        version=line["version"],
        variant=line["variant"],
        precision=line["precision"],
        network=line["network"],
        latency_s=float(line["latency_ms"]) * 1e-3,
        energy_j=energy,
        power_w=energy / seconds if energy else None,
        source=line["source"],
    )


def networks() -> dict[str, Workload]:
    """The two networks of the results, in int8: the keyword spotter (2,656,768 MACs) and the auto-encoder (264,192 MACs)."""
    return {"ds-cnn": _ds_cnn(), "auto-encoder": _auto_encoder()}


def _product(kind: str, name: str, rows: int, depth: int, channels: int, groups: int = 1) -> Op:
    """Weights of `depth` inputs and `channels` outputs that meet `rows` input vectors, in int8 with int32 biases."""
    outputs = rows * channels
    inputs = rows * depth if groups == 1 and kind == "Gemm" else outputs
    weights = depth * channels + 4 * channels
    return Op(kind, name, outputs * depth, outputs, weights, inputs + outputs, "int8", rows=rows, groups=groups)


def _ds_cnn() -> Workload:
    """A 10x4 convolution with stride 2 over 49x10 features, four depthwise-separable blocks of 64 channels on 25x5 places."""
    places, channels = 125, 64
    ops = [_product("Conv", "stem", places, 40, channels)]
    for block in range(4):
        ops.append(_product("Conv", f"depthwise{block}", places, 9, channels, groups=channels))
        ops.append(_product("Conv", f"pointwise{block}", places, channels, channels))
    ops.append(Op("AveragePool", "pool", 0, channels, 0, places * channels + channels, "int8"))
    ops.append(_product("Gemm", "fc", 1, channels, 12))
    ops.append(Op("Softmax", "softmax", 0, 12, 0, 24, "int8"))
    return _workload(ops, 2 * places * channels)


def _auto_encoder() -> Workload:
    """Nine hidden layers of 128 and 8 units between 640 inputs and 640 outputs."""
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    ops = [_product("Gemm", f"fc{i}", 1, a, b) for i, (a, b) in enumerate(pairwise(widths))]
    return _workload(ops, 768)


def _workload(ops: list[Op], peak: int) -> Workload:
    weights = sum(op.weight_bytes for op in ops)
    return Workload(tuple(ops), weights, sum(op.macs // max(op.rows, 1) for op in ops), peak, 0)
