"""A graph in ONNX Runtime, ready to be run again and again, with its state fed back; and its profile.

Needs the board's onnxruntime and numpy; Python 3.8.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

PROVIDER = "CPUExecutionProvider"
OPTIMIZATION = "ORT_ENABLE_ALL"
#: as edgetk.core.runtime_options has it, which does not travel to boards: no saturated sums on x86 without VNNI
EXACT_INTEGERS = "session.x64quantprecision"


def options(threads: int = 1) -> Any:
    """Sequential, all graph optimizations, no waiting threads that spin; errors come as exceptions, not on stderr.

    Integer products are exact, on x86 processors without VNNI too.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, OPTIMIZATION)
    settings.log_severity_level = 4
    settings.add_session_config_entry(EXACT_INTEGERS, "1")
    return settings


def open_session(content: bytes, settings: Any) -> Any:
    """A session with `settings`; as edgetk.core.runtime_options opens one."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(content, settings, providers=[PROVIDER])
    except Exception as error:
        if "replace the existing tensor" not in str(error):
            raise
    settings.add_session_config_entry(EXACT_INTEGERS, "0")
    return onnxruntime.InferenceSession(content, settings, providers=[PROVIDER])


def version() -> str:
    """The version of ONNX Runtime."""
    import onnxruntime

    return str(onnxruntime.__version__)


class Stepper:
    """Runs a session on named inputs; `state` says which output becomes which input of the next run."""

    def __init__(self, session: Any, feeds: dict[str, Any], state: Mapping[str, str], outputs: Sequence[str]) -> None:
        self.session = session
        self.feeds = feeds
        self._state = tuple(state)
        self._outputs = [*state.values(), *outputs]
        self._kept = len(self._state)

    def step(self) -> float:
        """Run once and feed the state back; the seconds of the run alone."""
        return self.run()[0]

    def run(self) -> tuple[float, list[Any]]:
        """Run once; the seconds of the run alone, and the values of the outputs that are not state."""
        start = time.perf_counter()
        values = self.session.run(self._outputs, self.feeds)
        seconds = time.perf_counter() - start
        for name, value in zip(self._state, values):  # noqa: B905  Python 3.8 has no strict
            self.feeds[name] = value
        return seconds, values[self._kept :]


class Model:
    """What the agent runs: a graph on several sets of inputs in turn, from `task` as the host wrote it.

    task["inputs"], task["state"]   name, dtype, shape; bytes of all inputs set after set in the file of inputs, then
                                    the first values of the states
    """

    def __init__(self, content: bytes, task: Mapping[str, Any], data: bytes, profile: str = "") -> None:
        import numpy as np

        settings = options(task["threads"])
        if profile:
            settings.enable_profiling = True
            settings.profile_file_prefix = profile
        session = open_session(content, settings)
        self.version = version()
        self.facts: dict[str, Any] = {"provider": PROVIDER, "graph_optimization": OPTIMIZATION}
        offset = 0

        def take(spec: Mapping[str, Any]) -> Any:
            nonlocal offset
            value = np.frombuffer(data, spec["dtype"], spec["size"], offset).reshape(spec["shape"])
            offset += value.nbytes
            return value

        self._sets = [{spec["name"]: take(spec) for spec in task["inputs"]} for _ in range(task["sets"])]
        self._initial = {spec["name"]: take(spec) for spec in task["state"]}
        state = {spec["name"]: spec["output"] for spec in task["state"]}
        self._stepper = Stepper(session, {**self._sets[0], **self._initial}, state, [spec["name"] for spec in task["outputs"]])
        self._turn = 0
        self._rounds: int = task["rounds"]

    def step(self) -> float:
        """Run on the next set of inputs; the seconds of the run alone."""
        self._stepper.feeds.update(self._sets[self._turn])
        self._turn = (self._turn + 1) % len(self._sets)
        return self._stepper.step()

    def outputs(self) -> bytes:
        """The outputs of one run on each set, of a stream of several, from the first state on, as bytes."""
        self._stepper.feeds.update(self._initial)
        found = []
        for values in self._sets * self._rounds:
            self._stepper.feeds.update(values)
            found += [value.tobytes() for value in self._stepper.run()[1]]
        return b"".join(found)

    def end_profiling(self) -> str:
        """Stop, and the file the profile went to."""
        return str(self._stepper.session.end_profiling())

    def close(self) -> None:
        """Nothing is held beyond this object."""


def profile(content: bytes, task: Mapping[str, Any], data: bytes, runs: int, warmup: int) -> list[dict[str, Any]]:
    """Each operator as the runtime runs it, slowest first: name, op_type, dtype, mean_s, share of the summed time, n.

    Profiling slows small operators down: compare the shares, not the sum.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = Model(content, task, data, profile=os.path.join(folder, "profile"))
        for _ in range(warmup + runs):
            model.step()
        with open(model.end_profiling(), encoding="utf-8") as file:
            return operators(json.load(file), runs)


def operators(events: Sequence[Mapping[str, Any]], runs: int) -> list[dict[str, Any]]:
    """Rows of the runtime's own profile: the last `runs` calls of each operator."""
    seen: dict[str, list[Mapping[str, Any]]] = {}
    end = "_kernel_time"
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(end):
            seen.setdefault(event["name"][: -len(end)], []).append(event)
    timed = {name: calls[-runs:] for name, calls in seen.items()}
    mean = {name: 1e-6 * sum(c["dur"] for c in calls) / len(calls) for name, calls in timed.items()}
    total = sum(mean.values()) or 1.0
    rows = [
        {
            "name": name,
            "op_type": calls[0]["args"]["op_name"],
            "dtype": _input_dtype(calls[0]),
            "mean_s": mean[name],
            "share": mean[name] / total,
            "n": len(calls),
        }
        for name, calls in timed.items()
    ]
    return sorted(rows, key=lambda row: -float(row["mean_s"]))


def _input_dtype(event: Mapping[str, Any]) -> str:
    inputs = event["args"].get("input_type_shape") or [{}]
    name = next(iter(inputs[0]), "")
    return {"float": "float32", "double": "float64"}.get(name, name)
