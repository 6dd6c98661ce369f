"""Engines, built where TensorRT can be imported (8.5 to 11, or TensorRT-RTX), and what each one may be called.

An engine belongs to one GPU model and one version of TensorRT; it is not a file to hand on.
"""

from __future__ import annotations

import ctypes
import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from edgetk.export.tensorrt_versions import Version

#: Importable libraries, best first. TensorRT-RTX builds without a GPU, for its own runtime.
LIBRARIES = ("tensorrt", "tensorrt_rtx")

#: TensorRT-RTX counts its own versions; its builder is typed, as TensorRT's from 11 on.
_RTX_AS = Version(11, 0)


@dataclass(frozen=True)
class Library:
    """An imported TensorRT: `module` itself, its `name`, its own version as text, and the version whose API it has."""

    module: Any
    name: str
    text: str
    version: Version

    def __str__(self) -> str:
        return f"{self.name} {self.text}"

    @property
    def times(self) -> bool:
        """It times kernels while it builds, and so has a use for a timing cache; TensorRT-RTX does so when an engine runs."""
        return self.name != "tensorrt_rtx"


@dataclass(frozen=True)
class Engine:
    """A serialized engine, what it was built for (GPU or compute capabilities, and library), and the timing cache after it."""

    content: bytes
    built_for: str
    library: str
    cache: bytes

    @property
    def runs_on(self) -> str:
        """What it runs on, in words."""
        return f"{self.built_for} with {self.library}"

    def label(self, onnx_name: str, onnx_content: bytes, precision: str) -> bytes:
        """What goes beside the engine, as JSON."""
        facts = {
            "portable": False,
            "built_for": self.built_for,
            "library": self.library,
            "precision": precision,
            "sha256": sha256(self.content).hexdigest(),
            "size_bytes": len(self.content),
            "onnx": onnx_name,
            "onnx_sha256": sha256(onnx_content).hexdigest(),
        }
        return (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode()


def find() -> Library | str:
    """The TensorRT of this Python, or why there is none."""
    reasons = []
    for name in LIBRARIES:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a binding without its libraries raises whatever the loader does
            reasons.append(f"{name}: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}")
            continue
        text = str(module.__version__)
        major, minor = (int(part) for part in text.split(".")[:2])
        return Library(module, name, text, Version(major, minor) if name == "tensorrt" else _RTX_AS)
    return "no TensorRT can be imported here (" + "; ".join(reasons) + ")"


def build(
    content: bytes, precision: str, library: Library, exact: bool = False, cache: bytes = b"", sparse: bool = False
) -> Engine | str:
    """An engine of the ONNX file `content`, or the exact reason why there is none.

    precision  "float32", "float16" or "int8": builder flags before version 10; from then on the graph alone says it
    exact      keep float32 products as they are: no TF32
    cache      a timing cache of an earlier build with the same library on the same GPU
    sparse     let it use sparse tensor cores for weights in the 2:4 pattern, where that is faster
    """
    trt = library.module
    log = _log(trt)
    try:
        builder = trt.Builder(log)
        network = builder.create_network(_network_flags(trt, library.version))
        parser = trt.OnnxParser(network, log)
        if not parser.parse(content):
            return f"{library} refused the graph: {_first(str(parser.get_error(0)))}"
        config = builder.create_builder_config()
        _set_precision(trt, config, library.version, precision, exact)
        if sparse:
            config.set_flag(trt.BuilderFlag.SPARSE_WEIGHTS)
        if library.times:
            config.set_timing_cache(config.create_timing_cache(cache), ignore_mismatch=False)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            return f"{library} built no engine: {log.errors[0] if log.errors else 'it gave no reason'}"
        known = config.get_timing_cache() if library.times else None
        kept = bytes(known.serialize()) if known is not None else b""
        return Engine(bytes(plan), _built_for(config, library), str(library), kept)
    except Exception as error:  # bindings raise many types, and the reason is what the user needs
        told = f" ({log.errors[0]})" if log.errors else ""
        return f"{library} failed: {type(error).__name__}: {_first(str(error))}{told}"


def _network_flags(trt: Any, version: Version) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    if not version.is_typed:
        return 1 << int(flags.EXPLICIT_BATCH)
    return 1 << int(flags.STRONGLY_TYPED) if version.needs_typed_flag else 0


def _set_precision(trt: Any, config: Any, version: Version, precision: str, exact: bool) -> None:
    flags = trt.BuilderFlag
    if exact:
        config.clear_flag(flags.TF32)
    if not version.is_typed:
        for name in {"float16": ("FP16",), "int8": ("INT8",)}.get(precision, ()):
            config.set_flag(getattr(flags, name))


def _built_for(config: Any, library: Library) -> str:
    if library.name == "tensorrt_rtx":
        count = config.num_compute_capabilities
        names = [config.get_compute_capability(i).name for i in range(count)]
        return "GPUs that TensorRT-RTX supports" + (f" ({', '.join(names)})" if names and names != ["NONE"] else "")
    return gpu() or "an unknown GPU"


def gpu() -> str | None:
    """Name, compute capability and driver of the first GPU, None where there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    name, device, driver = ctypes.create_string_buffer(128), ctypes.c_int(), ctypes.c_int()
    major, minor = ctypes.c_int(), ctypes.c_int()
    calls: Sequence[tuple[str, tuple[Any, ...]]] = (
        ("cuInit", (0,)),
        ("cuDeviceGet", (ctypes.byref(device), 0)),
        ("cuDeviceGetName", (name, 128, device)),
        ("cuDeviceGetAttribute", (ctypes.byref(major), 75, device)),
        ("cuDeviceGetAttribute", (ctypes.byref(minor), 76, device)),
        ("cuDriverGetVersion", (ctypes.byref(driver),)),
    )
    for function, arguments in calls:
        if getattr(cuda, function)(*arguments) != 0:
            return None
    cuda_version = f"{driver.value // 1000}.{driver.value % 1000 // 10}"
    return f"{name.value.decode()} (compute capability {major.value}.{minor.value}, CUDA {cuda_version})"


def _first(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0] if lines else "no text"


def _log(trt: Any) -> Any:
    """A logger that keeps what went wrong instead of printing it."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(_first(message))

    return Log()
