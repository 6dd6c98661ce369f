"""Energy and state of an NVIDIA GPU from its driver's own library (NVML), through ctypes.

Jetson's integrated GPUs answer "not supported": their power is on the INA3221 rails. API: NVIDIA, NVML API Reference Guide
(nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was loaded). Runs on the board too: standard library only,
Python 3.8.
"""

from __future__ import annotations

import ctypes
from typing import Any

from edgetk.targets.power import Sensor

_LIBRARY = "libnvidia-ml.so.1"
_CLOCK_SM, _CLOCK_MEMORY, _TEMPERATURE_GPU = 1, 2, 0
#: nvmlClocksThrottleReasons that slow the GPU down against its will (idle and requested clocks are none)
_SLOWDOWN = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x20: "thermal slowdown (software)",
    0x40: "thermal slowdown (hardware)",
    0x80: "power brake",
}


class Gpu:
    """One GPU as NVML sees it. Raises OSError where library or device do not answer."""

    def __init__(self, index: int = 0, library: Any = None) -> None:
        self._nvml = library if library is not None else ctypes.CDLL(_LIBRARY)
        self._ask("nvmlInit_v2")
        self._device = ctypes.c_void_p()
        self._ask("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(self._device))

    def joules(self) -> float:
        """Energy since the driver was loaded."""
        return 1e-3 * self._number("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())

    def watts(self) -> float:
        """Power at this moment (on recent GPUs the mean of the last second)."""
        return 1e-3 * self._number("nvmlDeviceGetPowerUsage", ctypes.c_uint())

    def name(self) -> str:
        """The product's name."""
        return self._text("nvmlDeviceGetName", self._device)

    def state(self) -> dict[str, Any]:
        """Clocks, temperature, power limit and what slows it down; what the GPU does not tell is None."""
        reasons = self._maybe("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        limit = self._maybe("nvmlDeviceGetEnforcedPowerLimit", ctypes.c_uint())
        return {
            "name": self.name(),
            "driver": self._text("nvmlSystemGetDriverVersion"),
            "clock_hz": _mhz(self._maybe("nvmlDeviceGetClockInfo", ctypes.c_uint(), ctypes.c_uint(_CLOCK_SM))),
            "max_clock_hz": _mhz(self._maybe("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), ctypes.c_uint(_CLOCK_SM))),
            "memory_clock_hz": _mhz(self._maybe("nvmlDeviceGetClockInfo", ctypes.c_uint(), ctypes.c_uint(_CLOCK_MEMORY))),
            "temperature_c": self._maybe("nvmlDeviceGetTemperature", ctypes.c_uint(), ctypes.c_uint(_TEMPERATURE_GPU)),
            "power_limit_w": None if limit is None else 1e-3 * limit,
            "throttling": None if reasons is None else [text for bit, text in _SLOWDOWN.items() if reasons & bit],
        }

    def _text(self, function: str, *arguments: Any) -> str:
        """A text, or nothing where the driver does not tell it."""
        text = ctypes.create_string_buffer(96)
        try:
            self._ask(function, *arguments, text, ctypes.c_uint(96))
        except OSError:
            return ""
        return text.value.decode("utf-8", "replace")

    def _number(self, function: str, value: Any, *arguments: Any) -> int:
        self._ask(function, self._device, *arguments, ctypes.byref(value))
        return int(value.value)

    def _maybe(self, function: str, value: Any, *arguments: Any) -> int | None:
        try:
            return self._number(function, value, *arguments)
        except OSError:
            return None

    def _ask(self, function: str, *arguments: Any) -> None:
        try:
            code = getattr(self._nvml, function)(*arguments)
        except AttributeError as error:
            raise OSError(f"NVML has no {function}") from error
        if code:
            raise OSError(f"NVML {function} answers with error {code}")


class GpuEnergy(Sensor):
    """The GPU's energy counter; without one, its power."""

    channels = ("GPU",)

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu
        try:
            gpu.joules()
            self.unit, self.name = "J", f"NVML total energy of {gpu.name()}"
        except OSError:
            gpu.watts()
            self.unit, self.name = "W", f"NVML power of {gpu.name()}"

    def read(self) -> tuple[float, ...]:
        return (self._gpu.joules() if self.unit == "J" else self._gpu.watts(),)


def find(library: Any = None) -> GpuEnergy | str:
    """The sensor of the first GPU, or why there is none."""
    try:
        return GpuEnergy(Gpu(library=library))
    except OSError as error:
        return f"no NVML power reading ({error})"


def _mhz(value: int | None) -> float | None:
    return None if value is None else 1e6 * value
