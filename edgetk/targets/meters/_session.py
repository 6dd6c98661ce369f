"""One ONNX file in ONNX Runtime, ready to be run again and again in this process, with its state fed back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgetk.core.errors import InputError
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.targets.meters.agent import ort

SEED = 0


def options(operators: Path | None = None, threads: int = 1) -> Any:
    """As the agent runs graphs, on `threads` threads.

    `operators` is a library of custom operators for the session. Raises InputError if it cannot be loaded.
    """
    settings = ort.options(threads)
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

        self._name = path.name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"onnxruntime: {path} must be a readable file, got {error.strerror}; check the path") from error
        try:
            self.session = ort.open_session(content, settings or options())
        except Exception as error:  # the runtime's errors share no base class of their own
            raise InputError(
                f"onnxruntime: {path.name} must be an ONNX file that it can load, got {_line(error)}; export it again"
            ) from error
        self._check_names({i.name for i in self.session.get_inputs()}, set(signature.input_names), "inputs")
        self._check_names({o.name for o in self.session.get_outputs()}, set(signature.output_names), "outputs")
        random = np.random.default_rng(SEED)
        self._feeds = {spec.name: random_input(spec, random) for spec in signature.inputs}
        self._feeds |= {state.name: initial(state) for state in signature.state}
        state = {state.name: state.output for state in signature.state}
        self.step = ort.Stepper(self.session, self._feeds, state, [spec.name for spec in signature.outputs]).step
        try:
            self.step()
        except Exception as error:
            raise InputError(
                f"onnxruntime: {path.name} must run on inputs of its signature's shapes, got {_line(error)}; export it again"
            ) from error

    def _check_names(self, found: set[str], wanted: set[str], what: str) -> None:
        if found != wanted:
            raise InputError(
                f"onnxruntime: {self._name} must have the {what} {', '.join(sorted(wanted))}, got {', '.join(sorted(found))}; "
                "give the signature it was exported with"
            )


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def random_input(spec: TensorSpec, random: np.random.Generator) -> np.ndarray:
    """A random value of one input: standard normal, or 0 and 1 for anything but floating point."""
    shape = spec.concrete()
    if spec.dtype.startswith("float"):
        return random.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
    return random.integers(0, 2, shape).astype(spec.dtype)


def initial(state: StateSpec) -> np.ndarray:
    """What a state holds at the start of a stream."""
    shape = state.spec.concrete()
    if state.init:
        return np.asarray(state.init, dtype=state.spec.dtype).reshape(shape)
    return np.zeros(shape, dtype=state.spec.dtype)
