"""The state a board is in: power mode by name, clocks, governor, cores, temperatures, throttling, releases; known and stable?

A figure without its board state is worthless: boards have been found in their slowest mode in every benchmark ever taken on
them. Standard library only, Python 3.8.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

#: how far a clock, or the speed of a fixed loop, may move during a measurement
TOLERANCE = 0.05
_LOOP_TOLERANCE = 0.10
_PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_BITS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
_COOLING = re.compile(r"cpufreq|devfreq|throttle", re.I)

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[Sequence[str]], str]


def run(command: Sequence[str]) -> str:
    """What a program of the board prints; nothing where it is not there or fails."""
    paths = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # nvpmodel is not on every user's path
    settings: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "timeout": 10}
    try:
        done = subprocess.run(command, env={**os.environ, "PATH": paths}, check=False, **settings)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return bytes(done.stdout).decode("utf-8", "replace")


class Board:
    """Where to look: the file system at `root`, programs through `run` (none, where `root` is not the machine's own)."""

    def __init__(self, root: str = "/", programs: Run | None = None) -> None:
        self.root = Path(root)
        self.run: Run = programs if programs is not None else (run if root == "/" else lambda command: "")

    def text(self, name: str) -> str:
        """A file's text without the zeros and line ends around it; nothing where it cannot be read."""
        try:
            return (self.root / name).read_text(encoding="utf-8", errors="replace").strip("\0\n\t ")
        except OSError:
            return ""

    def number(self, name: str) -> float | None:
        """A file's number, None where it has none."""
        try:
            return float(self.text(name))
        except ValueError:
            return None

    def glob(self, pattern: str) -> list[str]:
        """Names below the root that match, sorted."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.glob(pattern))

    def kind(self) -> str:
        """ "jetson", "raspberry-pi", "clockless" (a virtual machine or container: clocks are hidden) or "linux"."""
        if self.text("etc/nv_tegra_release") or "jetson" in self.text("proc/device-tree/model").lower():
            return "jetson"
        if "raspberry pi" in self.text("proc/device-tree/model").lower():
            return "raspberry-pi"
        if self.text("proc/device-tree/model") or self.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"):
            return "linux"
        return "clockless"

    def snapshot(self) -> dict[str, Any]:
        """The state now, as plain data; what the board does not tell is None."""
        kind = self.kind()
        state: dict[str, Any] = {
            "kind": kind,
            "model": self._model(),
            "kernel": self.text("proc/sys/kernel/osrelease") or None,
            "power_mode": self._power_mode() if kind == "jetson" else None,
            "l4t": self._l4t(),
            "jetpack": self._jetpack() if kind == "jetson" else None,
            "governor": self._each("scaling_governor"),
            "cpu_clock_hz": self._clocks(),
            "gpu_clock_hz": self._gpu(),
            "cores_online": self.text("sys/devices/system/cpu/online") or self._count(),
            "temperature_c": self._temperatures(),
            "throttling": self._throttling(kind),
            "load_average": self.number_of_first_word("proc/loadavg"),
        }
        if kind == "clockless":
            state["loop_s"] = loop_seconds()
        return state

    def number_of_first_word(self, name: str) -> float | None:
        """The number a file begins with."""
        words = self.text(name).split()
        try:
            return float(words[0])
        except (IndexError, ValueError):
            return None

    def clock_hz(self, cores: Sequence[int] = ()) -> float | None:
        """Highest present clock of some cores, of all where none are named."""
        names = [f"sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq" for core in cores]
        found = [self.number(name) for name in names or self.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")]
        known = [1e3 * value for value in found if value is not None]
        return max(known) if known else None

    def gpu_clock_hz(self) -> float | None:
        """Present clock of an integrated GPU."""
        gpu = self._gpu()
        return None if gpu is None else gpu["current"]

    def _count(self) -> str | None:
        """How many cores this machine says it has, where it does not say which."""
        return f"{os.cpu_count()} in all" if self.root == Path("/") else None

    def _model(self) -> str:
        found = re.search(r"^model name\s*:\s*(.+)$", self.text("proc/cpuinfo"), re.M)
        return self.text("proc/device-tree/model") or (found.group(1).strip() if found else os.uname().machine)

    def _power_mode(self) -> str | None:
        """NVIDIA's power mode by name: numbers mean different modes on different boards."""
        found = re.search(r"NV Power Mode\s*:\s*(?:MODE_)?(\S+)", self.run(["nvpmodel", "-q"]))
        if found:
            return found.group(1)
        number = re.search(r"pmode:(\d+)", self.text("var/lib/nvpmodel/status"))
        names = re.findall(r"^<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>", self.text("etc/nvpmodel.conf"), re.M)
        known = {int(key): name for key, name in names}
        return re.sub("^MODE_", "", known[int(number.group(1))]) if number and int(number.group(1)) in known else None

    def _l4t(self) -> str | None:
        found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", self.text("etc/nv_tegra_release"))
        return f"{found.group(1)}.{found.group(2)}" if found else None

    def _jetpack(self) -> str | None:
        return self.run(["dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack"]).strip() or None

    def _each(self, name: str) -> list[str] | None:
        """What the cores' frequency settings say, each once."""
        texts = {self.text(path) for path in self.glob(f"sys/devices/system/cpu/cpu[0-9]*/cpufreq/{name}")}
        return sorted(texts - {""}) or None

    def _clocks(self) -> dict[str, float] | None:
        found = {}
        for key, name, pick in (("min", "scaling_min_freq", min), ("max", "scaling_max_freq", max)):
            values = [self.number(p) for p in self.glob(f"sys/devices/system/cpu/cpu[0-9]*/cpufreq/{name}")]
            known = [1e3 * value for value in values if value is not None]
            if known:
                found[key] = pick(known)
        current = self.clock_hz()
        return {**found, "current": current} if len(found) == 2 and current is not None else None

    def _gpu(self) -> dict[str, float] | None:
        """Clocks of a Jetson's GPU: the devfreq device whose name says so."""
        for folder in self.glob("sys/class/devfreq/*"):
            if re.search(r"gpu|gv11b|gp10b|ga10b|gm20b|gpc", folder.rsplit("/", 1)[1], re.I):
                values = {key: self.number(f"{folder}/{key}_freq") for key in ("min", "max", "cur")}
                if values["min"] is not None and values["max"] is not None and values["cur"] is not None:
                    return {"min": values["min"], "max": values["max"], "current": values["cur"]}
        return None

    def _temperatures(self) -> dict[str, float] | None:
        found = {}
        for zone in self.glob("sys/class/thermal/thermal_zone*"):
            value = self.number(f"{zone}/temp")
            if value is not None and -40e3 < value < 200e3:  # zones that are switched off show impossible values
                found[self.text(f"{zone}/type") or zone.rsplit("/", 1)[1]] = value / 1e3
        if not found:
            for name in self.glob("sys/class/hwmon/hwmon*/temp*_input"):
                value = self.number(name)
                if value is not None:
                    found[f"{self.text(name.rsplit('/', 1)[0] + '/name')} {name.rsplit('/', 1)[1]}"] = value / 1e3
        return found or None

    def _throttling(self, kind: str) -> list[str] | None:
        """What slows the board down at this moment; None where nothing on the board would tell."""
        if kind == "raspberry-pi":
            text = self.text(_PI_THROTTLED) or self.run(["vcgencmd", "get_throttled"]).strip().partition("=")[2]
            try:
                flags = int(text, 16)
            except ValueError:
                return None
            return [name for bit, name in _PI_BITS.items() if flags >> bit & 1]
        devices = [d for d in self.glob("sys/class/thermal/cooling_device*") if _COOLING.search(self.text(f"{d}/type"))]
        counters = self.glob("sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/package_throttle_count")
        if not devices and not counters:
            return None
        return [self.text(f"{d}/type") for d in devices if self.number(f"{d}/cur_state")]


def loop_seconds(repeats: int = 25) -> float:
    """The shortest time of a fixed loop: how fast one core is, where no clock can be read."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        total = 0
        for i in range(50_000):
            total += i
        best = min(best, time.perf_counter() - start)
    return best


_NEEDED = {
    "jetson": ("power_mode", "l4t", "governor", "cpu_clock_hz", "cores_online", "temperature_c", "throttling"),
    "raspberry-pi": ("governor", "cpu_clock_hz", "cores_online", "temperature_c", "throttling"),
    "linux": ("governor", "cpu_clock_hz", "cores_online", "temperature_c"),
    "clockless": ("cores_online", "loop_s"),
}


def unknown(state: dict[str, Any], gpu: bool = False) -> list[str]:
    """What must be known of such a board and is not. With `gpu`, also the clock of what ran the graph."""
    needed = list(_NEEDED[state["kind"]])
    absent = [name.replace("_", " ") for name in needed if state.get(name) is None]
    if gpu:
        nvml = state.get("nvml") or {}
        if state["gpu_clock_hz"] is None and (nvml.get("clock_hz") is None or nvml.get("throttling") is None):
            absent.append("gpu clock")
    return absent


def moved(
    before: dict[str, Any], after: dict[str, Any], clocks: Sequence[float], gpu_clocks: Sequence[float] = ()
) -> list[str]:
    """Why the state was not the same all the time, in words; empty where it was.

    clocks, gpu_clocks   readings in Hz while the graph ran
    """
    found = []
    for name in ("power_mode", "governor", "cores_online"):
        if before.get(name) != after.get(name):
            found.append(f"{name.replace('_', ' ')} went from {_words(before.get(name))} to {_words(after.get(name))}")
    for what, values in (("clock", clocks), ("gpu clock", gpu_clocks)):
        if values and max(values) - min(values) > TOLERANCE * max(values):
            found.append(
                f"{what} moved between {min(values) / 1e6:.0f} and {max(values) / 1e6:.0f} MHz while it ran "
                f"(governor {_words(before.get('governor'))})"
            )
    slow = {*(before.get("throttling") or ()), *(after.get("throttling") or ())}
    nvml = [state["nvml"]["throttling"] or () for state in (before, after) if state.get("nvml")]
    slow |= {reason for reasons in nvml for reason in reasons}
    if slow:
        found.append(f"throttled by {', '.join(sorted(slow))}")
    if before.get("loop_s") and after.get("loop_s"):
        ratio = after["loop_s"] / before["loop_s"]
        if not 1 / (1 + _LOOP_TOLERANCE) <= ratio <= 1 + _LOOP_TOLERANCE:
            found.append(f"a fixed loop took {ratio:.2f} times as long afterwards as before")
    return found


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
