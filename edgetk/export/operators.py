"""The native operator library: where it is, what it can use of this processor, and how sessions get it.

`make native` builds it from `edgetk/export/native` (docs/native-operators.md). It is an option everywhere: a graph carries
the body of each operator, and a session without the library runs that.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import edgetk
from edgetk.core.errors import InputError

#: C sources and their Makefile.
SOURCES = Path(__file__).parent / "native"

#: Names the library where it is not in `build/native` beside the package.
ENVIRONMENT = "EDGETK_OPS"

#: Names the instruction set that the kernels have to use, one of `isas`.
ISA_ENVIRONMENT = "EDGETK_ISA"

FILE = "libedgetk_ops.so"


def library() -> Path | None:
    """The built library, from EDGETK_OPS or the folder that `make native` fills; None where nobody built it.

    Raises InputError where EDGETK_OPS names no file.
    """
    named = os.environ.get(ENVIRONMENT)
    if named:
        if not Path(named).is_file():
            raise InputError(f"{ENVIRONMENT}: must name the operator library, got no file {named!r}; run: make native")
        return Path(named).resolve()
    built = Path(edgetk.__file__).resolve().parents[1] / "build" / "native" / FILE
    return built if built.is_file() else None


def register(options: Any, path: Path) -> None:
    """Let sessions made with `options` (an `onnxruntime.SessionOptions`) run the library's kernels.

    Raises InputError where the library cannot be loaded.
    """
    try:
        options.register_custom_ops_library(str(path))
    except Exception as error:  # the runtime's errors share no base class of their own
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: must be an operator library for this machine, got: {reason}; run: make native") from error


def isas(path: Path) -> tuple[str, ...]:
    """The instruction sets that the library at `path` can use on this processor, best first."""
    loaded = ctypes.CDLL(str(path))
    loaded.edgetk_isas.restype = ctypes.c_char_p
    names: bytes = loaded.edgetk_isas()
    return tuple(names.decode().split())


__all__ = ["ENVIRONMENT", "FILE", "ISA_ENVIRONMENT", "SOURCES", "isas", "library", "register"]
