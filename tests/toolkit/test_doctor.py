"""`doctor`: what it finds is what is there, and what is not there is named with the way to get it."""

import pytest

from edgetk.toolkit import doctor


def test_versions_are_read_without_importing():
    assert doctor.version_of("rich")
    assert doctor.version_of("no-such-package-at-all") is None


def test_requirements_are_sorted_by_extra(monkeypatch):
    lines = ["numpy>=1.26", "netron>=8; extra == 'view'", 'pyarrow>=15; extra == "parquet"', "edgetk[view]; extra == 'all'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: lines)
    assert doctor.requirements() == {"": ("numpy",), "view": ("netron",), "parquet": ("pyarrow",)}


def test_a_missing_extra_is_found(monkeypatch):
    monkeypatch.setattr(doctor, "requirements", lambda: {"": ("rich",), "view": ("no-such-package-at-all",)})
    found = doctor.examine()
    assert found["missing_extras"] == ["view"]
    assert found["extras"] == {"view": {"no-such-package-at-all": None}}


def test_energy_needs_a_counter_that_can_be_read(tmp_path):
    assert doctor.can_measure(tmp_path / "nothing")["energy"].startswith("no: this machine has no energy counter")
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("1")
    assert doctor.can_measure(tmp_path)["energy"] == f"yes: 1 counters under {tmp_path}"


def test_energy_counters_for_root_only_are_said(tmp_path, monkeypatch):
    zone = tmp_path / "intel-rapl:0"
    zone.mkdir()
    (zone / "energy_uj").write_text("1")
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    assert "readable by root only" in doctor.can_measure(tmp_path)["energy"]


def test_latency_needs_onnxruntime(monkeypatch):
    assert doctor.can_measure()["latency"].startswith("yes: onnxruntime ")
    monkeypatch.setattr(doctor, "version_of", lambda package: None)
    assert doctor.can_measure()["latency"] == "no: onnxruntime is not installed; pip install onnxruntime"


@pytest.mark.parametrize(
    ("text", "model", "flags"),
    [
        ("model name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512_vnni\n", "Some CPU @ 2 GHz", ["avx2", "avx512_vnni"]),
        ("Features\t: fp asimd asimddp\n", None, ["asimd", "asimddp"]),
    ],
)
def test_the_processor_is_read_from_cpuinfo(tmp_path, monkeypatch, text, model, flags):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(doctor, "_CPUINFO", tmp_path / "cpuinfo")
    found = doctor.cpu()
    assert found["flags"] == flags
    assert found["cores"] >= 1
    assert model is None or found["model"] == model


def test_other_meters_and_the_state_of_this_machine(monkeypatch):
    from edgetk.targets.meters.agent import trt
    from edgetk.targets.meters.agent.state import Board

    monkeypatch.setattr(trt, "available", lambda: "tensorrt is not installed for this Python")
    monkeypatch.setattr(doctor.shutil, "which", lambda program: None)
    jetson = {
        "kind": "jetson", "power_mode": "15W", "l4t": "36.4", "governor": ["performance"], "cpu_clock_hz": {},
        "cores_online": "0", "temperature_c": {}, "throttling": [],
    }  # fmt: skip
    monkeypatch.setattr(Board, "snapshot", lambda self: jetson)
    found = doctor.can_measure()
    assert found["on a GPU"] == "no: tensorrt is not installed for this Python"
    assert found["on boards"] == "no: the program ssh is not installed"
    assert found["board state"] == "yes: jetson, power mode 15W, governor performance"
    jetson["governor"] = None
    assert doctor.can_measure()["board state"] == "no: governor cannot be read: edgetk bench gives no latency here"
    monkeypatch.setattr(trt, "available", lambda: None)
    monkeypatch.setattr(doctor.shutil, "which", lambda program: "/usr/bin/ssh")
    monkeypatch.setattr(Board, "snapshot", lambda self: {"kind": "clockless", "cores_online": "0", "loop_s": 1.0})
    found = doctor.can_measure()
    assert found["on a GPU"] == "yes: TensorRT through the agent"
    assert found["on boards"] == "yes: through /usr/bin/ssh"
    assert found["board state"] == "yes: clocks are hidden (a virtual machine or container), the time of a fixed loop stands in"
