"""File systems that look like boards', to read state and power from."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NVPMODEL = "# comment\n< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=25W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n"


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def cores(root: Path, count: int = 4, clock_khz: int = 1_500_000, governor: str = "performance") -> None:
    put(root, "sys/devices/system/cpu/online", f"0-{count - 1}\n")
    for core in range(count):
        folder = f"sys/devices/system/cpu/cpu{core}/cpufreq"
        for name, value in (("min", 600_000), ("max", 1_500_000), ("cur", clock_khz)):
            put(root, f"{folder}/scaling_{name}_freq", f"{value}\n")
        put(root, f"{folder}/scaling_governor", f"{governor}\n")
    put(root, "proc/loadavg", "0.12 0.10 0.09 1/200 999\n")
    put(root, "proc/sys/kernel/osrelease", "5.15.148-tegra\n")


def jetson(root: Path) -> Path:
    """An Orin Nano in its 25 W mode, cool, on JetPack 6.2, with its power monitor."""
    put(root, "proc/device-tree/model", "NVIDIA Jetson Orin Nano Developer Kit\0")
    put(root, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n")
    put(root, "etc/nvpmodel.conf", NVPMODEL)
    put(root, "var/lib/nvpmodel/status", "pmode:0001")
    cores(root, 6)
    put(root, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    put(root, "sys/class/thermal/thermal_zone0/temp", "48250\n")
    put(root, "sys/class/thermal/thermal_zone1/type", "cv0-thermal\n")
    put(root, "sys/class/thermal/thermal_zone1/temp", "-256000\n")  # switched off
    put(root, "sys/class/thermal/cooling_device0/type", "pwm-fan\n")
    put(root, "sys/class/thermal/cooling_device0/cur_state", "3\n")
    put(root, "sys/class/thermal/cooling_device1/type", "thermal-cpufreq-0\n")
    put(root, "sys/class/thermal/cooling_device1/cur_state", "0\n")
    for name, value in (("min", 306_000_000), ("max", 918_000_000), ("cur", 918_000_000)):
        put(root, f"sys/class/devfreq/17000000.gpu/{name}_freq", f"{value}\n")
    ina3221(root, VDD_IN=(5000, 1200), VDD_CPU_GPU_CV=(5000, 400), VDD_SOC=(5000, 300))
    return root


def raspberry_pi(root: Path, throttled: str = "0") -> Path:
    put(root, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    cores(root)
    put(root, "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    put(root, "sys/class/thermal/thermal_zone0/temp", "51000\n")
    put(root, "sys/devices/platform/soc/soc:firmware/get_throttled", f"{throttled}\n")
    return root


def ina3221(root: Path, address: str = "1-0040", number: int = 1, **rails: tuple[int, int]) -> None:
    """A monitor as the kernel's driver shows it: volts and amperes in thousandths, and what to leave alone."""
    folder = f"sys/bus/i2c/drivers/ina3221/{address}/hwmon/hwmon{number}"
    for channel, (name, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        put(root, f"{folder}/in{channel}_label", f"{name}\n")
        put(root, f"{folder}/in{channel}_input", f"{millivolts}\n")
        put(root, f"{folder}/curr{channel}_input", f"{milliamperes}\n")
    put(root, f"{folder}/in7_label", "sum of shunt voltages\n")


def ina3221_of_jetpack_4(root: Path, address: str, **rails: int) -> None:
    """A monitor as NVIDIA's older driver shows it, in milliwatts."""
    folder = f"sys/bus/i2c/drivers/ina3221x/{address}/iio:device0"
    for channel, (name, milliwatts) in enumerate(rails.items()):
        put(root, f"{folder}/rail_name_{channel}", f"{name}\n")
        put(root, f"{folder}/in_power{channel}_input", f"{milliwatts}\n")


@contextmanager
def alive(file: Path, *values: int) -> Iterator[None]:
    """A file whose number changes every two milliseconds, never half written."""
    end = threading.Event()

    def change() -> None:
        turn = 0
        while not end.wait(2e-3):
            part = file.with_suffix(".part")
            part.write_text(f"{values[turn % len(values)]}\n", encoding="ascii")
            part.replace(file)
            turn += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
