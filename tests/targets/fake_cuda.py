"""A CUDA driver and a TensorRT whose GPU is this machine's memory: what the agent does with them can be seen."""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from typing import Any

import numpy as np


class FakeCuda:
    """The driver's functions. Work captured into a graph is done when the graph is launched, and not before."""

    def __init__(self, absent: tuple[str, ...] = (), failing: tuple[str, ...] = ()) -> None:
        self.absent, self.failing = absent, failing
        self.buffers: list[Any] = []
        self.graphs: list[list[Callable[[], None]]] = []
        self.capturing: list[Callable[[], None]] | None = None
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in self.absent or not name.startswith("cu"):
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            self.calls.append(name)
            if name in self.failing:
                return 700
            getattr(self, "_" + name.removesuffix("_v2"), lambda *a: None)(*arguments)
            return 0

        return call

    def do(self, work: Callable[[], None]) -> None:
        """Now, or when the graph that is being captured is launched."""
        if self.capturing is None:
            work()
        else:
            self.capturing.append(work)

    def _cuStreamCreate(self, stream: Any, flags: Any) -> None:  # noqa: N802
        stream._obj.value = 77

    def _cuDeviceGetName(self, text: Any, size: Any, device: Any) -> None:  # noqa: N802
        text.value = b"Fake GPU"

    def _cuMemAlloc(self, pointer: Any, size: Any) -> None:  # noqa: N802
        buffer = ctypes.create_string_buffer(size.value)
        self.buffers.append(buffer)
        pointer._obj.value = ctypes.addressof(buffer)

    _cuMemAllocHost = _cuMemAlloc  # noqa: N815

    def _cuMemcpyHtoDAsync(self, device: Any, host: Any, size: Any, stream: Any) -> None:  # noqa: N802
        self.do(lambda: ctypes.memmove(device, host, size.value))  # type: ignore[arg-type,return-value]

    _cuMemcpyDtoHAsync = _cuMemcpyHtoDAsync  # noqa: N815

    def _cuStreamBeginCapture(self, stream: Any, mode: Any) -> None:  # noqa: N802
        self.capturing = []

    def _cuStreamEndCapture(self, stream: Any, graph: Any) -> None:  # noqa: N802
        assert self.capturing is not None
        self.graphs.append(self.capturing)
        graph._obj.value = len(self.graphs)
        self.capturing = None

    def _cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> None:  # noqa: N802
        executable._obj.value = graph.value

    def _cuGraphLaunch(self, graph: Any, stream: Any) -> None:  # noqa: N802
        for work in self.graphs[graph.value - 1]:
            work()


class Context:
    """Computes y = x + state and state_out = state + 1 on the memory it is bound to."""

    def __init__(self, cuda: FakeCuda, accepts: bool) -> None:
        self.cuda, self.accepts = cuda, accepts
        self.addresses: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.profiler: Any = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        self.shapes[name] = shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        self.cuda.do(self._compute)
        return self.accepts

    def _compute(self) -> None:
        at = {name: np.ctypeslib.as_array((ctypes.c_float * 2).from_address(a)) for name, a in self.addresses.items()}
        at["y"][:] = at["x"] + at["state_a"]
        at["state_a_out"][:] = at["state_a"] + 1
        if self.profiler is not None:
            self.profiler.report_layer_time("net.a/Add", 0.25)
            self.profiler.report_layer_time("net.b/Add + net.c/Add", 0.75)


def tensorrt(cuda: FakeCuda, version: str = "10.3.0", loads: bool = True, parses: bool = True, accepts: bool = True) -> Any:
    """A module with what the agent calls; `seen` holds what it was told while building."""
    made: Any = types.ModuleType("tensorrt")
    made.__version__ = version
    made.seen = {"flags": [], "shapes": {}, "sources": None, "network": None, "builds": 0}
    made.float16 = "float16"
    made.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    made.IProfiler = type("IProfiler", (), {})
    made.NetworkDefinitionCreationFlag = types.SimpleNamespace(EXPLICIT_BATCH=0, STRONGLY_TYPED=1)
    made.BuilderFlag = types.SimpleNamespace(FP16="fp16", INT8="int8")
    made.LayerType = types.SimpleNamespace(QUANTIZE="quantize")
    made.TacticSource = types.SimpleNamespace(CUBLAS=0, EDGE_MASK_CONVOLUTIONS=3)
    engine = types.SimpleNamespace(create_execution_context=lambda: Context(cuda, accepts))
    made.Runtime = lambda logger: types.SimpleNamespace(deserialize_cuda_engine=lambda plan: engine if loads else None)
    layers = [
        types.SimpleNamespace(type="quantize", num_outputs=1, get_output=lambda i: types.SimpleNamespace(dtype="float16")),
        types.SimpleNamespace(type="other", num_outputs=0, get_output=None),
    ]
    network = types.SimpleNamespace(num_layers=len(layers), get_layer=lambda i: layers[i])
    config = types.SimpleNamespace(
        set_flag=made.seen["flags"].append,
        set_tactic_sources=lambda sources: made.seen.update(sources=sources),
        add_optimization_profile=lambda profile: None,
    )
    profile = types.SimpleNamespace(set_shape=lambda name, *shapes: made.seen["shapes"].update({name: shapes}))

    def build(network: Any, config: Any) -> bytes | None:
        made.seen["builds"] += 1
        return b"ftrt built" if accepts else None

    def create_network(flags: int) -> Any:
        made.seen["network"] = flags
        return network

    made.Builder = lambda logger: types.SimpleNamespace(
        create_network=create_network,
        create_builder_config=lambda: config,
        create_optimization_profile=lambda: profile,
        build_serialized_network=build,
    )
    refusal = types.SimpleNamespace(desc=lambda: "no rule for Einsum")
    made.OnnxParser = lambda network, logger: types.SimpleNamespace(
        parse=lambda content: parses, num_errors=1, get_error=lambda i: refusal
    )
    return made
