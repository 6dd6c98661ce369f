"""Energy counters of the processor packages, from Linux's powercap interface (RAPL): Documentation/power/powercap.

Runs on the board too: standard library only, Python 3.8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetk.targets.power import Sensor

FOLDER = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Counter:
    """The package zones of this machine; each counts microjoules up to its range and starts again."""

    zones: tuple[Path, ...]
    ranges_j: tuple[float, ...]

    @property
    def name(self) -> str:
        return f"powercap package energy ({', '.join(zone.name for zone in self.zones)})"

    def joules(self) -> tuple[float, ...]:
        """The present reading of every zone."""
        return tuple(_microjoules(zone / "energy_uj") for zone in self.zones)

    def difference(self, before: tuple[float, ...], after: tuple[float, ...]) -> float:
        """Joules between two readings, over all zones; a zone that counted lower has passed its range once."""
        pairs = zip(before, after, self.ranges_j)  # noqa: B905  Python 3.8 has no strict
        return sum(b - a if b >= a else b - a + whole for a, b, whole in pairs)


def _microjoules(file: Path) -> float:
    return 1e-6 * int(file.read_text(encoding="ascii"))


def find(folder: Path = FOLDER) -> Counter | str:
    """The counter of this machine, or why it has none. Sub-zones (core, dram, …) are parts of a package and not added."""
    zones = tuple(sorted(zone for zone in folder.glob("intel-rapl:*") if zone.name.count(":") == 1))
    if not zones:
        return f"no energy counter: {folder} has no intel-rapl zone"
    try:
        counter = Counter(zones, tuple(_microjoules(zone / "max_energy_range_uj") for zone in zones))
        counter.joules()
    except (OSError, ValueError) as error:
        return f"the energy counters under {folder} cannot be read ({type(error).__name__}); they are often root's alone"
    return counter


class Packages(Sensor):
    """The counter as a sensor: joules since it was made, through any number of passed ranges."""

    unit = "J"
    channels = ("packages",)

    def __init__(self, counter: Counter) -> None:
        self.name = counter.name
        self._counter = counter
        self._last = counter.joules()
        self._total = 0.0

    def read(self) -> tuple[float, ...]:
        now = self._counter.joules()
        self._total += self._counter.difference(self._last, now)
        self._last = now
        return (self._total,)


def sensor(root: str = "/") -> Packages | str:
    """The packages of the machine whose file system is at `root`, or why they have no counter."""
    counter = find(Path(root) / FOLDER.relative_to("/"))
    return counter if isinstance(counter, str) else Packages(counter)
