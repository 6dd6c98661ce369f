"""A measurement through the agent: files and settings in, its results out, on whatever the transport leads to."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from edgetk.core.errors import EdgetkError, InputError, UsageError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.targets.meters import _session
from edgetk.targets.meters._pack import agent
from edgetk.targets.meters._transport import AGENT, Transport
from edgetk.targets.meters.agent.__main__ import BUSY

#: sets of random inputs that take turns
SETS = 4
#: how often a stream sees them all before its outputs are compared: what it says early may be nothing yet
_STREAM_ROUNDS = 16
RUNTIMES = ("onnxruntime", "tensorrt")


@dataclass(frozen=True)
class Settings:
    """How to measure. `root` is where the board's file system begins: another place only to try things out.

    cores        processors to keep to; empty: those the system gives
    windows      windows of energy, each `window_s` long, after `idle_s` without work; 0 measures no energy
    total_rails  a Jetson's rails whose sum is its total, where the built-in map does not know them
    precision    of an engine that TensorRT builds on the board from a graph without precision in it: fp32, fp16
    tactic_sources  libraries that its builder may use, such as CUBLAS; empty: those it chooses
    """

    threads: int = 1
    cores: tuple[int, ...] = ()
    budget_s: float = 2.0
    warmup_s: float = 0.5
    windows: int = 5
    window_s: float = 2.0
    idle_s: float = 2.0
    profile: bool = False
    total_rails: tuple[str, ...] = ()
    precision: str = "fp32"
    tactic_sources: tuple[str, ...] = ()
    root: str = "/"

    def __post_init__(self) -> None:
        for name, low in (("threads", 1), ("windows", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"bench: {name} must be at least {low}, got {getattr(self, name)}; correct it")
        for name in ("budget_s", "window_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"bench: {name} must be above 0, got {getattr(self, name)}; give seconds")
        for name in ("warmup_s", "idle_s"):
            if not getattr(self, name) >= 0:
                raise UsageError(f"bench: {name} must not be below 0, got {getattr(self, name)}; give seconds")
        if self.precision not in ("fp32", "fp16"):
            raise UsageError(
                f"bench: precision must be fp32 or fp16, got {self.precision!r}; int8 belongs into the graph (Q/DQ)"
            )


@dataclass(frozen=True)
class Item:
    """One file to measure. `reference` is the graph that an engine was built from; empty where the file is the graph."""

    name: str
    content: bytes
    signature: Signature
    runtime: str = "onnxruntime"
    reference: bytes = b""


@dataclass(frozen=True)
class Result:
    """What came back for one item: the agent's data, and the bytes of its outputs on the inputs it was given.

    `clock_offset_s` is this machine's clock less the board's; `where` the transport.
    """

    item: Item
    settings: Settings
    data: dict[str, Any]
    outputs: bytes
    where: str
    clock_offset_s: float | None = None
    resumed: bool = False
    sha256: str = field(default="")


def run(
    transport: Transport,
    items: Sequence[Item],
    settings: Settings,
    say: Callable[[str], None] = lambda text: None,
    keep: bool = False,
) -> list[Result]:
    """Measure every item; a job that was interrupted goes on after its last finished item.

    Raises EdgetkError where the connection breaks or another measurement runs on the board: the same call goes on later.
    """
    files, tasks = _prepare(items, settings)
    job = {"root": settings.root, "total_rails": list(settings.total_rails), "tasks": tasks}
    files["job.json"] = json.dumps(job, sort_keys=True).encode()
    identity = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()[:16]
    try:
        have = transport.open(identity)
        for name, content in files.items():
            if have.get(name) != hashlib.sha256(content).hexdigest():
                transport.put(name, content)
        follower = _Follower(say)
        status = transport.run(follower)
        if status == BUSY:
            if not have:
                transport.finish(keep=False)
            raise EdgetkError(f"{transport.name}: only one measurement may run at a time, got another; wait for it to end")
        if status or not follower.ended:
            raise EdgetkError(
                f"{transport.name}: the agent must finish, got status {status}{follower.last}; what it finished is kept, "
                "the same command goes on from there"
            )
        results = [_fetch(transport, item, settings, task, follower) for item, task in zip(items, tasks, strict=True)]
        transport.finish(keep)
    finally:
        transport.close()
    return results


class _Follower:
    """Reads what the agent tells: its clock, which task is on, which were done before."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self.offset: float | None = None
        self.done_before: set[str] = set()
        self.ended = False
        self.last = ""

    def __call__(self, line: str) -> None:
        if line.startswith("clock "):
            self.offset = time.time() - float(line.split()[1])
        elif line == "end":
            self.ended = True
        elif line.startswith("task "):
            if line.endswith(", done before"):
                self.done_before.add(line.partition(": ")[2].removesuffix(", done before"))
            self._say(f"measuring {line.removeprefix('task ')}")
        elif line.strip():
            self.last = f" ({line.strip()[:200]})"


