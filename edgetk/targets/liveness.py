"""Live activations: walk the nodes in order, and say from which node to which each tensor is needed.

A tensor lives from the node that makes it to the last that reads it. Views share the memory of their input, and so do a
Quantize or Dequantize and the tensor it is merged with; nothing else is done in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import NodeProto

from edgetk.core.workload import Buffer
from edgetk.targets.graph import reads

_SHARED = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "QuantizeLinear", "DequantizeLinear"})


def buffers(
    nodes: Sequence[NodeProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
    elsewhere: frozenset[str],
    size: Callable[[str], int],
    inside: Mapping[str, int] | None = None,
) -> tuple[Buffer, ...]:
    """The memory of the tensors of a graph, without those in `elsewhere` (constants, carried state), in order.

    An input is alive until its last reader, an output from its maker to the end. `inside` gives, by its first output, what
    the body of a node needs while it runs.
    """
    owner = _owners(nodes, inputs, outputs, elsewhere)
    sizes: dict[str, int] = {}
    first = dict.fromkeys(inputs, 0)
    last: dict[str, int] = {}
    for step, node in enumerate(nodes):
        for name in (*reads(node), *node.output):
            if name in owner and name and name not in elsewhere:
                root = owner[name]
                sizes[root] = max(sizes.get(root, 0), size(name))
                first.setdefault(root, step)
                last[root] = step
    for name in outputs:
        if name in owner and owner[name] in last:
            last[owner[name]] = max(len(nodes) - 1, 0)
    found = [Buffer(name, sizes[name], first[name], last[name]) for name in sizes]
    steps = {node.output[0]: step for step, node in enumerate(nodes)}
    found += [Buffer(f"{name}/body", need, steps[name], steps[name]) for name, need in (inside or {}).items() if need]
    return tuple(sorted(found, key=lambda buffer: (buffer.first, buffer.name)))


def peak_bytes(found: Sequence[Buffer]) -> int:
    """Largest sum of what is alive at one step."""
    starts = {buffer.first for buffer in found}
    return max((sum(b.size for b in found if b.first <= step <= b.last) for step in starts), default=0)


def _owners(
    nodes: Sequence[NodeProto], inputs: Sequence[str], outputs: Sequence[str], elsewhere: frozenset[str]
) -> dict[str, str]:
    """Whose memory each tensor lies in: its own, or that of the tensor it is a view of."""
    readers: dict[str, int] = {}
    for node in nodes:
        for name in set(reads(node)):
            readers[name] = readers.get(name, 0) + 1
    owner: dict[str, str] = {name: name for name in inputs}
    for node in nodes:
        for index, name in enumerate(node.output):
            source = node.input[0] if node.input else ""
            shares = index == 0 and node.op_type in _SHARED and source in owner and source not in elsewhere
            if node.op_type == "QuantizeLinear" and (source in inputs or readers[source] > 1):
                shares = False  # the float tensor is needed as well
            if node.op_type == "DequantizeLinear" and name in outputs:
                shares = False
            owner[name] = owner[source] if shares else name
    return owner
