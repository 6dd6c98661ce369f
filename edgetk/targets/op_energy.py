"""Energy of operations by the 45 nm table: for comparing architectures, never a board's energy and never added to it.

    E = Σ_spikes rate · MACs · E_ac  +  Σ_others MACs · E_mac  +  Σ elements · E_add
        + Σ weight bytes read · E_weight byte  +  Σ activation and state bytes · E_activation byte

E_mac and E_add: energy of a multiply-accumulate and an addition in the operator's number format; elements: outputs of operators
that are no products, of which a neuron update is several; E_… byte: of an SRAM that holds all weights, or the peak of live
activations.

E_ac is the addition that a spike causes in its product, in the format of the sum: float32 for float32, and *int32* for int8
weights, because a sum of hundreds of int8 weights does not fit into eight bits. The table's 0.03 pJ for int8 would be the
energy of another adder. The int8 multiply-accumulate stays at the 0.23 pJ that is in use (0.2 + 0.03), which is kind to the
dense network.

Weights of a spiking product are read where there is a spike: of r rows of input that meet the same weights, at most
min(1, r · rate) of the weights. `joules_dense_reads` reads all of them, as a memory without random access would.

Source of the table: M. Horowitz, "Computing's energy problem", ISSCC 2014, fig. 1.1.9 (45 nm, 0.9 V). On real
microcontrollers a MAC costs 100 to 700 pJ, some thousand times the table's: use `roofline` for a board.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgetk.core.workload import Op, Workload
from edgetk.targets.kinds import weights_read

TABLE = "Horowitz, ISSCC 2014, 45 nm"
FORMULA = (
    "E = Σ spiking products: rate · MACs · E_ac + Σ other products: MACs · E_mac + Σ other operators: elements · E_add "
    "+ Σ weight bytes read · E_weight_byte + Σ activation and state bytes · E_activation_byte"
)
#: joules of one multiply-accumulate, of one addition, and of adding one weight to the sum of a product, by number format
MAC_J: Mapping[str, float] = {"int8": 0.23e-12, "float16": 1.5e-12, "float32": 4.6e-12}
ADD_J: Mapping[str, float] = {"int8": 0.03e-12, "float16": 0.4e-12, "float32": 0.9e-12}
ACCUMULATE_J: Mapping[str, float] = {**ADD_J, "int8": 0.1e-12}
#: joules of one 64-bit access to an SRAM of so many bytes
SRAM_J: Mapping[int, float] = {8 * 1024: 10e-12, 32 * 1024: 20e-12, 1024 * 1024: 100e-12}
_WIDTH = {"int8": 1, "float16": 2, "float32": 4}


@dataclass(frozen=True)
class Layer:
    """One product, or one comparison in which neurons decide; the other operators together, a row for each kind and format.

    nodes                how many nodes the row stands for
    spike_rate           of a product whose input is spikes; None of any other
    accumulates          additions of a spiking product, its MACs times its rate; its multiply_accumulates are 0
    element_operations   outputs of an operator that is no product, each at the price of an addition
    weight_bytes         bytes of weights read: of a spiking product those that meet a spike
    activation_bytes     bytes of activations and state, read and written
    """

    name: str
    kind: str
    dtype: str
    nodes: int
    macs: int
    spike_rate: float | None
    accumulates: float
    multiply_accumulates: int
    element_operations: int
    neuron_updates: int
    weight_bytes: float
    activation_bytes: int
    arithmetic_joules: float
    weight_joules: float
    activation_joules: float


@dataclass(frozen=True)
class OpEnergy:
    """Joules of one inference, and of the same graph with every MAC done, all in int8 or all in float32.

    `arithmetic_joules` and `memory_joules` add up to `joules`, and so do the rows of `layers`; `joules_dense_reads` is the same
    with all weights read. `prices` are the joules that `formula` takes from `table`; `rates_from` says on which inputs the
    spike rates were recorded (empty: none were, and every product is multiply-accumulates).
    """

    joules: float
    joules_dense_reads: float
    dense_int8_joules: float
    dense_fp32_joules: float
    arithmetic_joules: float
    memory_joules: float
    accumulates: float
    multiply_accumulates: int
    neuron_updates: int
    formula: str
    table: str
    prices: Mapping[str, float]
    rates_from: str
    layers: tuple[Layer, ...]
    assumptions: tuple[str, ...]


def op_energy(workload: Workload) -> OpEnergy:
    """Energy of the counted operations of `workload` by the table; see the module for formula and prices.

    Spike rates come with the workload, from `count(model, signature, firing)`. Zero weights are not skipped. Each operator
    reads its weights and moves its activations once.
    """
    weight_byte, activation_byte = _sram(workload.weight_bytes), _sram(workload.peak_activation_bytes)
    layers = _merged([_layer(op, weight_byte, activation_byte) for op in workload.ops])
    arithmetic = sum(layer.arithmetic_joules for layer in layers)
    memory = sum(layer.weight_joules + layer.activation_joules for layer in layers)
    unread = sum(weights_read(op) - _weights(op) for op in workload.ops) * weight_byte
    return OpEnergy(
        joules=arithmetic + memory,
        joules_dense_reads=arithmetic + memory + unread,
        dense_int8_joules=_dense(workload, "int8"),
        dense_fp32_joules=_dense(workload, "float32"),
        arithmetic_joules=arithmetic,
        memory_joules=memory,
        accumulates=sum(layer.accumulates for layer in layers),
        multiply_accumulates=sum(layer.multiply_accumulates for layer in layers),
        neuron_updates=sum(layer.neuron_updates for layer in layers),
        formula=FORMULA,
        table=TABLE,
        prices=_prices(layers, weight_byte, activation_byte),
        rates_from=workload.rates_from,
        layers=layers,
        assumptions=_assumptions(workload),
    )


def _assumptions(workload: Workload) -> tuple[str, ...]:
    found = [
        "45 nm table, for comparison only: not the energy of any board",
        "each byte of weights and activations is moved once, as 64-bit SRAM accesses",
        "zero weights are computed like any other",
        "each output of an operator that is no product costs one addition",
    ]
    spiking = [op for op in workload.ops if op.spike_rate is not None]
    if spiking:
        found += [
            f"a product of spikes costs an addition for each weight that meets a spike; rates from {workload.rates_from}",
            "weights of a product of spikes are read where there is a spike, at most once; joules_dense_reads reads all",
        ]
    if any(_format(op.dtype) == "int8" for op in spiking):
        found.append("int8 weights are added to an int32 sum, at the price of an int32 addition")
    if workload.neurons:
        found.append("a neuron update costs what the operators it is made of cost, its membrane read and written included")
    if workload.neurons and not workload.rates_from:
        found.append("no spike rates were recorded: products of spikes are priced as multiply-accumulates")
    others = sorted({op.dtype for op in workload.ops if _format(op.dtype) != op.dtype})
    if others:
        found.append(f"{', '.join(others)} at the cost of the nearest wider format of the table")
    if max(workload.weight_bytes, workload.peak_activation_bytes) > 1024 * 1024:
        found.append("a memory of more than 1 MB costs as one of 1 MB: a lower bound")
    if workload.unknown:
        found.append(f"not included, because not counted: {'; '.join(workload.unknown)}")
    return tuple(found)


def _format(dtype: str) -> str:
    """The table's format for a dtype: itself, or the nearest that is at least as wide."""
    if dtype in MAC_J:
        return dtype
    if dtype in ("bool", "uint8", "int4", "uint4", "int2", "uint2"):
        return "int8"
    return "float16" if dtype == "bfloat16" else "float32"


