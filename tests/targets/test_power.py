"""Power meters behind one contract: energies by hand, boards' rails, GPUs, counters and logs, and why there is none."""

from __future__ import annotations

import ctypes
import math
import time
from pathlib import Path
from typing import Any

import pytest
from fake_board import alive, ina3221, ina3221_of_jetpack_4, jetson, put
from hypothesis import given
from hypothesis import strategies as st

from edgetk.core.errors import InputError
from edgetk.targets import power, power_csv, power_ina3221, power_nvml, powercap
from edgetk.targets.power import Energy, Recorder, Sensor, Trace

LOG = Path(__file__).resolve().parents[1] / "data" / "usb_meter.csv"


def trace(unit: str, times: list[float], values: list[float], every_row: bool = True) -> Trace:
    return Trace("s", unit, ("total",), times, [(v,) for v in values], every_row)


def test_power_is_integrated_by_trapezoids_with_interpolated_ends() -> None:
    seen = trace("W", [0.25 * i for i in range(41)], [2.0 * 0.25 * i for i in range(41)]).energy(1.1, 4.3)
    assert isinstance(seen, Energy)
    assert seen.joules == pytest.approx(4.3**2 - 1.1**2)  # ∫ 2t dt
    assert seen.watts == {"total": pytest.approx((4.3**2 - 1.1**2) / 3.2)}
    assert seen.updates == 13  # 1.25, 1.5 … 4.25


def test_a_counter_gives_its_difference() -> None:
    seen = trace("J", [0.1 * i for i in range(101)], [5.0 + 0.3 * i for i in range(101)]).energy(2.05, 8.05)
    assert isinstance(seen, Energy)
    assert seen.joules == pytest.approx(18.0)


@given(
    st.lists(st.floats(0.1, 10), min_size=30, max_size=60),
    st.floats(0.05, 0.45),
    st.floats(0.5, 0.95),
)
def test_energy_adds_up_over_windows(values: list[float], first: float, second: float) -> None:
    times = [float(i) for i in range(len(values))]
    end = times[-1]
    seen = trace("W", times, values)

    def joules(a: float, b: float) -> float:
        return seen._watts(0, a, b) * (b - a)

    whole, middle = joules(0.0, end), first * end + (second - first) * end
    assert math.isclose(joules(0.0, first * end) + joules(first * end, middle) + joules(middle, end), whole, rel_tol=1e-9)
    assert min(values) * end <= whole * (1 + 1e-9)
    assert whole <= max(values) * end * (1 + 1e-9)


