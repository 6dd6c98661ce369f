"""What the agent reads of a board, from trees that look like one: known or not, the same or moved."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_board import cores, jetson, put, raspberry_pi

from edgetk.targets.meters.agent import state
from edgetk.targets.meters.agent.state import Board, moved, unknown


def test_a_jetson(tmp_path: Path) -> None:
    seen = Board(str(jetson(tmp_path))).snapshot()
    assert seen == {
        "kind": "jetson",
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "kernel": "5.15.148-tegra",
        "power_mode": "25W",
        "l4t": "36.4.3",
        "jetpack": None,
        "governor": ["performance"],
        "cpu_clock_hz": {"min": 600e6, "max": 1500e6, "current": 1500e6},
        "gpu_clock_hz": {"min": 306e6, "max": 918e6, "current": 918e6},
        "cores_online": "0-5",
        "temperature_c": {"cpu-thermal": 48.25},
        "throttling": [],
        "load_average": 0.12,
    }
    assert unknown(seen) == []
    assert unknown(seen, gpu=True) == []
    assert moved(seen, seen, [1.5e9, 1.5e9], [918e6]) == []


def test_programs_of_the_board_are_asked_first(tmp_path: Path) -> None:
    answers = {"nvpmodel": "NV Power Mode: MODE_MAXN_SUPER\n2\n", "dpkg-query": "6.2+b77"}
    seen = Board(str(jetson(tmp_path)), lambda command: answers.get(command[0], "")).snapshot()
    assert seen["power_mode"] == "MAXN_SUPER"
    assert seen["jetpack"] == "6.2+b77"


def test_a_number_is_no_power_mode(tmp_path: Path) -> None:
    put(jetson(tmp_path), "etc/nvpmodel.conf", "< POWER_MODEL ID=7 NAME=OTHER >\n")
    seen = Board(str(tmp_path)).snapshot()
    assert seen["power_mode"] is None
    assert unknown(seen) == ["power mode"]


def test_programs_that_are_not_there_say_nothing() -> None:
    assert state.run(["no-such-program-anywhere"]) == ""
    assert state.run(["echo", "yes"]) == "yes\n"


def test_a_jetson_that_slows_down(tmp_path: Path) -> None:
    before = Board(str(jetson(tmp_path))).snapshot()
    put(tmp_path, "sys/class/thermal/cooling_device1/cur_state", "2\n")
    put(tmp_path, "var/lib/nvpmodel/status", "pmode:0000")
    put(tmp_path, "sys/devices/system/cpu/online", "0-3\n")
    after = Board(str(tmp_path)).snapshot()
    assert moved(before, after, [1.5e9, 1.0e9], [918e6, 306e6]) == [
        "power mode went from 25W to 15W",
        "cores online went from 0-5 to 0-3",
        "clock moved between 1000 and 1500 MHz while it ran (governor performance)",
        "gpu clock moved between 306 and 918 MHz while it ran (governor performance)",
        "throttled by thermal-cpufreq-0",
    ]


@pytest.mark.parametrize(
    ("flags", "why"),
    [("0", []), ("0x50005", ["under-voltage", "throttled"]), ("0x50000", []), ("what", None)],
)
def test_a_raspberry_pi_tells_what_holds_it_back_now(tmp_path: Path, flags: str, why: list[str] | None) -> None:
    seen = Board(str(raspberry_pi(tmp_path, flags))).snapshot()
    assert seen["kind"] == "raspberry-pi"
    assert seen["power_mode"] is None
    assert seen["throttling"] == why
    assert unknown(seen) == (["throttling"] if why is None else [])


def test_a_board_that_hides_its_clocks(tmp_path: Path) -> None:
    put(tmp_path, "proc/device-tree/model", "Some Board\0")
    put(tmp_path, "sys/devices/system/cpu/online", "0-1\n")
    seen = Board(str(tmp_path)).snapshot()
    assert seen["kind"] == "linux"
    assert seen["model"] == "Some Board"
    assert unknown(seen) == ["governor", "cpu clock hz", "temperature c"]


def test_a_virtual_machine_is_judged_by_a_fixed_loop(tmp_path: Path) -> None:
    put(tmp_path, "proc/cpuinfo", "model name\t: Some CPU\n")
    put(tmp_path, "sys/devices/system/cpu/online", "0-1\n")
    seen = Board(str(tmp_path)).snapshot()
    assert seen["kind"] == "clockless"
    assert seen["model"] == "Some CPU"
    assert 0 < seen["loop_s"] < 1
    assert unknown(seen) == []
    assert moved({**seen, "loop_s": 1e-3}, {**seen, "loop_s": 1.05e-3}, []) == []
    assert moved({**seen, "loop_s": 1e-3}, {**seen, "loop_s": 2e-3}, []) == [
        "a fixed loop took 2.00 times as long afterwards as before"
    ]


def test_a_gpu_card_must_tell_its_clock_and_what_slows_it(tmp_path: Path) -> None:
    cores(tmp_path)
    put(tmp_path, "sys/class/hwmon/hwmon0/name", "coretemp\n")
    put(tmp_path, "sys/class/hwmon/hwmon0/temp1_input", "40000\n")
    seen = {**Board(str(tmp_path)).snapshot(), "nvml": None}
    assert seen["temperature_c"] == {"coretemp temp1_input": 40.0}
    assert unknown(seen) == []
    assert unknown(seen, gpu=True) == ["gpu clock"]
    card = {**seen, "nvml": {"clock_hz": 1.98e9, "throttling": []}}
    assert unknown(card, gpu=True) == []
    slowed = {**seen, "nvml": {"clock_hz": 1.2e9, "throttling": ["power cap"]}}
    assert moved(card, slowed, []) == ["throttled by power cap"]


def test_clocks_of_chosen_cores(tmp_path: Path) -> None:
    cores(tmp_path)
    put(tmp_path, "sys/devices/system/cpu/cpu3/cpufreq/scaling_cur_freq", "800000\n")
    assert Board(str(tmp_path)).clock_hz([3]) == 800e6
    assert Board(str(tmp_path)).clock_hz() == 1500e6
    assert Board(str(tmp_path / "nothing")).clock_hz() is None
