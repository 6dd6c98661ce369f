"""What is installed, which extras are missing, and what this machine can measure."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import edgetk

_POWERCAP = Path("/sys/class/powercap")
_CPUINFO = Path("/proc/cpuinfo")

#: instruction sets that decide how fast int8 runs (x86 first, then Arm)
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def requirements() -> Mapping[str, tuple[str, ...]]:
    """Packages by the extra that brings them; "" holds the core. Read from the installed metadata of edgetk."""
    table: dict[str, list[str]] = {"": []}
    try:
        lines = importlib.metadata.requires("edgetk") or []
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was never installed
        core = ("numpy", "onnx", "onnxruntime", "torch")
        return {"": core, "nir": ("nir",), "parquet": ("pyarrow",), "view": ("netron",)}
    for line in lines:
        name = re.match(r"[\w.-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if name and name.group() != "edgetk":
            table.setdefault(extra.group(1) if extra else "", []).append(name.group())
    return {k: tuple(v) for k, v in table.items()}


def version_of(package: str) -> str | None:
    """The installed version, or None. Imports nothing."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cpu() -> dict[str, Any]:
    """Model name, cores this process may use, and the instruction sets that matter for int8."""
    text = _CPUINFO.read_text(errors="replace") if _CPUINFO.is_file() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.M)
    have = set(flags.group(1).split()) if flags else set()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": model.group(1).strip() if model else platform.processor() or platform.machine(),
        "machine": platform.machine(),
        "cores": usable,
        "flags": [f for f in _FLAGS if f in have],
    }


def can_measure(powercap: Path = _POWERCAP) -> dict[str, str]:
    """Each metric with "yes: how" or "no: why not"."""
    ort = version_of("onnxruntime")
    latency = f"yes: onnxruntime {ort} on the CPU" if ort else "no: onnxruntime is not installed; pip install onnxruntime"
    from edgetk.targets import power_ina3221, power_nvml
    from edgetk.targets.meters.agent import trt

    counters = sorted(powercap.glob("*/energy_uj")) if powercap.is_dir() else []
    readable = [c for c in counters if os.access(c, os.R_OK)]
    if readable:
        energy = f"yes: {len(readable)} counters under {powercap}"
    elif counters:
        energy = f"no: the counters under {powercap} are readable by root only"
    else:
        energy = f"no: this machine has no energy counter ({powercap} is empty); figures of energy are predicted"
    for found in (power_nvml.find(), power_ina3221.find()):
        if not isinstance(found, str):
            energy = f"yes: {found.name}"
    gpu = trt.available()
    client = shutil.which("ssh")
    return {
        "latency": latency,
        "on a GPU": f"no: {gpu}" if gpu else "yes: TensorRT through the agent",
        "on boards": f"yes: through {client}" if client else "no: the program ssh is not installed",
        "energy": energy,
        "board state": _state(),
    }


def _state() -> str:
    """Whether figures of this machine may be called measured: its state must be known and hold still."""
    from edgetk.targets.meters.agent.state import Board, unknown

    state = Board().snapshot()
    absent = unknown(state)
    if absent:
        return f"no: {', '.join(absent)} cannot be read: edgetk bench gives no latency here"
    if state["kind"] == "clockless":
        return "yes: clocks are hidden (a virtual machine or container), the time of a fixed loop stands in"
    mode = f"power mode {state['power_mode']}, " if state["power_mode"] else ""
    return f"yes: {state['kind']}, {mode}governor {', '.join(state['governor'])}"


def examine() -> dict[str, Any]:
    """All of it, as JSON-ready data: `edgetk doctor --json` prints exactly this."""
    wanted = requirements()
    extras = {
        extra: {package: version_of(package) for package in packages}
        for extra, packages in wanted.items()
        if extra not in ("", "dev", "all")
    }
    return {
        "edgetk": edgetk.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": {package: version_of(package) for package in wanted[""]},
        "extras": extras,
        "missing_extras": sorted(e for e, packages in extras.items() if None in packages.values()),
        "cpu": cpu(),
        "measures": can_measure(),
    }
