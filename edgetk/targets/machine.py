"""What the operating system tells about the machine edgetk runs on."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path


def cores() -> int:
    """Logical processors."""
    return os.cpu_count() or 1


def ram_bytes() -> int:
    """Physical memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def disk_bytes() -> int:
    """Size of the file system of the working folder."""
    return shutil.disk_usage(Path.cwd()).total


def _cpuinfo(key: str) -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":", 1)[0].strip() == key), None)


def clock_hz() -> float | None:
    """Highest clock of the first processor; None where the operating system does not tell."""
    try:
        return 1e3 * float(Path("/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq").read_text(encoding="ascii"))
    except (OSError, ValueError):
        pass
    try:
        return 1e6 * float(_cpuinfo("cpu MHz") or "")
    except ValueError:
        return None


def cpu_model() -> str:
    """The name of this machine's processor, as the operating system tells it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cache_bytes(folder: Path = Path("/sys/devices/system/cpu/cpu0/cache")) -> tuple[int, ...]:
    """Sizes of the caches that the first processor reads data through, smallest first; empty where nothing tells."""
    found = {}
    for level in folder.glob("index*"):
        try:
            kind = (level / "type").read_text(encoding="ascii").strip()
            size = (level / "size").read_text(encoding="ascii").strip()
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            found[level.name] = 1024 * int(size[:-1])
    return tuple(sorted(found.values()))


def load_average() -> float | None:
    """Runnable processes over the last minute; None where the operating system does not tell."""
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None
