"""Whether all sums of a NIR graph are float32 numbers, so that its spikes do not depend on the order of additions.

Each signal is a multiple of a power of two and bounded; products and sums of such signals are as well. Where the bound is no
more than 2^24 of those units, every partial sum is a float32 number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from edgetk.export.nir_run import order, sources

_SIGNIFICAND = 24


class _Signal(NamedTuple):
    """Each channel (C,): a multiple of `unit`, at most `most` in magnitude."""

    unit: np.ndarray
    most: np.ndarray


def sums_are_exact(graph: Any) -> bool:
    """True where no sum of the `nir.NIRGraph` is ever rounded in float32, whatever its inputs."""
    before = sources(graph)
    signals: dict[str, _Signal] = {}
    for name in order(before):
        node, kind = graph.nodes[name], type(graph.nodes[name]).__name__
        if kind == "Input":
            features = _features(graph, int(node.input_type["input"][0]))
            if features is None:
                return False
            signals[name] = features
            continue
        parts = [signals[source] for source in before[name]]
        read = _Signal(np.minimum.reduce([p.unit for p in parts]), np.add.reduce([p.most for p in parts]))
        made = _behind(node, kind, read)
        if not (_fits(read) and _fits(made)):
            return False
        signals[name] = made
    return True


def _fits(signal: _Signal) -> bool:
    return bool((signal.most <= signal.unit * 2.0**_SIGNIFICAND).all())


def _features(graph: Any, width: int) -> _Signal | None:
    """Rounded features are multiples of the last rounding's step; of others nothing is known."""
    rounding = np.asarray(graph.metadata.get("input_rounding", ()), np.float64).reshape(-1, 3)
    if not len(rounding) or np.frexp(rounding[-1, 0])[0] != 0.5:
        return None
    step, low, high = rounding[-1]
    return _Signal(np.full(width, step), np.full(width, max(-low, high)))


def _behind(node: Any, kind: str, read: _Signal) -> _Signal:
    if kind == "LIF":
        return _Signal(np.ones(len(read.unit)), np.ones(len(read.unit)))
    if kind in ("Linear", "Affine"):
        weight = np.asarray(node.weight, np.float64)
        unit, most = (_unit(weight) * read.unit).min(axis=1), np.abs(weight) @ read.most
        if kind == "Affine":
            unit, most = np.minimum(unit, _unit(node.bias)), most + np.abs(np.asarray(node.bias, np.float64))
        return _Signal(unit, most)
    if kind == "Scale":
        return _Signal(_unit(node.scale) * read.unit, np.abs(np.asarray(node.scale, np.float64)) * read.most)
    return read  # Delay and Output


def _unit(x: Any) -> np.ndarray:
    """The largest power of two that each float32 number is a multiple of; infinity for 0."""
    fraction, exponent = np.frexp(np.asarray(x, np.float64))
    whole = (fraction * 2.0**_SIGNIFICAND).astype(np.int64)
    unit = np.ldexp((whole & -whole).astype(np.float64), exponent - _SIGNIFICAND)
    return np.where(whole == 0, np.inf, unit)
