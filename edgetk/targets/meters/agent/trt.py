"""An engine in TensorRT, ready to be run again and again, with its state fed back; and its profile.

An .onnx file is built into an engine on the board, because engines belong to one GPU and one release. Needs the board's
tensorrt (8.5 to 11) and its CUDA driver; Python 3.8.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.util
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edgetk.targets.meters.agent.cuda import Cuda
from edgetk.targets.meters.agent.timing import run_for

_BYTES = {"float64": 8, "int64": 8, "float32": 4, "int32": 4, "float16": 2, "int8": 1, "uint8": 1, "bool": 1}
#: engines built by this process, by the hash of their graph and of how they were built
_BUILT: dict[str, tuple[bytes, float]] = {}


class Model:
    """What the agent runs: an engine on several sets of inputs in turn, from `task` as the host wrote it.

    States stay on the GPU: two execution contexts take turns, what one writes the other reads. A step copies the inputs to
    the GPU, runs, copies the outputs back and waits.
    """

    def __init__(self, content: bytes, task: Mapping[str, Any], data: bytes) -> None:
        tensorrt = library()
        self.version: str = tensorrt.__version__
        self._cuda = Cuda()
        plan, build_s = engine(content, task)
        # the runtime must outlive the engine
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise ValueError(f"TensorRT {self.version} on {self._cuda.name()} cannot load this engine: build it on this board")
        self.facts: dict[str, Any] = {
            "gpu": self._cuda.name(),
            "engine_sha256": hashlib.sha256(plan).hexdigest(),
            "engine_bytes": len(plan),
            "built_here_in_s": build_s,
            "latency": "inputs copied to the GPU, run, outputs copied back",
        }
        self._inputs = [(spec["name"], _size(spec)) for spec in task["inputs"]]
        self._outputs = [(spec["name"], _size(spec)) for spec in task["outputs"]]
        self._states = [(spec["name"], spec["output"], _size(spec)) for spec in task["state"]]
        self._read_data(data, task["sets"])
        self._memory(task)
        self._rounds: int = task["rounds"]
        self._turn = 0
        self._reset()

    def _read_data(self, data: bytes, sets: int) -> None:
        offset = 0
        self._sets: list[list[bytes]] = []
        for _ in range(sets):
            values = []
            for _, size in self._inputs:
                values.append(data[offset : offset + size])
                offset += size
            self._sets.append(values)
        self._initial = []
        for _, _, size in self._states:
            self._initial.append(data[offset : offset + size])
            offset += size

    def _memory(self, task: Mapping[str, Any]) -> None:
        """Buffers, and two contexts bound to them whose states are crossed."""
        cuda = self._cuda
        self._host = {name: cuda.host_memory(size) for name, size in (*self._inputs, *self._outputs)}
        self._device = {name: cuda.device_memory(size) for name, size in (*self._inputs, *self._outputs)}
        self._state_host = [cuda.host_memory(size) for _, _, size in self._states]
        pairs = [(cuda.device_memory(size), cuda.device_memory(size)) for _, _, size in self._states]
        self._state_device = [pair[0] for pair in pairs]
        self._contexts = []
        for parity in (0, 1):
            context = self._engine.create_execution_context()
            for spec in (*task["inputs"], *task["state"]):
                context.set_input_shape(spec["name"], tuple(spec["shape"]))
            for name, address in self._device.items():
                context.set_tensor_address(name, address)
            for (name, output, _), pair in zip(self._states, pairs):  # noqa: B905  Python 3.8 has no strict
                context.set_tensor_address(name, pair[parity])
                context.set_tensor_address(output, pair[1 - parity])
            self._contexts.append(context)

    def _reset(self) -> None:
        """The first state, in the buffers that the first context reads."""
        for value, host, device in zip(self._initial, self._state_host, self._state_device):  # noqa: B905
            ctypes.memmove(host, value, len(value))
            self._cuda.to_device(device, host, len(value))
        self._cuda.wait()
        self._turn = 0

    def step(self) -> float:
        """Run on the next set of inputs; the seconds of copying, running and copying back."""
        return self._timed(self._transfer_and_run)

    def outputs(self) -> bytes:
        """The outputs of one run on each set, of a stream of several, from the first state on, as bytes."""
        self._reset()
        found = []
        for _ in range(len(self._sets) * self._rounds):
            self.step()
            found += [ctypes.string_at(self._host[name], size) for name, size in self._outputs]
        return b"".join(found)

    def variants(self, budget_s: float, warmup_s: float) -> dict[str, Any]:
        """Latency without the copies, and both ways as a CUDA graph: medians, p95 and n of each."""
        ways = {
            "without_transfers": lambda: self._timed(self._run),
            "cuda_graph": self._captured(self._transfer_and_run),
            "cuda_graph_without_transfers": self._captured(self._run),
        }
        found: dict[str, Any] = {}
        for name, step in ways.items():
            if isinstance(step, str):
                found[name] = {"reason": step}
                continue
            run_for(step, warmup_s, at_least=5)
            samples = sorted(run_for(step, budget_s, at_least=20))
            found[name] = {"median_s": _rank(samples, 0.5), "p95_s": _rank(samples, 0.95), "n": len(samples)}
        return found

    def close(self) -> None:
        """Wait for the GPU; its memory goes with the process."""
        self._cuda.wait()

    def _timed(self, work: Any) -> float:
        turn = self._turn
        for (name, size), value in zip(self._inputs, self._sets[turn % len(self._sets)]):  # noqa: B905
            ctypes.memmove(self._host[name], value, size)
        start = time.perf_counter()
        work(turn % 2)
        self._cuda.wait()
        seconds = time.perf_counter() - start
        self._turn = turn + 1
        return seconds

    def _transfer_and_run(self, parity: int) -> None:
        for name, size in self._inputs:
            self._cuda.to_device(self._device[name], self._host[name], size)
        self._run(parity)
        for name, size in self._outputs:
            self._cuda.to_host(self._host[name], self._device[name], size)

    def _run(self, parity: int) -> None:
        if not self._contexts[parity].execute_async_v3(self._cuda.stream):
            raise RuntimeError("TensorRT refused to run the engine on these shapes")

    def _captured(self, work: Any) -> Any:
        """A step that launches `work` as a CUDA graph; the reason, as text, where it cannot be captured."""
        graphs = []
        try:
            for parity in (0, 1):
                self._cuda.begin_capture()
                try:
                    work(parity)
                finally:
                    graphs.append(self._cuda.end_capture())
        except (OSError, RuntimeError) as error:
            return f"cannot be captured as a CUDA graph ({error})"
        return lambda: self._timed(lambda parity: self._cuda.launch(graphs[parity]))


def available() -> str | None:
    """None if TensorRT can be imported and a GPU answers, else why not."""
    if importlib.util.find_spec("tensorrt") is None:
        return "tensorrt is not installed for this Python"
    try:
        Cuda()
    except OSError as error:
        return f"no NVIDIA GPU answers: {error}"
    return None


def library() -> Any:
    """TensorRT's own Python package. Raises ImportError where the board has none."""
    return importlib.import_module("tensorrt")