def _layer(op: Op, weight_byte: float, activation_byte: float) -> Layer:
    weights = _weights(op)
    return Layer(
        name=op.name,
        kind=op.kind,
        dtype=op.dtype,
        nodes=1,
        macs=op.macs,
        spike_rate=op.spike_rate,
        accumulates=op.accumulates,
        multiply_accumulates=op.macs if op.spike_rate is None else 0,
        element_operations=_element_operations(op),
        neuron_updates=op.neurons,
        weight_bytes=weights,
        activation_bytes=op.activation_bytes,
        arithmetic_joules=_arithmetic(op, _format(op.dtype), op.spike_rate),
        weight_joules=weights * weight_byte,
        activation_joules=op.activation_bytes * activation_byte,
    )


def _merged(rows: list[Layer]) -> tuple[Layer, ...]:
    """Products and spike decisions as they are, then one row for each kind and format of the operators that cost anything."""
    own = [row for row in rows if row.macs or row.neuron_updates]
    groups: dict[tuple[str, str], list[Layer]] = {}
    for row in rows:
        if not (row.macs or row.neuron_updates) and (row.arithmetic_joules or row.weight_bytes or row.activation_bytes):
            groups.setdefault((row.kind, row.dtype), []).append(row)
    return (*own, *(_sum(kind, dtype, group) for (kind, dtype), group in groups.items()))


