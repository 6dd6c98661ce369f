"""Runs a NIR graph with numpy, step by step of a fixed length: the second opinion on what a `.nir` file computes.

It knows Input, Output, Linear, Affine, Scale, Delay and LIF, in graphs without loops and with one input and one output; what
several nodes send to one adds up. LIF is forward Euler, v' = v + dt / tau (v_leak - v + r x), then a spike and a reset where
v' > v_threshold, in the same step; v starts at v_reset. Delays are whole steps, 0 before the first.

Every node computes in double precision and sends float32: sums that float32 can hold come out the same in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np

from edgetk.core.errors import InputError

#: how far from a whole number of steps a delay may be
_WHOLE = 1e-6


@dataclass(frozen=True)
class Run:
    """`output` (B, T, K) of each step; `spikes` (0 and 1) and `membranes` after the reset, (B, T, C) by LIF node."""

    output: np.ndarray
    spikes: Mapping[str, np.ndarray]
    membranes: Mapping[str, np.ndarray]


def simulate(graph: Any, x: np.ndarray, dt: float | None = None) -> Run:
    """Run a `nir.NIRGraph` on features x (B, T, F) float32, rounded first as the graph's metadata say.

    `dt` is the length of a step in the unit of the graph's time constants, by default the one in its metadata. Raises
    InputError for a graph or features that it cannot run.
    """
    step = dt if dt is not None else graph.metadata.get("dt")
    if step is None or not float(step) > 0:
        raise InputError(f"nir: the length of a step must be known and above 0, got {step}; pass dt")
    before = sources(graph)
    source, sink = _ends(graph)
    signals: dict[str, np.ndarray] = {}
    spikes: dict[str, np.ndarray] = {}
    membranes: dict[str, np.ndarray] = {}
    for name in order(before):
        node, kind = graph.nodes[name], type(graph.nodes[name]).__name__
        if name == source:
            signals[name] = rounded(graph, x)
            _check_width(node, x)
            continue
        total = _sum([signals[s] for s in before[name]])
        if kind == "LIF":
            spikes[name], membranes[name] = _lif(node, total, float(step))
            signals[name] = spikes[name]
        elif kind in _KINDS:
            signals[name] = _KINDS[kind](node, total, float(step)).astype(np.float32)
        else:
            known = ", ".join(sorted([*_KINDS, "Input", "LIF"]))
            raise InputError(f"nir: node {name} must be one of {known}, got {kind}; run the file in a simulator that knows it")
    return Run(signals[sink], spikes, membranes)


def rounded(graph: Any, x: np.ndarray) -> np.ndarray:
    """Features as the network reads them: row (step, low, high) of the metadata's `input_rounding` after row."""
    x = np.asarray(x, np.float32)
    for step, low, high in np.asarray(graph.metadata.get("input_rounding", ()), np.float32).reshape(-1, 3):
        x = np.clip(np.round(x / step) * step, low, high)
    return x


def decisions(output: np.ndarray) -> np.ndarray:
    """Class scores after each step, (B, T, K): the mean of the outputs (B, T, K) of all steps so far."""
    total = np.cumsum(output, axis=1, dtype=np.float64)
    mean: np.ndarray = (total / np.arange(1, output.shape[1] + 1)[:, None]).astype(np.float32)
    return mean


def _ends(graph: Any) -> tuple[str, str]:
    found = []
    for kind in ("Input", "Output"):
        names = [name for name, node in graph.nodes.items() if type(node).__name__ == kind]
        if len(names) != 1:
            raise InputError(f"nir: the graph must have one {kind} node, got {len(names)}; run its parts one by one")
        found.append(names[0])
    return found[0], found[1]


def sources(graph: Any) -> dict[str, list[str]]:
    """Names of the nodes that each node reads."""
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, reader in graph.edges:
        before[reader].append(source)
    return before


def order(before: Mapping[str, list[str]]) -> list[str]:
    """Names of nodes, each after all that it reads. Raises InputError for a loop."""
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError as error:
        loop = " -> ".join(error.args[1])
        raise InputError(f"nir: the graph must have no loop, got {loop}; run it in a simulator that knows loops") from error


def _check_width(node: Any, x: np.ndarray) -> None:
    width = tuple(int(n) for n in node.input_type["input"])
    if x.ndim != 3 or x.shape[2:] != width:
        raise InputError(
            f"nir: features must have the shape (clips, steps, {width[0]}), got {x.shape}; see front_end in the metadata"
        )


def _sum(parts: list[np.ndarray]) -> np.ndarray:
    total = parts[0].astype(np.float64)
    for part in parts[1:]:
        total += part
    return total


def _lif(node: Any, x: np.ndarray, dt: float) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and membranes after the reset, float32, of drives x (B, T, C)."""
    x = x.astype(np.float32).astype(np.float64)
    tau, r, leak = (np.asarray(a, np.float64) for a in (node.tau, node.r, node.v_leak))
    threshold, rest = (np.asarray(a, np.float32) for a in (node.v_threshold, node.v_reset))
    v = np.broadcast_to(rest, (len(x), *rest.shape))
    spikes, membranes = (np.zeros(x.shape, np.float32) for _ in range(2))
    for t in range(x.shape[1]):
        h = (v + dt / tau * (leak - v + r * x[:, t])).astype(np.float32)
        fired = h > threshold
        v = np.where(fired, rest, h)
        spikes[:, t], membranes[:, t] = fired, v
    return spikes, membranes


def _delay(node: Any, x: np.ndarray, dt: float) -> np.ndarray:
    steps = np.asarray(node.delay, np.float64) / dt
    whole = np.rint(steps).astype(int)
    if (np.abs(steps - whole) > _WHOLE).any() or (whole < 0).any():
        wrong = float(steps[(np.abs(steps - whole) > _WHOLE) | (whole < 0)][0])
        raise InputError(f"nir: delays must be whole steps of {dt:g}, got {wrong:g} steps; check dt")
    when = np.arange(x.shape[1])[:, None] - whole
    late = np.take_along_axis(x, np.maximum(when, 0)[None], axis=1)
    return np.where(when >= 0, late, 0.0)


def _affine(node: Any, x: np.ndarray, dt: float) -> np.ndarray:
    y: np.ndarray = x @ np.asarray(node.weight, np.float64).T
    return y + node.bias if hasattr(node, "bias") else y


_KINDS: Mapping[str, Callable[[Any, np.ndarray, float], np.ndarray]] = {
    "Linear": _affine,
    "Affine": _affine,
    "Scale": lambda node, x, dt: x * node.scale,
    "Delay": _delay,
    "Output": lambda node, x, dt: x,
}
