"""A board in one power mode with one software stack, as data: every number has a source or says "assumed"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stack:
    """The software that runs graphs on the board, and what it accepts.

    activation is the integer type of quantized activations ("uint8" for x86 ONNX Runtime, "int8" for TensorRT and
    Cortex-M); `operators` empty means: all of the runtime's standard operators. Graphs are written in `opset`; `max_opset` is
    the newest one the stack reads (None: not known to be newer). `exports` are the exporters whose files the stack reads.
    """

    name: str
    runtime: str
    opset: int = 17
    ir_version: int = 8
    activation: str = "int8"
    layer_norm: bool = True
    operators: tuple[str, ...] = ()
    max_opset: int | None = None
    exports: tuple[str, ...] = ("onnx",)


@dataclass(frozen=True)
class Target:
    """A board. SI units; `sources` has a line for every number, under its dotted name ("macs_per_cycle.int8").

    macs_per_cycle   of what the stack runs one inference on: one core of a CPU (meters use one thread), or the whole GPU
    clock_hz, mem_bytes_per_s, ram_bytes, flash_bytes   None where nobody has told: nothing is predicted from them then
    power_w, idle_w  while one inference runs that way, and while nothing runs
    joules           of a neuromorphic board: energy of one synaptic operation ("synop") and of one "neuron_update"
    """

    name: str
    description: str
    kind: str
    power_mode: str
    stack: Stack
    clock_hz: float | None
    cores: int
    macs_per_cycle: Mapping[str, float]
    mem_bytes_per_s: float | None
    ram_bytes: int | None
    flash_bytes: int | None
    power_w: float | None = None
    idle_w: float | None = None
    overhead_s_per_op: float = 0.0
    measurable: bool = False
    sources: Mapping[str, str] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    joules: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.name} (power mode {self.power_mode}, stack {self.stack.name})"