def _fetch(transport: Transport, item: Item, settings: Settings, task: dict[str, Any], follower: _Follower) -> Result:
    data = json.loads(transport.get(f"{task['id']}.json"))
    outputs = b""
    if "outputs_sha256" in data:
        outputs = transport.get(f"{task['id']}.out")
        if hashlib.sha256(outputs).hexdigest() != data["outputs_sha256"]:
            raise InputError(f"{transport.name}: the outputs of {item.name} must arrive whole, got others; run it again")
    digest = hashlib.sha256(item.content).hexdigest()
    resumed = item.name in follower.done_before
    return Result(item, settings, data, outputs, transport.name, follower.offset, resumed, digest)


def _prepare(items: Sequence[Item], settings: Settings) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The files that travel, by name, and the agent's tasks."""
    files, tasks = {AGENT: agent()}, []
    shared = {key: value for key, value in asdict(settings).items() if key not in ("cores", "total_rails", "root")}
    for item in items:
        data = inputs(item.signature)
        digests = [hashlib.sha256(content).hexdigest() for content in (item.content, data)]
        names = [f"{digests[0][:16]}.model", f"{digests[1][:16]}.in"]
        files |= {names[0]: item.content, names[1]: data}
        task = {
            "name": item.name,
            "file": names[0],
            "data": names[1],
            "sha256": dict(zip(names, digests, strict=True)),
            "runtime": item.runtime,
            "sets": SETS,
            "rounds": _STREAM_ROUNDS if item.signature.is_streaming else 1,
            "cores": list(settings.cores),
            "inputs": [_spec(spec) for spec in item.signature.inputs],
            "state": [{**_spec(state.spec), "output": state.output} for state in item.signature.state],
            "outputs": [_spec(spec) for spec in item.signature.outputs],
            **shared,
        }
        task["id"] = hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()[:16]
        tasks.append(task)
    return files, tasks


def _spec(spec: TensorSpec) -> dict[str, Any]:
    shape = spec.concrete()
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(shape), "size": int(np.prod(shape, dtype=np.int64))}


def inputs(signature: Signature) -> bytes:
    """Seeded random inputs, set after set, then the first values of the states: what travels to the board."""
    pieces = [value for feeds in input_sets(signature) for value in feeds.values()]
    pieces += [_session.initial(state) for state in signature.state]
    return b"".join(value.tobytes() for value in pieces)


def input_sets(signature: Signature) -> list[dict[str, np.ndarray]]:
    """The sets of inputs that take turns."""
    random = np.random.default_rng(_session.SEED)
    return [{s.name: _session.random_input(s, random) for s in signature.inputs} for _ in range(SETS)]


def agreement(result: Result) -> dict[str, Any]:
    """How the outputs that came back compare with ONNX Runtime's on this machine, on the same inputs.

    max_abs and scale (the largest magnitude here) over all outputs, `same_argmax` of `n` runs for the first one. Raises
    InputError for a file that does not run here.
    """
    from edgetk.targets.meters.agent import ort

    item = result.item
    files, (task,) = _prepare([item], result.settings)
    try:
        here = ort.Model(item.reference or item.content, task, files[task["data"]]).outputs()
    except Exception as error:  # the runtime's errors share no base class of their own
        raise InputError(f"bench: {item.name} must run here to compare its outputs, got {error}; export it again") from error
    mine, theirs = _arrays(task, here), _arrays(task, result.outputs)
    pairs = [(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(mine, theirs, strict=True)]
    first = len(task["outputs"])
    return {
        "reference": "onnxruntime on this machine",
        "n": SETS * task["rounds"],
        "max_abs": max(float(np.abs(a - b).max()) for a, b in pairs),
        "scale": max(float(np.abs(a).max()) for a, _ in pairs),
        "same_argmax": sum(int(a.argmax() == b.argmax()) for a, b in pairs[::first]),
    }


def _arrays(task: Mapping[str, Any], content: bytes) -> list[np.ndarray]:
    """Outputs of each set in order, from their bytes."""
    found, offset = [], 0
    for _ in range(SETS * task["rounds"]):
        for spec in task["outputs"]:
            value = np.frombuffer(content, spec["dtype"], spec["size"], offset)
            offset += value.nbytes
            found.append(value)
    return found
