"""The agent end to end over a real SSH server on loopback: what travels, what comes back, what is refused, what goes on."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ssh_server
from fake_board import alive, jetson
from target_graphs import dense, stream

from edgetk.core import registry
from edgetk.core.errors import EdgetkError, InputError, UsageError
from edgetk.core.figures import Measured, Missing
from edgetk.core.signature import Signature, StateSpec, TensorSpec
from edgetk.targets.meters import _bench, _figures, _transport
from edgetk.targets.meters._bench import Item, Settings
from edgetk.targets.meters._transport import Address, Ssh
from edgetk.targets.meters.ssh import SshBoard

CLIP = Signature((TensorSpec("x", ("B", 5)),), (TensorSpec("y", ("B", 3)),))
STREAM = Signature(
    (TensorSpec("x", (1, 4)),), (TensorSpec("y", (1, 2)),), (StateSpec(TensorSpec("state_a", (1, 4))),), period_s=0.010
)
QUICK = Settings(budget_s=0.05, warmup_s=0.01, windows=0)
RAIL = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input"

pytestmark = pytest.mark.skipif(ssh_server.absent() is not None, reason=str(ssh_server.absent()))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ssh_server.Server]:
    with ssh_server.serve(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A file system that looks like a Jetson's, which the agent is pointed at."""
    return jetson(tmp_path / "board")


def to(server: ssh_server.Server, python: str = sys.executable) -> Ssh:
    return Ssh(Address.parse(server.url), python, server.config)


def clip() -> Item:
    return Item("clip.onnx", dense(batch="B").SerializeToString(), CLIP)


def left(server: ssh_server.Server) -> list[str]:
    return sorted(str(path.relative_to(server.home)) for path in server.home.rglob("*"))


def test_measured_on_a_board_whose_state_is_known(server: ssh_server.Server, board: Path) -> None:
    settings = replace(QUICK, root=str(board), windows=2, window_s=0.5, idle_s=0.4, profile=True)
    told: list[str] = []
    step = Item("step.onnx", stream().SerializeToString(), STREAM)
    with alive(board / RAIL, *range(1000, 1050)):
        seen, other = _bench.run(to(server), [step, clip()], settings, told.append)
    assert told == ["measuring 1 of 2: step.onnx", "measuring 2 of 2: clip.onnx"]
    assert left(server) == []
    latency, factor, rss, energy, _above = _figures.figures(seen)
    assert isinstance(latency, Measured)
    assert latency.n >= 20
    assert 0 < latency.median <= latency.p95
    assert latency.method == "onnxruntime through the agent"
    assert latency.device == "NVIDIA Jetson Orin Nano Developer Kit (power mode 25W)"
    conditions = latency.conditions
    assert conditions["power_mode"] == "25W"
    assert conditions["clock_hz"] == {"min": 600e6, "max": 1500e6, "current": 1500e6, "running": [1500e6, 1500e6]}
    assert conditions["artifact_sha256"] == hashlib.sha256(step.content).hexdigest()
    assert conditions["where"] == server.url
    assert (conditions["l4t"], conditions["throttling"], conditions["threads"]) == ("36.4.3", [], 1)
    assert isinstance(factor, Measured)
    assert factor.median == pytest.approx(latency.median / 0.010)
    assert isinstance(rss, Measured)
    assert rss.median > rss.conditions["before_loading_bytes"] > 1e6
    assert isinstance(energy, Measured)
    assert energy.n == 2
    assert energy.conditions["sensor"] == "INA3221 VDD_IN (module input)"
    assert energy.conditions["watts"]["total"] == pytest.approx(5.12, rel=0.03)
    assert energy.conditions["idle_w"] == pytest.approx(5.12, rel=0.03)
    assert energy.median == pytest.approx(5.12 * 0.5 / energy.conditions["runs_per_window"], rel=0.5)
    assert {row["op_type"] for row in seen.data["operators"]} >= {"Add"}
    assert abs(seen.clock_offset_s or 1.0) < 0.5
    # both sides computed the same
    assert _bench.agreement(seen)["max_abs"] == 0.0
    assert _bench.agreement(seen)["n"] == 64
    assert _bench.agreement(other)["n"] == _bench.SETS


def test_what_a_run_brings_there_is_removed_or_kept_as_asked(server: ssh_server.Server, board: Path) -> None:
    settings = replace(QUICK, root=str(board))
    _bench.run(to(server), [clip()], settings, keep=True)
    (folder,) = (server.home / _transport.HOME).iterdir()
    assert (folder / "agent.pyz").is_file()
    assert (folder / "finished").is_file()
    (model,) = folder.glob("*.model")
    model.write_bytes(b"half of i")
    told: list[str] = []
    again = _bench.run(to(server), [clip()], settings, told.append)
    assert told == ["measuring 1 of 1: clip.onnx"]  # a finished job is measured anew
    assert not again[0].resumed
    assert "error" not in again[0].data  # and what was damaged there travelled again
    assert left(server) == []