def engine(content: bytes, task: Mapping[str, Any]) -> tuple[bytes, float | None]:
    """The engine, and the seconds its building took here (None: it came as an engine).

    Raises ValueError with the parser's own words for a graph it does not take.
    """
    if content[:1] != b"\x08":  # an ONNX file begins with its IR version; engines do not
        return content, None
    how = repr((task["precision"], task["tactic_sources"])).encode()
    key = hashlib.sha256(how + content).hexdigest()
    if key not in _BUILT:
        start = time.perf_counter()
        plan = _build(content, task)
        _BUILT[key] = plan, round(time.perf_counter() - start, 3)
    return _BUILT[key]


def _build(content: bytes, task: Mapping[str, Any]) -> bytes:
    tensorrt = library()
    major = int(tensorrt.__version__.split(".")[0])
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(_network_flags(tensorrt.NetworkDefinitionCreationFlag, major))
    parser = tensorrt.OnnxParser(network, logger)
    if not parser.parse(content):
        texts = [str(parser.get_error(i).desc()) for i in range(parser.num_errors)]
        raise ValueError(f"TensorRT {tensorrt.__version__} does not take the graph: {'; '.join(texts)}")
    config = builder.create_builder_config()
    if major < 10:  # from 10 on, precision is a property of the graph
        layers = [network.get_layer(i) for i in range(network.num_layers)]
        halves = any(layer.num_outputs and layer.get_output(0).dtype == tensorrt.float16 for layer in layers)
        if task["precision"] == "fp16" or halves:
            config.set_flag(tensorrt.BuilderFlag.FP16)
        if any(layer.type == tensorrt.LayerType.QUANTIZE for layer in layers):
            config.set_flag(tensorrt.BuilderFlag.INT8)
    elif task["precision"] != "fp32":
        raise ValueError(
            f"TensorRT {tensorrt.__version__} takes its precision from the graph: export it as {task['precision']}"
        )
    if task["tactic_sources"]:
        sources = (1 << int(getattr(tensorrt.TacticSource, name)) for name in task["tactic_sources"])
        config.set_tactic_sources(sum(sources))
    _shapes(builder, config, task)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ValueError(f"TensorRT {tensorrt.__version__} found no way to build the graph on this GPU")
    return bytes(plan)


def _network_flags(flags: Any, major: int) -> int:
    """Strong typing has to be asked for in 10; from 11 on there is nothing else."""
    if major < 10:
        return 1 << int(flags.EXPLICIT_BATCH)
    return 1 << int(flags.STRONGLY_TYPED) if major == 10 else 0


def _shapes(builder: Any, config: Any, task: Mapping[str, Any]) -> None:
    """One profile with the shapes that are measured, for graphs that leave some open."""
    profile = builder.create_optimization_profile()
    for spec in (*task["inputs"], *task["state"]):
        shape = tuple(spec["shape"])
        profile.set_shape(spec["name"], shape, shape, shape)
    config.add_optimization_profile(profile)


def profile(content: bytes, task: Mapping[str, Any], data: bytes, runs: int, warmup: int) -> list[dict[str, Any]]:
    """Each layer of the engine, slowest first: name, op_type, dtype, mean_s, share of the summed time, n."""
    tensorrt = library()

    class Times(tensorrt.IProfiler):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            tensorrt.IProfiler.__init__(self)
            self.seen: dict[str, list[float]] = {}

        def report_layer_time(self, name: str, milliseconds: float) -> None:
            self.seen.setdefault(name, []).append(1e-3 * milliseconds)

    model, times = Model(content, task, data), Times()
    for context in model._contexts:
        context.profiler = times
    for _ in range(warmup + runs):
        model.step()
    mean = {name: sum(values[-runs:]) / len(values[-runs:]) for name, values in times.seen.items()}
    total = sum(mean.values()) or 1.0
    rows = [
        {"name": n, "op_type": "", "dtype": "", "mean_s": mean[n], "share": mean[n] / total, "n": len(times.seen[n][-runs:])}
        for n in mean
    ]
    return sorted(rows, key=lambda row: -float(row["mean_s"]))


def _size(spec: Mapping[str, Any]) -> int:
    return int(spec["size"]) * _BYTES[spec["dtype"]]


def _rank(ordered: Sequence[float], share: float) -> float:
    """The value below which a share of all lies, on the straight line between its two neighbours."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