def test_a_window_that_cannot_be_resolved_says_why() -> None:
    slow = trace("J", [0.01 * i for i in range(301)], [float(i // 50) for i in range(301)], every_row=False)
    assert slow.energy(0.1, 2.6) == (
        "s: 5 new values in a window of 2.5 s, 10 are needed to resolve it; a window of 5 s would do"
    )
    still = trace("W", [0.0, 1.0, 2.0], [3.0, 3.0, 3.0], every_row=False)
    assert still.energy(0.5, 1.5) == "s: 0 new values in a window of 1 s, 10 are needed to resolve it"
    assert still.energy(-1.0, 1.5) == "s: its readings cover 1 s to 3 s after the window's begin, the window lasts 2.5 s"
    assert still.energy(1.5, 2.5) == "s: its readings cover -1.5 s to 0.5 s after the window's begin, the window lasts 1 s"
    assert trace("W", [0.0], [1.0]).energy(0.0, 0.0) == "s: 1 readings, at least 2 are needed"


class Scripted(Sensor):
    """A sensor that answers from a list, then fails."""

    name = "scripted"

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def read(self) -> tuple[float, ...]:
        if not self.values:
            raise OSError("unplugged")
        return (self.values.pop(0),)


def test_a_recorder_reads_before_and_after() -> None:
    times = iter(float(i) for i in range(100))
    with Recorder(Scripted([1.0, 2.0]), period_s=60, clock=lambda: next(times)) as recorder:
        pass
    seen = recorder.trace()
    assert isinstance(seen, Trace)
    assert (seen.times, seen.values, seen.channels, seen.unit) == ([0.0, 1.0], [(1.0,), (2.0,)], ("total",), "W")


def test_a_sensor_that_stops_answering_gives_no_trace() -> None:
    with Recorder(Scripted([1.0]), period_s=60) as recorder:
        pass
    assert recorder.trace() == "scripted: stopped answering (OSError: unplugged)"


def test_rails_of_an_orin_nano(tmp_path: Path) -> None:
    found = power_ina3221.find(str(jetson(tmp_path)))
    assert isinstance(found, power_ina3221.Rails)
    assert found.name == "INA3221 VDD_IN (module input)"
    assert found.channels == ("total", "VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    assert found.read() == pytest.approx((6.0, 6.0, 2.0, 1.5))


def test_rails_of_older_boards_are_in_milliwatts(tmp_path: Path) -> None:
    ina3221_of_jetpack_4(tmp_path, "6-0040", POM_5V_IN=2875, POM_5V_GPU=40, POM_5V_CPU=600)
    found = power_ina3221.find(str(tmp_path))
    assert isinstance(found, power_ina3221.Rails)
    assert found.name == "INA3221 POM_5V_IN (board input)"
    assert found.read() == pytest.approx((2.875, 2.875, 0.04, 0.6))  # the total is the input, not the sum


def test_an_agx_xavier_has_no_input_rail_so_all_are_added(tmp_path: Path) -> None:
    ina3221_of_jetpack_4(tmp_path, "1-0040", GPU=1000, CPU=2000, SOC=3000)
    ina3221_of_jetpack_4(tmp_path, "1-0041", CV=100, VDDRQ=200, SYS5V=300)
    found = power_ina3221.find(str(tmp_path))
    assert isinstance(found, power_ina3221.Rails)
    assert found.read()[0] == pytest.approx(6.6)


def test_an_agx_orin_adds_three_of_its_four_rails(tmp_path: Path) -> None:
    ina3221(tmp_path, VDD_GPU_SOC=(5000, 600), VDD_CPU_CV=(5000, 400), VIN_SYS_5V0=(5000, 1000))
    ina3221(tmp_path, "1-0041", 2, NC=(0, 0), VDDQ_VDD2_1V8AO=(5000, 200))
    found = power_ina3221.find(str(tmp_path))
    assert isinstance(found, power_ina3221.Rails)
    assert found.read() == pytest.approx((10.0, 3.0, 2.0, 5.0, 1.0))
    assert "NC" not in found.channels


def test_an_input_monitor_in_microwatts(tmp_path: Path) -> None:
    folder = "sys/bus/i2c/drivers/ina238/2-0044/hwmon/hwmon5"
    put(tmp_path, f"{folder}/in1_label", "VIN\n")
    put(tmp_path, f"{folder}/in1_input", "19000\n")
    put(tmp_path, f"{folder}/power1_input", "23500000\n")
    found = power_ina3221.find(str(tmp_path))
    assert isinstance(found, power_ina3221.Rails)
    assert found.read() == pytest.approx((23.5, 23.5))


def test_every_rail_map_says_where_it_is_from() -> None:
    assert all(entry.boards and entry.total and entry.means and entry.source for entry in power_ina3221.RAIL_MAPS)


def test_rails_that_nobody_knows_are_not_added_up(tmp_path: Path) -> None:
    ina3221(tmp_path, RAIL_A=(5000, 100), RAIL_B=(5000, 100))
    assert power_ina3221.find(str(tmp_path)) == (
        "which rails make up the total is not known for RAIL_A, RAIL_B: name them as total_rails in a board file"
    )
    named = power_ina3221.find(str(tmp_path), ["RAIL_B"])
    assert isinstance(named, power_ina3221.Rails)
    assert named.name == "INA3221 RAIL_B (as the board file says)"
    assert named.read()[0] == pytest.approx(0.5)
    assert power_ina3221.find(str(tmp_path), ["RAIL_C"]) == "no power rail RAIL_C; this board has RAIL_A, RAIL_B"


def test_a_monitor_that_does_not_answer(tmp_path: Path) -> None:
    put(jetson(tmp_path), "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input", "\n")
    assert power_ina3221.find(str(tmp_path)) == "INA3221 VDD_IN (module input) cannot be read (ValueError)"


class FakeNvml:
    """NVML as far as it is used: values by function, or an error code."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __getattr__(self, name: str) -> Any:
        if name == "nvmlUnit":
            raise AttributeError(name)

        def call(*arguments: Any) -> int:
            value = self.values.get(name, 3)  # 3: not supported
            if name == "nvmlInit_v2" or name == "nvmlDeviceGetHandleByIndex_v2":
                return 0
            if isinstance(value, str):
                arguments[-2].value = value.encode()
                return 0
            if isinstance(value, tuple):
                arguments[-1]._obj.value = value[0]
                return 0
            return int(value)

        return call


def test_nvml_counts_millijoules() -> None:
    library = FakeNvml(nvmlDeviceGetTotalEnergyConsumption=(1_234_567,), nvmlDeviceGetName="NVIDIA H100")
    found = power_nvml.find(library)
    assert isinstance(found, power_nvml.GpuEnergy)
    assert (found.unit, found.name, found.read()) == ("J", "NVML total energy of NVIDIA H100", (pytest.approx(1234.567),))


def test_nvml_without_a_counter_reads_power() -> None:
    found = power_nvml.find(FakeNvml(nvmlDeviceGetPowerUsage=(75_500,), nvmlDeviceGetName="T"))
    assert isinstance(found, power_nvml.GpuEnergy)
    assert (found.unit, found.read()) == ("W", (pytest.approx(75.5),))


def test_nvml_on_a_jetson_answers_not_supported() -> None:
    assert power_nvml.find(FakeNvml()) == "no NVML power reading (NVML nvmlDeviceGetPowerUsage answers with error 3)"


def test_nvml_state() -> None:
    library = FakeNvml(
        nvmlDeviceGetName="H",
        nvmlSystemGetDriverVersion="580.1",
        nvmlDeviceGetClockInfo=(1980,),
        nvmlDeviceGetMaxClockInfo=(1980,),
        nvmlDeviceGetTemperature=(41,),
        nvmlDeviceGetEnforcedPowerLimit=(700_000,),
        nvmlDeviceGetCurrentClocksThrottleReasons=(0x1 | 0x4 | 0x20,),
    )
    assert power_nvml.Gpu(library=library).state() == {
        "name": "H",
        "driver": "580.1",
        "clock_hz": 1.98e9,
        "max_clock_hz": 1.98e9,
        "memory_clock_hz": 1.98e9,
        "temperature_c": 41,
        "power_limit_w": 700.0,
        "throttling": ["power cap", "thermal slowdown (software)"],
    }
    silent = power_nvml.Gpu(library=FakeNvml()).state()
    assert silent["throttling"] is None
    assert silent["clock_hz"] is None


def test_a_library_without_a_function() -> None:
    gpu = power_nvml.Gpu(library=FakeNvml())
    with pytest.raises(OSError, match="NVML has no nvmlUnit"):
        gpu._ask("nvmlUnit", ctypes.c_uint())


def zone(root: Path, energy: str) -> Path:
    put(root, "sys/class/powercap/intel-rapl:0/energy_uj", energy)
    put(root, "sys/class/powercap/intel-rapl:0/max_energy_range_uj", "1000000")
    return root / "sys/class/powercap/intel-rapl:0/energy_uj"


def test_package_energy_never_falls(tmp_path: Path) -> None:
    file = zone(tmp_path, "900000")
    found = powercap.sensor(str(tmp_path))
    assert isinstance(found, powercap.Packages)
    assert found.read() == (0.0,)
    file.write_text("100000")  # passed its range
    assert found.read() == (pytest.approx(0.2),)
    file.write_text("300000")
    assert found.read() == (pytest.approx(0.4),)


def test_the_nearest_sensor_is_found(tmp_path: Path) -> None:
    assert power.find(str(tmp_path)) == (
        f"no INA3221 power monitor under {tmp_path}/sys/bus/i2c/drivers; "
        f"no energy counter: {tmp_path}/sys/class/powercap has no intel-rapl zone"
    )
    zone(tmp_path, "1")
    assert isinstance(power.find(str(tmp_path)), powercap.Packages)
    jetson(tmp_path)
    assert isinstance(power.find(str(tmp_path)), power_ina3221.Rails)


def test_a_living_rail_is_recorded(tmp_path: Path) -> None:
    found = power_ina3221.find(str(jetson(tmp_path)))
    assert isinstance(found, Sensor)
    file = tmp_path / "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input"
    with alive(file, 1000, 1400), Recorder(found, period_s=2e-3) as recorder:
        while len(recorder._times) < 60 and not time.sleep(1e-3):
            pass
    seen = recorder.trace()
    assert isinstance(seen, Trace)
    energy = seen.energy(seen.times[0], seen.times[-1])
    assert isinstance(energy, Energy)
    assert 5.0 < energy.watts["total"] < 7.0
    assert energy.watts["VDD_SOC"] == pytest.approx(1.5)


def test_a_usb_meters_log() -> None:
    began = 1_750_000_000.0
    seen = power_csv.read(LOG, start_s=began)
    assert seen.name == "power log usb_meter.csv"
    busy = seen.energy(began + 1.5, began + 3.5)
    idle = seen.energy(began + 0.1, began + 0.9)
    assert isinstance(busy, Energy)
    assert isinstance(idle, Energy)
    assert busy.watts["supply"] == pytest.approx(3.5, rel=1e-3)
    assert busy.joules == pytest.approx(7.0, rel=1e-3)
    assert idle.watts["supply"] == pytest.approx(1.5, rel=2e-3)
    late = seen.energy(began + 4.0, began + 6.0)
    assert isinstance(late, str)
    assert late.startswith("power log usb_meter.csv: its readings cover -4 s to 0.99 s after the window's begin")


def test_a_log_of_its_own_time_needs_its_begin() -> None:
    with pytest.raises(InputError, match="times must be of the clock, got 0 from the log's own beginning; say when it began"):
        power_csv.read(LOG)


@pytest.mark.parametrize(
    ("text", "watts"),
    [
        ("time_s,power_mW\n1750000000,2500\n1750000001,2500\n", 2.5),
        ("Time [ms],Power [W]\n1750000000000,2.5\n1750000001000,2.5\n", 2.5),
        ("timestamp,power\n2025-06-15T15:06:40+00:00,2.5\n2025-06-15T15:06:41+00:00,2.5\n", 2.5),
        ("timestamp,power\n1750000000000,2.5\n1750000001000,2.5\n", 2.5),
        ("Timestamp(s)\tVBUS(mV)\tIBUS(mA)\n1750000000\t5000\t500\n1750000001\t5000\t500\n\n", 2.5),
    ],
)
def test_columns_and_units_are_found_by_name(tmp_path: Path, text: str, watts: float) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text, encoding="utf-8")
    seen = power_csv.read(path)
    assert seen.times == [1_750_000_000.0, 1_750_000_001.0]
    assert seen.values == [(pytest.approx(watts),)] * 2


def test_a_current_alone_needs_the_voltage(tmp_path: Path) -> None:
    path = tmp_path / "ppk.csv"
    path.write_text("Timestamp(ms),Current(uA)\n0,1000\n10,3000\n")
    assert power_csv.read(path, start_s=1.75e9, volts=3.0).values == [(pytest.approx(3e-3),), (pytest.approx(9e-3),)]
    with pytest.raises(InputError, match=r"it must have power or voltage beside the current, got .*; say the supply's voltage"):
        power_csv.read(path, start_s=1.75e9)


def test_logs_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    with pytest.raises(InputError, match="must be a readable file, got No such file or directory; check the path"):
        power_csv.read(path)
    for text, message in (
        ("a,b\n1,2\n", "its header must name a time and power, or voltage and current, got .*; add the names"),
        ("", "its header must name a time and power, or voltage and current, got nothing; add the names"),
        ("time,power\n1750000000,nan\n", "line 2 must hold times and numbers, got .*; mend it"),
        ("time,Power (kW)\n1750000000,1\n", r"units must be among w, mw, uw, µw, got 'Power \(kW\)'; convert the column"),
        ("time_min,power\n1750000000,1\n", "units must be among s, sec, .*, got 'time_min'; convert the column"),
        ("time,power\n1750000000,x\n", "line 2 must hold times and numbers, got .*; mend it"),
        ("time,power\n1750000001,1\n1750000000,1\n", "times must not go back, got 1750000000.0 in line 3; sort or split"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=message):
            power_csv.read(path)