def _sum(kind: str, dtype: str, rows: list[Layer]) -> Layer:
    return Layer(
        name=f"{kind}, {len(rows)} node{'s' if len(rows) > 1 else ''}",
        kind=kind,
        dtype=dtype,
        nodes=len(rows),
        macs=0,
        spike_rate=None,
        accumulates=0.0,
        multiply_accumulates=0,
        element_operations=sum(row.element_operations for row in rows),
        neuron_updates=0,
        weight_bytes=sum(row.weight_bytes for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
        arithmetic_joules=sum(row.arithmetic_joules for row in rows),
        weight_joules=sum(row.weight_joules for row in rows),
        activation_joules=sum(row.activation_joules for row in rows),
    )


def _prices(layers: tuple[Layer, ...], weight_byte: float, activation_byte: float) -> dict[str, float]:
    """The numbers of the table that these layers are charged."""
    found: dict[str, float] = {}
    for layer in layers:
        dtype = _format(layer.dtype)
        if layer.spike_rate is not None:
            found[f"E_ac.{dtype}"] = ACCUMULATE_J[dtype]
        elif layer.macs:
            found[f"E_mac.{dtype}"] = MAC_J[dtype]
        elif layer.element_operations:
            found[f"E_add.{dtype}"] = ADD_J[dtype]
    return dict(sorted(found.items())) | {"E_weight_byte": weight_byte, "E_activation_byte": activation_byte}


def _weights(op: Op) -> float:
    """Bytes of weights that an operator reads: of a spiking product, those of the inputs that spike."""
    share = 1.0 if op.spike_rate is None else min(1.0, op.spike_rate * op.rows)
    return weights_read(op) * share


def _element_operations(op: Op) -> int:
    return op.elements if op.activation_bytes and not op.macs else 0


def _arithmetic(op: Op, dtype: str, spike_rate: float | None) -> float:
    if not op.macs:
        return _element_operations(op) * ADD_J[dtype]
    return op.macs * (MAC_J[dtype] if spike_rate is None else spike_rate * ACCUMULATE_J[dtype])


def _sram(size: float) -> float:
    """Joules per byte moved in a memory of `size` bytes."""
    fitting = [joules for limit, joules in SRAM_J.items() if size <= limit]
    return (fitting[0] if fitting else SRAM_J[1024 * 1024]) / 8


def _dense(workload: Workload, dtype: str) -> float:
    """Joules with every MAC done and all weights read, as if everything were stored and computed in one format."""

    def scale(op: Op) -> float:
        return _WIDTH[dtype] / _WIDTH[_format(op.dtype)]

    weights = sum(weights_read(op) * scale(op) for op in workload.ops)
    activations = sum(op.activation_bytes * scale(op) for op in workload.ops)
    stored = sum(weights_read(op) + op.activation_bytes for op in workload.ops)
    stretch = (weights + activations) / stored if stored else 1.0
    memory = weights * _sram(workload.weight_bytes * stretch) + activations * _sram(workload.peak_activation_bytes * stretch)
    return sum(_arithmetic(op, dtype, None) for op in workload.ops) + memory