def test_an_interrupted_run_goes_on(server: ssh_server.Server, board: Path) -> None:
    items = [clip(), Item("step.onnx", stream().SerializeToString(), STREAM)]
    settings = replace(QUICK, root=str(board))

    def interrupt(text: str) -> None:
        if "step.onnx" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _bench.run(to(server), items, settings, interrupt)
    kept = left(server)
    assert sum(name.endswith(".json") for name in kept) == 2  # the job and the first result
    told: list[str] = []
    results = _bench.run(to(server), items, settings, told.append)
    assert told == ["measuring 1 of 2: clip.onnx, done before", "measuring 2 of 2: step.onnx"]
    assert [result.resumed for result in results] == [True, False]
    assert all(isinstance(_figures.figures(result)[0], Measured) for result in results)
    assert left(server) == []


def test_a_file_that_does_not_run_there_says_why(server: ssh_server.Server, board: Path) -> None:
    settings = replace(QUICK, root=str(board))
    items = [Item("broken.onnx", b"not onnx", CLIP), replace(clip(), runtime="tensorrt")]
    broken, without = (_figures.figures(result) for result in _bench.run(to(server), items, settings))
    assert [type(figure) for figure in broken] == [Missing, Missing]
    assert str(broken[0]).startswith("not available: onnxruntime: ")
    if importlib.util.find_spec("tensorrt") is None:
        text = "tensorrt: ModuleNotFoundError: No module named 'tensorrt'; name a Python that has it with --python"
        assert str(without[0]) == f"not available: {text}"


def test_one_measurement_at_a_time(server: ssh_server.Server, board: Path) -> None:
    folder = server.home / _transport.HOME
    folder.mkdir()
    lock = os.open(folder, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as the agent of another measurement does
    try:
        with pytest.raises(EdgetkError, match="only one measurement may run at a time, got another; wait for it to end"):
            _bench.run(to(server), [clip()], replace(QUICK, root=str(board)))
    finally:
        os.close(lock)
    assert left(server) == []


def test_the_meter(server: ssh_server.Server, board: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.onnx"
    path.write_bytes(clip().content)
    meter = SshBoard(address=server.url, python=sys.executable, config=server.config, settings=replace(QUICK, root=str(board)))
    assert registry.load("meter", "ssh").name == meter.name
    assert meter.available() is None
    latency = meter.measure(path, CLIP, budget_s=0.05)[0]
    assert isinstance(latency, Measured)
    with pytest.raises(UsageError, match="a board must have an address, got none; give --target ssh://user@host"):
        SshBoard().measure(path, CLIP)


def test_an_unknown_host_key_is_refused(server: ssh_server.Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(server.known_hosts), str(tmp_path / "none")))
    strange = Ssh(Address.parse(server.url), sys.executable, config)
    with pytest.raises(InputError, match="its host key must be known, got an unknown one; connect once by hand"):
        _bench.run(strange, [clip()], QUICK)
    assert not (tmp_path / "none").exists()
    assert left(server) == []


def test_another_host_key_is_refused(server: ssh_server.Server, tmp_path: Path) -> None:
    known = tmp_path / "known"
    user_key = (server.folder / "user.pub").read_text().split()[:2]
    known.write_text(f"[127.0.0.1]:{server.port} {' '.join(user_key)}\n")
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(server.known_hosts), str(known)))
    changed = Ssh(Address.parse(server.url), sys.executable, config)
    with pytest.raises(InputError, match="its host key must be the known one, got another; find out why before"):
        _bench.run(changed, [clip()], QUICK)


def test_a_key_that_the_board_does_not_take(server: ssh_server.Server, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(f"{server.folder}/user", f"{server.folder}/host"))
    with pytest.raises(InputError, match=r"a key must open it without a password, got .*Permission denied .*ssh-copy-id"):
        _bench.run(Ssh(Address.parse(server.url), sys.executable, config), [clip()], QUICK)


def test_nobody_at_home(server: ssh_server.Server) -> None:
    gone = Ssh(Address.parse("ssh://127.0.0.1:1"), sys.executable, server.config)
    with pytest.raises(InputError, match=r"must answer, got .*refused.*; check that 127\.0\.0\.1 is on and reachable"):
        _bench.run(gone, [clip()], QUICK)


def test_a_board_without_a_new_enough_python(server: ssh_server.Server) -> None:
    with pytest.raises(InputError, match=r"no-such-python must be Python 3\.8 or newer, got .*; name another with --python"):
        _bench.run(to(server, "no-such-python"), [clip()], QUICK)


@pytest.mark.parametrize(
    "text",
    [
        "http://a",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "ssh://u:secret@h",
        "ssh://h/path",
        "ssh://h:port",
        "ssh://a b@h",
        "board",
    ],
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="a board must be ssh://user@host or ssh://user@host:port, got"):
        Address.parse(text)


def test_addresses() -> None:
    assert str(Address.parse("ssh://nano@board.local:2222/")) == "ssh://nano@board.local:2222"
    assert Address.parse("ssh://board").options() == ["--", "board"]
    assert Address.parse("ssh://u@b:22").options() == ["-l", "u", "-p", "22", "--", "b"]
