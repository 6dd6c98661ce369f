"""One ONNX file in ONNX Runtime, ready to be run again and again on one thread, with its state fed back."""

from __future__ import annotations

from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from edgetk.core.errors import InputError
from edgetk.core.signature import Signature, StateSpec

PROVIDER = "CPUExecutionProvider"
OPTIMIZATION = "ORT_ENABLE_ALL"
SEED = 0


def options(operators: Path | None = None) -> Any:
    """One thread, sequential, all graph optimizations; errors come as exceptions, not on stderr.

    `operators` is a library of custom operators for the session. Raises InputError if it cannot be loaded.
    """
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    settings.inter_op_num_threads = 1
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, OPTIMIZATION)
    settings.log_severity_level = 4
    if operators is not None:
        try:
            settings.register_custom_ops_library(str(operators))
        except Exception as error:  # the runtime's errors share no base class of their own
            raise InputError(
                f"onnxruntime: {operators} must be an operator library for this machine, got {_line(error)}; run: make native"
            ) from error
    return settings


class Runner:
    """Runs a file on seeded random inputs; a stream goes on from the state it left.

    Raises InputError if the file cannot be read, loaded or run, or does not have the signature's inputs and outputs.
    """

    def __init__(self, path: Path, signature: Signature, settings: Any = None) -> None:
        import onnxruntime

        self._name = path.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"onnxruntime: {path} must be a readable file, got {error.strerror}; check the path") from error
        try:
            self.session = onnxruntime.InferenceSession(content, settings or options(), providers=[PROVIDER])
        except Exception as error:  # the runtime's errors share no base class of their own
            raise InputError(
                f"onnxruntime: {path.name} must be an ONNX file that it can load, got {_line(error)}; export it again"
            ) from error
        self._check_names({i.name for i in self.session.get_inputs()}, set(signature.input_names), "inputs")
        self._check_names({o.name for o in self.session.get_outputs()}, set(signature.output_names), "outputs")
        random = np.random.default_rng(SEED)
        self._feeds = {spec.name: _random(spec.concrete(), spec.dtype, random) for spec in signature.inputs}
        self._feeds |= {state.name: initial(state) for state in signature.state}
        self._state = signature.state
        self._outputs = [state.output for state in signature.state] + [spec.name for spec in signature.outputs]
        try:
            self.step()
        except Exception as error:
            raise InputError(
                f"onnxruntime: {path.name} must run on inputs of its signature's shapes, got {_line(error)}; export it again"
            ) from error

    def step(self) -> float:
        """Run once and feed the state back; the seconds of the run alone."""
        start = perf_counter()
        values = self.session.run(self._outputs, self._feeds)
        seconds = perf_counter() - start
        for state, value in zip(self._state, values, strict=False):
            self._feeds[state.name] = value
        return seconds

    def _check_names(self, found: set[str], wanted: set[str], what: str) -> None:
        if found != wanted:
            raise InputError(
                f"onnxruntime: {self._name} must have the {what} {', '.join(sorted(wanted))}, got {', '.join(sorted(found))}; "
                "give the signature it was exported with"
            )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _random(shape: tuple[int, ...], dtype: str, random: np.random.Generator) -> np.ndarray:
    if dtype.startswith("float"):
        return random.standard_normal(shape, dtype=np.float32).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def initial(state: StateSpec) -> np.ndarray:
    """What a state holds at the start of a stream."""
    shape = state.spec.concrete()
    if state.init:
        return np.asarray(state.init, dtype=state.spec.dtype).reshape(shape)
    return np.zeros(shape, dtype=state.spec.dtype)
