"""Power of a Jetson's rails, from its INA3221 and INA238 monitors through sysfs; knows which rails make up the total.

Paths: Linux, Documentation/hwmon/ina3221.rst (hwmon: mV, mA); L4T before release 34 (iio: mW). Runs on the board too: standard
library only, Python 3.8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetk.targets.power import Sensor

_DRIVERS = ("ina3221", "ina3221x", "ina238")


@dataclass(frozen=True)
class RailMap:
    """Which rails of a board add up to its total. It applies where the board has all of `total`; first match wins."""

    boards: str
    total: tuple[str, ...]
    means: str
    source: str


#: Adding every rail counts some power twice: an input rail feeds the others.
RAIL_MAPS: tuple[RailMap, ...] = (
    RailMap(
        "Jetson Xavier NX, Orin Nano, Orin NX, TX2",
        ("VDD_IN",),
        "module input",
        "NVIDIA developer forum, topic 200883: VDD_IN is the total power of the module",
    ),
    RailMap(
        "Jetson Nano",
        ("POM_5V_IN",),
        "board input",
        "NVIDIA developer forum, topic 73608: POM_5V_IN is the overall 5 V input, the other rails are part of it",
    ),
    RailMap("Jetson AGX Thor", ("VIN",), "board input", "rbonghi/jetson_stats#900: VIN is the total system power"),
    RailMap(
        "Jetson AGX Orin",
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
        "module rails added; VDDQ_VDD2_1V8AO is taken to be fed from VIN_SYS_5V0 and left out",
        "assumed: Linux, tegra234-p3701.dtsi names the rails; no primary source for their sum was found",
    ),
    RailMap(
        "Jetson AGX Xavier",
        ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
        "all module rails added",
        "NVIDIA developer forum, topic 81016, as quoted in rbonghi/jetson_stats#51: the total is the sum of all rails",
    ),
)


@dataclass(frozen=True)
class Rail:
    """One channel: files whose product (or single value) times `scale` is watts."""

    name: str
    files: tuple[Path, ...]
    scale: float

    def watts(self) -> float:
        product = self.scale
        for file in self.files:
            product *= float(file.read_text(encoding="ascii"))
        return product


class Rails(Sensor):
    """The total of a board's rails, and each rail."""

    unit = "W"

    def __init__(self, rails: Sequence[Rail], total: Sequence[str], means: str) -> None:
        self._rails = tuple(rails)
        self._total = [i for i, rail in enumerate(rails) if rail.name in total]
        self.channels = ("total", *(rail.name for rail in rails))
        self.name = f"INA3221 {' + '.join(total)} ({means})"

    def read(self) -> tuple[float, ...]:
        watts = [rail.watts() for rail in self._rails]
        return (sum(watts[i] for i in self._total), *watts)


def rails(root: str = "/") -> tuple[Rail, ...]:
    """Every rail that has a name, in the order of the monitors' addresses."""
    found: dict[str, Rail] = {}
    for driver in _DRIVERS:
        for device in sorted((Path(root) / "sys/bus/i2c/drivers" / driver).glob("*-00*")):
            for rail in _hwmon(device) + _iio(device):
                found.setdefault(rail.name, rail)
    return tuple(found.values())


def find(root: str = "/", total: Sequence[str] = ()) -> Rails | str:
    """The rails of this board with their total, or why not. `total` names the rails to add, instead of the map."""
    have = rails(root)
    if not have:
        return f"no INA3221 power monitor under {Path(root) / 'sys/bus/i2c/drivers'}"
    names = [rail.name for rail in have]
    if total:
        absent = [name for name in total if name not in names]
        if absent:
            return f"no power rail {', '.join(absent)}; this board has {', '.join(names)}"
        return _usable(Rails(have, total, "as the board file says"))
    for entry in RAIL_MAPS:
        if all(name in names for name in entry.total):
            return _usable(Rails(have, entry.total, entry.means))
    return f"which rails make up the total is not known for {', '.join(names)}: name them as total_rails in a board file"


def _usable(found: Rails) -> Rails | str:
    try:
        found.read()
    except (OSError, ValueError) as error:
        return f"{found.name} cannot be read ({type(error).__name__})"
    return found


def _hwmon(device: Path) -> list[Rail]:
    """Kernel driver, JetPack 5 on: in<n>_label, in<n>_input (mV), curr<n>_input (mA); an INA238 has power1_input (µW)."""
    found = []
    for folder in sorted(device.glob("hwmon/hwmon*")):
        for label in sorted(folder.glob("in*_label")):
            number = label.name[len("in") : -len("_label")]
            power, current = folder / f"power{number}_input", folder / f"curr{number}_input"
            name = _name(label)
            if name and power.is_file():
                found.append(Rail(name, (power,), 1e-6))
            elif name and current.is_file():
                found.append(Rail(name, (folder / f"in{number}_input", current), 1e-6))
    return found


def _iio(device: Path) -> list[Rail]:
    """NVIDIA's driver up to JetPack 4: rail_name_<n>, in_power<n>_input (mW)."""
    found = []
    for folder in sorted({*device.glob("iio:device*"), *device.glob("iio_device")}):
        for label in sorted(folder.glob("rail_name_*")):
            power = folder / f"in_power{label.name[len('rail_name_') :]}_input"
            if (name := _name(label)) and power.is_file():
                found.append(Rail(name, (power,), 1e-3))
    return found


def _name(label: Path) -> str:
    """What a channel is called; nothing for one that is not connected."""
    try:
        text = label.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if text.upper() in ("NC", "") or text.startswith("sum of shunt") else text
