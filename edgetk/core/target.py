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
class Mode:
    """One power mode of a board: what changes with it. None: as in the board's own numbers."""

    name: str
    clock_hz: float
    power_w: float | None = None
    idle_w: float | None = None


@dataclass(frozen=True)
class Target:
    """A board. SI units; `sources` has a line for every number, under its dotted name ("macs_per_cycle.int8").

    core             of its processor, such as "Cortex-M4"
    unit             "cpu" or "gpu" of a board that has both; "" of any other
    macs_per_cycle   of what the stack runs one inference on: one core of a CPU (meters use one thread), or the whole GPU; what
                     its best kernels reach on a microcontroller, the peak of the unit elsewhere
    achievable       share of `macs_per_cycle` that products of a kind reach: "gemm" (several rows of input meet the same
                     weights), "gemv" (one row does), "depthwise"; 1 where nothing is given
    cycles           clock cycles of one output element: of a "product" (rescaling, storing), of an element-wise operator
                     ("element"), of one with an exponential or a root ("transcendental")
    caches           (bytes, bytes per second) of the levels before the memory, smallest first
    clock_hz, mem_bytes_per_s, ram_bytes, flash_bytes   None where nobody has told: nothing is predicted from them then
    power_w, idle_w  while one inference runs that way, and while nothing runs
    joules_per       energy above idle of one "int8_mac", "float32_mac", … and of one "byte" of memory traffic
    modes            power modes with their own clocks
    joules           of a neuromorphic board: energy of one synaptic operation ("synop") and of one "neuron_update"
    kernels          seconds of each thing that a kernel of the stack does, fitted to times on the device; see `kernel_costs`
    host, python     where one stands (ssh://user@host), and its Python that has the runtime; "" where nobody has told
    total_rails      names of its power monitor's rails that add up to the total, where the built-in map does not know
    calibration      what the numbers were fitted on (`source`) and how far predictions were off (`errors`)
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
    core: str = ""
    unit: str = ""
    achievable: Mapping[str, float] = field(default_factory=dict)
    cycles: Mapping[str, float] = field(default_factory=dict)
    caches: tuple[tuple[float, float], ...] = ()
    joules_per: Mapping[str, float] = field(default_factory=dict)
    kernels: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    modes: tuple[Mode, ...] = ()
    host: str = ""
    python: str = "python3"
    total_rails: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} (power mode {self.power_mode}, stack {self.stack.name})"
