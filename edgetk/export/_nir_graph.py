"""From plain spiking nodes to NIR, and NIR graphs to bytes and back.

NIR: Pedersen et al., Nature Communications 15, 2024, doi:10.1038/s41467-024-52259-9.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetk.core.errors import InputError, MissingExtra, PreconditionError

if TYPE_CHECKING:
    from torch import Tensor

    from edgetk.models.layers.spiking_graph import Node, SpikingGraph

OUTPUT = "output"


def package() -> Any:
    """The package `nir`. Raises MissingExtra."""
    try:
        import nir
    except ImportError as error:
        raise MissingExtra("exporter nir", "nir", "nir") from error
    return nir


def build(graph: SpikingGraph, period_s: float, metadata: Mapping[str, Any]) -> Any:
    """A `nir.NIRGraph` of the same network, for steps of `period_s` seconds.

    Neurons become LIF with tau = period / (1 - decay), r = 1 and v_leak = 0, so that one forward Euler step of a period is
    their equation. NIR fires above the threshold, they fire at it or above: the next smaller float32 number is stored.
    Raises PreconditionError where NIR refuses the graph.
    """
    from edgetk.models.layers.spiking_graph import INPUT

    nir = package()
    if wrong := [name for name in graph.nodes if not name.isidentifier() or name in (INPUT, OUTPUT)]:
        raise PreconditionError(
            f"nir: names of nodes must be letters, digits and underscores, and not {INPUT} or {OUTPUT}, got {wrong[0]!r}; "
            "rename it in spiking_graph()"
        )
    nodes = {name: _node(nir, node, period_s) for name, node in graph.nodes.items()}
    try:
        width = nodes[graph.output].output_type["output"]
        nodes[INPUT] = nir.Input({"input": np.array([graph.width])})
        nodes[OUTPUT] = nir.Output({"output": np.array(width)})
        return nir.NIRGraph(nodes, [*graph.edges, (graph.output, OUTPUT)], metadata=dict(metadata))
    except (KeyError, ValueError) as error:
        raise PreconditionError(
            f"nir: spiking_graph() must be a graph whose widths and names fit, got: {error}; correct the module"
        ) from error


def _node(nir: Any, node: Node, period_s: float) -> Any:
    from edgetk.models.layers.spiking_graph import Delay, Neurons, Product

    if isinstance(node, Product):
        codes = {} if node.scale is None else {"weight_scale": _array(node.scale)}
        if node.bias is None:
            return nir.Linear(_array(node.weight), metadata=codes)
        return nir.Affine(_array(node.weight), _array(node.bias), metadata=codes)
    if isinstance(node, Neurons):
        threshold = np.nextafter(_array(node.threshold), np.float32(-np.inf))
        ones = np.ones(len(threshold))
        return nir.LIF(
            tau=ones * (period_s / (1 - node.decay)),
            r=ones,
            v_leak=np.zeros(len(threshold)),
            v_threshold=threshold,
            v_reset=_array(node.rest),
            metadata={"module": node.module},
        )
    if isinstance(node, Delay):
        return nir.Delay(node.steps.cpu().numpy() * period_s)
    return nir.Scale(_array(node.factor))


def _array(x: Tensor) -> np.ndarray:
    array: np.ndarray = x.detach().cpu().float().numpy()
    return array


def to_bytes(graph: Any) -> bytes:
    """The graph as the content of a `.nir` file (HDF5); the same graph gives the same bytes."""
    buffer = io.BytesIO()
    package().write(buffer, graph)
    return buffer.getvalue()


def from_bytes(content: bytes) -> Any:
    """The `nir.NIRGraph` in the content of a `.nir` file. Raises InputError."""
    nir = package()
    try:
        return nir.read(io.BytesIO(content))
    except (OSError, KeyError, ValueError, AssertionError) as error:
        raise InputError(f"nir: the file must hold a NIR graph, got: {error}; export it again") from error
