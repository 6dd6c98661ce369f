"""How often the inputs of a graph's products are non-zero, and which of them are spikes, recorded on given inputs.

`record` runs the graph in ONNX Runtime as it stands. Zeros and ones are counted inside the graph by operators that it appends
for this, so that only counts leave a run, whatever the size of the tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgetk.core.errors import InputError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.targets import binary, products
from edgetk.targets.graph import Graph, has_subgraph, inlined, read
from edgetk.targets.kinds import SHAPES
from edgetk.targets.meters import _session
from edgetk.targets.meters.agent import ort

#: clips of one run, where the graph takes a batch
BATCH = 16
_COUNTS = ("zeros", "ones", "size")
#: Where integer products have the zero points of their two factors.
_ZERO_POINTS = {"MatMulInteger": (2, 3), "ConvInteger": (2, 3), "QLinearMatMul": (2, 5), "QLinearConv": (2, 5)}


@dataclass(frozen=True)
class Activity:
    """The activation input of one product.

    tensor   its name, seen through views and number formats: products with one source share it
    nonzero  share of values that were not 0
    spikes   True where every value was 0 or 1: multiplying by them is adding or leaving out
    """

    tensor: str
    nonzero: float
    spikes: bool


@dataclass(frozen=True)
class Firing:
    """What `record` saw: per product (by the name of its output) its input, over `inputs` examples of `steps` runs each.

    `origin` says which examples they were. Constant factors and products inside a Scan are not in it.
    """

    products: Mapping[str, Activity]
    inputs: int
    steps: int
    origin: str

    @property
    def rates(self) -> Mapping[str, float]:
        """Firing rate of each spike tensor: spikes per neuron and step."""
        return {a.tensor: a.nonzero for a in self.products.values() if a.spikes}

    def __str__(self) -> str:
        steps = f" of {self.steps} steps" if self.steps > 1 else ""
        return f"{self.origin} (n={self.inputs}{steps})"

    def to_json(self) -> dict[str, Any]:
        products = {name: dataclasses.asdict(activity) for name, activity in self.products.items()}
        return {"products": products, "inputs": self.inputs, "steps": self.steps, "origin": self.origin}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Firing:
        products = {name: Activity(**activity) for name, activity in data["products"].items()}
        return cls(products, data["inputs"], data["steps"], data["origin"])


def record(
    model: ModelProto, signature: Signature, inputs: Mapping[str, np.ndarray], origin: str, batch: int = BATCH
) -> Firing:
    """Run `model` over `inputs` and count zeros and ones at the activation inputs of all its products.

    inputs  one array for each input of the signature. Without state: (n, …) where the first dimension is symbolic, else
            (n, *shape). A stream: (n, steps, *shape), n streams of one length, each from the initial state on; the steps
            that flush look-ahead at the end of a clip belong to them
    origin  which examples these are, for the report: "validation split, first 100 clips"

    A tensor that was never 1 is taken for spikes only where the graph allows nothing else, so that what happened to stay 0 is
    not free. Raises InputError for inputs that do not fit the signature and graphs that do not run.
    """
    graph = read(model)
    fixed = _fixed(graph)
    watched = list(dict.fromkeys(key for node in graph.nodes for _, key in _keys(graph, node, fixed)))
    arrays = _checked(signature, inputs)
    n = len(next(iter(arrays.values())))
    steps = next(iter(arrays.values())).shape[1] if signature.is_streaming else 1
    if not origin.strip():
        raise InputError(f"firing: origin must say which inputs these are, got {origin!r}; name the split and the clips")
    totals = _run(_instrumented(model, watched), signature, arrays, len(watched), batch)
    certain = binary.proven(graph, signature)
    seen = {
        watch: (1.0 - zeros / size, zeros + ones == size and (ones > 0 or watch.tensor in certain)) if size else (0.0, False)
        for watch, (zeros, ones, size) in zip(watched, totals.tolist(), strict=True)
    }
    activities = {}
    for node in graph.nodes:
        found = [Activity(_source(graph, name), *seen[key]) for name, key in _keys(graph, node, fixed)]
        if found:  # of two activations the spikes decide, and of these the rarer ones
            activities[node.output[0]] = min(found, key=lambda a: (not a.spikes, a.nonzero))
    return Firing(activities, n, steps, origin.strip())


@dataclass(frozen=True)
class _Watch:
    """A tensor to look at; `scale` and `zero_point` name what makes numbers of stored integers ("" for none)."""

    tensor: str
    scale: str = ""
    zero_point: str = ""


def _keys(graph: Graph, node: NodeProto, fixed: frozenset[str]) -> Iterator[tuple[str, _Watch]]:
    """The activation inputs of a product, and where their values can be seen."""
    for name in products.activations(graph, node):
        if name in fixed:
            continue
        index = products.FACTORS[node.op_type].index(list(node.input).index(name))
        scale = zero = ""
        if node.op_type in _ZERO_POINTS:
            place = _ZERO_POINTS[node.op_type][index]
            zero = node.input[place] if place < len(node.input) else ""
            scale = node.input[place - 1] if node.op_type.startswith("QLinear") else ""
        yield name, _Watch(graph.through_views(name), scale, zero)


def _fixed(graph: Graph) -> frozenset[str]:
    """Tensors that do not depend on what the inputs hold, only on their shapes: a mask of ones is no spike."""
    fixed = set(graph.roots)
    for node in graph.nodes:
        inputs = [name for name in node.input if name]
        if node.op_type in SHAPES or (inputs and not has_subgraph(node) and fixed.issuperset(inputs)):
            fixed.update(node.output)
    return frozenset(fixed)


def _source(graph: Graph, name: str) -> str:
    """The tensor that `name` is another shape, order or number format of."""
    while True:
        name = graph.through_views(name)
        maker = graph.maker.get(name)
        if maker is None or maker.op_type not in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"):
            return name
        name = maker.input[0]


def _instrumented(model: ModelProto, watched: Sequence[_Watch]) -> bytes:
    """The graph with three more outputs for each watched tensor: how many zeros, how many ones, how many values."""
    copy = inlined(model)
    graph = copy.graph
    for value in (0.0, 1.0):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), f"firing/{value:.0f}"))
    for i, watch in enumerate(watched):
        _append_counts(graph, watch, f"firing/{i}")
    return bytes(copy.SerializeToString())


def _append_counts(graph: GraphProto, watch: _Watch, prefix: str) -> None:
    def add(kind: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [f"{prefix}/{name}"], name=f"{prefix}/{name}", **attributes))
        return f"{prefix}/{name}"

    if watch.scale:
        value = add("DequantizeLinear", [n for n in (watch.tensor, watch.scale, watch.zero_point) if n], "value")
    else:
        value = add("Cast", [watch.tensor], "value", to=TensorProto.FLOAT)
        if watch.zero_point:
            zero = add("Cast", [watch.zero_point], "zero", to=TensorProto.FLOAT)
            value = add("Sub", [value, zero], "difference")
    for number, name in enumerate(_COUNTS[:2]):
        same = add("Equal", [value, f"firing/{number}"], f"is_{name}")
        add("ReduceSum", [add("Cast", [same], f"as_{name}", to=TensorProto.INT32)], name, keepdims=0)
    add("Size", [value], "size")
    types = (TensorProto.INT32, TensorProto.INT32, TensorProto.INT64)
    graph.output.extend(helper.make_tensor_value_info(f"{prefix}/{c}", t, []) for c, t in zip(_COUNTS, types, strict=True))


def _checked(signature: Signature, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [spec.name for spec in signature.inputs]
    if sorted(inputs) != sorted(names):
        raise InputError(
            f"firing: inputs must be {', '.join(names)}, got {', '.join(inputs) or 'none'}; name them as the signature does"
        )
    arrays = {}
    for spec in signature.inputs:
        array = np.asarray(inputs[spec.name], spec.dtype)
        wanted = _shape(spec, signature)
        fits = array.ndim == len(wanted) and all(isinstance(w, str) or w == d for w, d in zip(wanted, array.shape, strict=True))
        if not fits or 0 in array.shape[:2]:
            raise InputError(
                f"firing: {spec.name} must have shape ({', '.join(map(str, wanted))}) and hold something, "
                f"got {array.shape}; stack whole examples along the first axis"
            )
        arrays[spec.name] = array
    leading = {name: array.shape[: 2 if signature.is_streaming else 1] for name, array in arrays.items()}
    if len(set(leading.values())) > 1:
        raise InputError(f"firing: all inputs must hold the same number of examples and steps, got {leading}; cut them alike")
    return arrays


def _shape(spec: TensorSpec, signature: Signature) -> tuple[int | str, ...]:
    if signature.is_streaming:
        return ("n", "steps", *spec.concrete())
    return ("n", *spec.shape[1:]) if _batched(spec) else ("n", *spec.shape)


def _batched(spec: TensorSpec) -> bool:
    return bool(spec.shape) and isinstance(spec.shape[0], str)


def _run(content: bytes, signature: Signature, arrays: Mapping[str, np.ndarray], tensors: int, batch: int) -> np.ndarray:
    """Counts of each watched tensor, summed over all runs: (tensors, 3)."""
    import onnxruntime

    settings = _session.options()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    counts = [f"firing/{i}/{name}" for i in range(tensors) for name in _COUNTS]
    total = np.zeros(3 * tensors, np.int64)
    if not counts:
        return total.reshape(0, 3)
    states = [state.output for state in signature.state]
    try:
        session = onnxruntime.InferenceSession(content, settings, providers=[ort.PROVIDER])
        for feeds, start in _feeds(signature, arrays, batch):
            if start:
                carried = {state.name: _session.initial(state) for state in signature.state}
            values = session.run([*counts, *states], feeds | carried)
            total += np.array([int(v) for v in values[: len(counts)]])
            carried = dict(zip(carried, values[len(counts) :], strict=True))
    except Exception as error:  # the runtime's errors share no base class of their own
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"firing: the graph must run in ONNX Runtime, got {reason}; export it again") from error
    return total.reshape(-1, 3)


def _feeds(signature: Signature, arrays: Mapping[str, np.ndarray], batch: int) -> Iterator[tuple[dict[str, np.ndarray], bool]]:
    """What to feed in each run, and whether it starts anew."""
    n = len(next(iter(arrays.values())))
    if signature.is_streaming:
        for i in range(n):
            for t in range(next(iter(arrays.values())).shape[1]):
                yield {name: array[i, t] for name, array in arrays.items()}, t == 0
    elif all(_batched(spec) for spec in signature.inputs):
        for i in range(0, n, batch):
            yield {name: array[i : i + batch] for name, array in arrays.items()}, True
    else:
        for i in range(n):
            yield (
                {
                    spec.name: arrays[spec.name][i : i + 1] if _batched(spec) else arrays[spec.name][i]
                    for spec in signature.inputs
                },
                True,
            )
