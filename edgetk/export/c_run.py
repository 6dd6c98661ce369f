"""Generated C from Python: build the shared library of a step, load it, and stream through it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgetk.core.errors import InputError, PostconditionError, PreconditionError

_DTYPES = {"float": np.float32, "uint8_t": np.uint8}


def build(folder: Path, out: Path | None = None, cc: str | None = None) -> Path:
    """The shared library of the generated C in `folder`, compiled there or into `out` with `cc` (the system's compiler).

    Raises InputError (no generated C there), PreconditionError (no make), PostconditionError (it does not compile).
    """
    folder, out = Path(folder), Path(out or folder)
    if not (folder / "Makefile").is_file():
        raise InputError(f"c_run: {folder} must hold generated C with its Makefile, got none; run: edgetk export --c {folder}")
    out.mkdir(parents=True, exist_ok=True)
    command = ["make", "-s", "-C", str(folder), f"OUT={out.resolve()}", *([f"CC={cc}"] if cc else [])]
    try:
        made = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise PreconditionError("c_run: make must be installed, got no such program; install gcc and make") from error
    if made.returncode:
        reason = [*(made.stderr.strip() or made.stdout.strip()).splitlines(), "no text"][0]
        raise PostconditionError(
            f"c_run: the generated C must compile, got: {reason}; install gcc and make, or name a compiler"
        )
    return next(out.glob("lib*.so"))


@dataclass(frozen=True)
class Library:
    """A loaded step function: `inputs` and `outputs` by name with their number of elements."""

    handle: ctypes.CDLL
    about: Mapping[str, Any]

    @property
    def inputs(self) -> Mapping[str, int]:
        return {entry["name"]: entry["size"] for entry in self.about["inputs"]}

    @property
    def outputs(self) -> Mapping[str, int]:
        return {entry["name"]: entry["size"] for entry in self.about["outputs"]}

    @property
    def isa(self) -> str:
        """The instruction set that runs."""
        name: bytes = self.handle.edgetk_c_isa()
        return name.decode()

    def has(self, isa: str) -> bool:
        """Whether the library and this processor have a build for `isa`. What runs stays as it is."""
        running = self.isa
        found: bool = self.handle.edgetk_c_use(isa.encode()) == 0
        self.use(running)
        return found

    def use(self, isa: str | None) -> None:
        """Run the build for `isa`, None for the best. Raises InputError where this processor has no such thing."""
        if self.handle.edgetk_c_use(isa.encode() if isa else None):
            raise InputError(f"c_run: isa must be one that this library and processor have, got {isa!r}; leave it out")

    def stream(self) -> Stream:
        """A new stream from the initial state."""
        return Stream(self)


def load(path: Path) -> Library:
    """A library that `build` made. Raises InputError for anything else."""
    path = Path(path)
    try:
        handle = ctypes.CDLL(os.fspath(path.resolve()))
        handle.edgetk_c_about.restype = handle.edgetk_c_isa.restype = ctypes.c_char_p
        handle.edgetk_c_use.argtypes = [ctypes.c_char_p]
        handle.edgetk_c_reset.argtypes = [ctypes.c_void_p]
        handle.edgetk_c_step.argtypes = [ctypes.c_void_p] * 3
        handle.edgetk_c_reset.restype = handle.edgetk_c_step.restype = None
    except (OSError, AttributeError) as error:
        raise InputError(f"c_run: {path} must be a library of generated C, got: {error}; build it with make") from error
    return Library(handle, json.loads(handle.edgetk_c_about()))


class Stream:
    """One stream: its state (`states`: parts of it by name, float32 or codes) and the memory of its inputs and outputs, which
    every step writes again."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.state = np.zeros(-(-library.about["state_bytes"] // 4), np.float32)
        self.states = {
            s["name"]: np.frombuffer(self.state, _DTYPES[s["dtype"]], s["size"], s["offset"]) for s in library.about["states"]
        }
        self.inputs = {name: np.zeros(size, np.float32) for name, size in library.inputs.items()}
        self.outputs = {name: np.zeros(size, np.float32) for name, size in library.outputs.items()}
        self._in = (ctypes.c_void_p * len(self.inputs))(*(x.ctypes.data for x in self.inputs.values()))
        self._out = (ctypes.c_void_p * len(self.outputs))(*(y.ctypes.data for y in self.outputs.values()))
        self._step = library.handle.edgetk_c_step
        self._arguments = (self.state.ctypes.data, ctypes.addressof(self._in), ctypes.addressof(self._out))
        self.reset()

    def reset(self) -> None:
        """Back to the start of a stream."""
        self._library.handle.edgetk_c_reset(self.state.ctypes.data)

    def step(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """One step: inputs in the order of the signature, any shape of the right size; the outputs, flat float32 copies."""
        for (name, place), given in zip(self.inputs.items(), inputs, strict=True):
            if given.size != place.size:
                raise InputError(
                    f"c_run: input {name} must have {place.size} elements, got {given.size}; give one step at a time"
                )
            place[:] = given.reshape(-1)
        self._step(*self._arguments)
        return tuple(y.copy() for y in self.outputs.values())
