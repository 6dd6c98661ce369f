"""Peak of live activations: walk the nodes in order and add up the tensors that are still needed.

A tensor lives from the node that makes it to the last that reads it. Views share the memory of their input, and so do a
Quantize or Dequantize and the tensor it is merged with; nothing else is done in place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from onnx import NodeProto

from edgetk.targets.graph import reads

_SHARED = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "QuantizeLinear", "DequantizeLinear"})


def peak_bytes(
    nodes: Sequence[NodeProto],
    inputs: Sequence[str],
    outputs: Sequence[str],
    elsewhere: frozenset[str],
    size: Callable[[str], int],
    inside: Mapping[str, int] | None = None,
) -> int:
    """Largest sum of `size` over the tensors alive at one node, without those in `elsewhere` (constants, carried state).

    An input is alive until its last reader, an output from its maker to the end. `inside` gives, by its first output, what
    the body of a node needs while it runs.
    """
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
    sizes: dict[str, int] = {}
    last: dict[str, int] = {}
    for step, node in enumerate(nodes):
        for name in (*reads(node), *node.output):
            if name in owner and name and name not in elsewhere:
                root = owner[name]
                sizes[root] = max(sizes.get(root, 0), size(name))
                last[root] = step
    for name in outputs:
        if name in owner and owner[name] in last:
            last[owner[name]] = len(nodes)
    alive = {owner[name] for name in inputs if owner[name] in last}
    peak = sum(sizes[name] for name in alive)
    extra = inside or {}
    for step, node in enumerate(nodes):
        alive |= {owner[name] for name in node.output if name in owner and owner[name] in last}
        peak = max(peak, sum(sizes[name] for name in alive) + extra.get(node.output[0], 0))
        alive = {name for name in alive if last[name] > step}
    return peak
