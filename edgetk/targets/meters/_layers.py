"""A runtime's operators folded to the layers of the model: names come from the modules, whatever a runtime added to them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

#: what runtimes put before and after a node's name when they fuse, copy or replace it
_ADDED = re.compile(r"^(?:fused |Reformatting CopyNode for (?:Input|Output) Tensor \d+ to )|_(?:nchwc|quant|token_\d+)$")
#: operators that belong to no module: their time is the graph's own
GRAPH = "(graph)"


@dataclass(frozen=True)
class OperatorTime:
    """One operator of the graph as the runtime runs it: `dtype` is that of its first input, `share` of the summed time."""

    name: str
    op_type: str
    dtype: str
    mean_s: float
    share: float
    n: int


@dataclass(frozen=True)
class LayerTime:
    """One layer of the model: the summed time of its operators, their share of all, and how many of each type it has."""

    name: str
    mean_s: float
    share: float
    operators: Mapping[str, int] = field(default_factory=dict)


def fold(rows: Sequence[OperatorTime], owners: Mapping[str, str] | None = None) -> tuple[LayerTime, ...]:
    """Times by layer, slowest first. `owners` says which layer a node without a module's name belongs to."""
    layers: dict[str, list[OperatorTime]] = {}
    for row in rows:
        plain = _ADDED.sub("", row.name)
        layers.setdefault(layer(plain) or (owners or {}).get(plain, GRAPH), []).append(row)
    made = []
    for name, members in layers.items():
        counts: dict[str, int] = {}
        for row in members:
            counts[row.op_type] = counts.get(row.op_type, 0) + 1
        made.append(LayerTime(name, sum(r.mean_s for r in members), sum(r.share for r in members), counts))
    return tuple(sorted(made, key=lambda row: -row.mean_s))


def layer(name: str) -> str:
    """The module a node's name leads with: "embed.convs.0.taps" of "embed.convs.0.taps/Gemm"; "" where it names none.

    A name of several nodes (TensorRT joins them by " + ") counts by its first.
    """
    return name.split(" + ")[0].strip("/").rpartition("/")[0]


def owners(graph: Any) -> dict[str, str]:
    """Layers of a graph's nodes that have no module's name (slices, concatenations): the layer that reads what they make.

    Where none does, the layer whose output they read. `graph` is an ONNX GraphProto, whose nodes stand in the order they run.
    """
    readers: dict[str, str] = {}
    found: dict[str, str] = {}
    for node in reversed(graph.node):
        own = layer(node.name) or next((readers[o] for o in node.output if o in readers), "")
        if own:
            found[node.name] = own
            for name in node.input:
                readers[name] = own  # the first reader, since later ones were seen before
    makers: dict[str, str] = {}
    for node in graph.node:
        own = found.get(node.name) or next((makers[name] for name in node.input if name in makers), "")
        if own:
            found[node.name] = own
            makers.update(dict.fromkeys(node.output, own))
    return found
