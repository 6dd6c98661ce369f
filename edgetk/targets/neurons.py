"""Find spiking neurons in a graph: comparisons of a membrane with its threshold that reset the membrane they look at.

One update of a leaky integrate-and-fire neuron with membrane v, input x and threshold t is

    h = a (v + x);   s = 1 if h >= t else 0;   v' = rest where s, else h        (or h - s t, or h (1 - s))

so a comparison is a neuron's spike decision where two things hold: its answer becomes a number (the spikes that are sent on),
and by element-wise operators it meets the membrane it was made from (the reset). An activation such as LeakyReLU does the
second but not the first; a mask does the first but not the second. In a clip that was unrolled over time the last reset is
dead and not in the graph: there a decision also counts if the membrane it looks at was reset by an earlier one with the
same threshold.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx import NodeProto, TensorProto

from edgetk.targets.graph import Graph
from edgetk.targets.kinds import COMPARES, VIEWS

_SUMS = frozenset({"Add", "Sub", "Mul", "Div", "Neg"})
#: What may stand between a decision and the reset it causes.
_BETWEEN = _SUMS | VIEWS | COMPARES | {"Not", "Cast", "Where", "Expand"}
_NO_NUMBERS = frozenset({TensorProto.BOOL})


def updates(graph: Graph) -> dict[str, int]:
    """Neuron updates of one run of the graph, by the first output of the comparison that decides on the spikes."""
    found: dict[str, int] = {}
    thresholds: dict[str, frozenset[str]] = {}
    for node in graph.nodes:
        if node.op_type not in COMPARES - {"Equal"} or node.output[0] not in graph.shape or not _sends(graph, node):
            continue
        for membrane, other in (tuple(node.input), tuple(reversed(node.input))):
            if membrane in graph.roots:
                continue
            threshold = graph.roots.get(other, frozenset({other}))
            aliases = set(_aliases(graph, membrane))
            resets = _resets(graph, node.output[0], aliases)
            earlier = (summand for alias in aliases for summand in _summands(graph, alias))
            if resets or any(thresholds.get(name) == threshold for name in earlier):
                found[node.output[0]] = graph.elements(node.output[0])
                thresholds.update(dict.fromkeys(resets, threshold))
    return found


def _sends(graph: Graph, node: NodeProto) -> bool:
    """True where the answer becomes numbers: a Cast, or a choice between two constants."""
    waiting = list(node.output)
    while waiting:
        name = waiting.pop()
        for reader in graph.readers.get(name, ()):
            if reader.op_type == "Cast" and reader.attribute[0].i not in _NO_NUMBERS:
                return True
            if reader.op_type == "Where" and all(i in graph.roots for i in reader.input[1:]):
                return True
            if reader.op_type in VIEWS | {"Not", "Cast"}:
                waiting += reader.output
    return False


def _aliases(graph: Graph, name: str) -> Iterator[str]:
    """A tensor and those it is a shifted or scaled copy of, back to the sum of membrane and input."""
    while True:
        yield name
        node = graph.maker.get(name)
        inputs = [i for i in node.input if i not in graph.roots] if node is not None else []
        if node is None or node.op_type not in _SUMS | VIEWS or len(inputs) != 1:
            return
        name = inputs[0]


def _summands(graph: Graph, name: str) -> Iterator[str]:
    """What a tensor is the sum of, through scaling and views on the way."""
    node = graph.maker.get(name)
    if node is not None and node.op_type in ("Add", "Sub"):
        for summand in node.input:
            yield from _aliases(graph, summand)


def _resets(graph: Graph, decision: str, aliases: set[str]) -> set[str]:
    """Outputs of the operators where a decision, by itself or through constants, meets the membrane."""
    waiting, seen, resets = [decision], {decision}, set()
    while waiting:
        for reader in graph.readers.get(waiting.pop(), ()):
            if reader.op_type not in _BETWEEN:
                continue
            others = [i for i in reader.input if i not in graph.roots and i not in seen]
            if any(i in aliases for i in others):
                resets.add(reader.output[0])
            elif not others and reader.output[0] not in seen:
                seen.add(reader.output[0])
                waiting.append(reader.output[0])
    return resets
