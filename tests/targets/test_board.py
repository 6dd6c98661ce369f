"""Boards: every built-in one is complete and sourced; every way a file can be wrong has its sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgetk.core.errors import InputError, UnknownName
from edgetk.core.target import Mode
from edgetk.targets import board, machine

GOOD = """
description = "a board"
kind = "mcu"
power_mode = "run"
clock_hz = 1e8
cores = 1
mem_bytes_per_s = 2e8
ram_bytes = 262144
flash_bytes = 1e6

[macs_per_cycle]
float32 = 0.5

[stack]
name = "my runtime"
runtime = "mine"
opset = 15

[sources]
clock_hz = "data sheet"
cores = "data sheet"
mem_bytes_per_s = "assumed"
ram_bytes = "data sheet"
flash_bytes = "data sheet"
macs_per_cycle.float32 = "assumed"
stack.opset = "manual"
"""


def write(folder: Path, text: str) -> str:
    path = folder / "my-board.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", board.names())
def test_every_number_of_a_built_in_board_has_a_source(name: str) -> None:
    target = board.load(name)
    numbers = {k for k, v in vars(target).items() if isinstance(v, (int, float)) and not isinstance(v, bool) and v}
    numbers |= {f"macs_per_cycle.{k}" for k in target.macs_per_cycle}
    numbers |= {f"joules.{k}" for k in target.joules}
    numbers |= {f"stack.{k}" for k in ("opset", "ir_version")}
    assert numbers <= set(target.sources)
    assert all(text.strip() for text in target.sources.values())


@pytest.mark.parametrize("name", board.names())
def test_a_board_is_named_with_its_power_mode_and_stack(name: str) -> None:
    target = board.load(name)
    assert target.name == name
    assert str(target) == f"{name} (power mode {target.power_mode}, stack {target.stack.name})"


def test_the_boards_that_ship() -> None:
    jetsons = ["nano", "tx2", "xavier-nx", "agx-xavier", "thor", "agx-orin-32g", "agx-orin-64g", "orin-nx-8g", "orin-nx-16g"]
    jetsons += ["orin-nano-4g", "orin-nano-8g", "orin-nano-super"]
    named = [*(f"jetson-{name}" for name in jetsons), *(f"raspberry-pi-{n}" for n in ("zero-2w", "3b-plus", "4", "5"))]
    named += [f"stm32{name}" for name in ("l4r5", "f746", "h7a3", "h743", "u575", "u385")]
    named += ["nrf52840", "nrf5340", "ra8d1", "rp2040", "rp2350", "esp32-s3", "ethos-u55-128", "coral-usb", "loihi2", "host"]
    assert set(board.names()) >= set(named)


def test_an_alias_gives_the_concrete_board() -> None:
    assert board.aliases()["jetson"] == "jetson-orin-nano-8g"
    assert str(board.load("jetson")).startswith("jetson-orin-nano-8g (power mode 15W, stack TensorRT 10.3")


def test_host_tells_what_the_operating_system_tells() -> None:
    host = board.load("host")
    assert host.measurable
    assert host.cores == machine.cores()
    assert host.ram_bytes == machine.ram_bytes() > 1_000_000
    assert host.macs_per_cycle == {}
    assert host.sources["ram_bytes"] == "read from the operating system"


def test_machine_copes_with_a_system_that_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    assert machine.clock_hz() is None
    assert machine.cpu_model()


def test_a_toml_file_is_a_board(tmp_path: Path) -> None:
    target = board.load(write(tmp_path, GOOD))
    assert (target.name, target.stack.opset, target.flash_bytes, target.stack.activation) == ("my-board", 15, 1_000_000, "int8")
    assert target.power_w is None


MODES = """
units.cpu.description = "its processor"
units.cpu.kind = "cpu"
units.cpu.clock_hz = 2e8
units.cpu.cores = 4
units.cpu.macs_per_cycle.float32 = 8.0
units.cpu.stack.name = "another runtime"
units.cpu.stack.runtime = "other"
units.cpu.sources.clock_hz = "data sheet"
units.cpu.sources.cores = "data sheet"
units.cpu.sources.macs_per_cycle.float32 = "assumed"
modes.slow.clock_hz = 5e7
modes.slow.power_w = 0.01
modes.slow.sources.clock_hz = "manual"
modes.slow.sources.power_w = "assumed"
modes.slow.cpu.clock_hz = 1e8
modes.slow.cpu.sources.clock_hz = "manual"
"""


def test_a_unit_and_a_power_mode_stand_behind_the_name(tmp_path: Path) -> None:
    path = write(tmp_path, MODES + GOOD)
    whole, slow, cpu, both = (board.load(path + end) for end in ("", ":slow", ":cpu", ":cpu:slow"))
    assert [t.name for t in (whole, slow, cpu, both)] == ["my-board", "my-board:slow", "my-board:cpu", "my-board:cpu:slow"]
    assert [(t.clock_hz, t.power_mode, t.power_w) for t in (whole, slow)] == [(1e8, "run", None), (5e7, "slow", 0.01)]
    assert [(t.clock_hz, t.power_mode, t.power_w) for t in (cpu, both)] == [(2e8, "run", None), (1e8, "slow", 0.01)]
    assert (cpu.kind, cpu.cores, cpu.stack.name, cpu.macs_per_cycle) == ("cpu", 4, "another runtime", {"float32": 8.0})
    assert cpu.ram_bytes == whole.ram_bytes
    assert cpu.unit == "cpu"
    assert whole.modes == (Mode("slow", 5e7, 0.01),)
    assert both.modes == (Mode("slow", 1e8, 0.01),)
    assert (both.sources["clock_hz"], both.sources["power_w"], cpu.sources["ram_bytes"]) == ("manual", "assumed", "data sheet")


@pytest.mark.parametrize(
    ("old", "new", "end", "error", "text"),
    [
        ("", "", ":fast", UnknownName, "'fast' must be a unit or a power mode of my-board; known: cpu, slow"),
        ("", "", ":slow:slow", UnknownName, "'slow' must be a unit or a power mode of my-board; did you mean slow"),
        ("modes.slow.power_w", "modes.slow.watts", "", InputError, r"modes\.slow may change .*, got watts; "),
        ('modes.slow.sources.power_w = "assumed"\n', "", ":slow", InputError, "power_w must have a source, got none"),
        ("units.cpu.cores = 4\n", "", ":cpu", InputError, "cores must be given, got nothing; add it"),
        ('modes.slow.cpu.sources.clock_hz = "manual"', "modes.x = 1", "", InputError, "modes must be tables, got"),
    ],
)
def test_a_wrong_unit_or_mode_gets_one_sentence(
    tmp_path: Path, old: str, new: str, end: str, error: type[Exception], text: str
) -> None:
    assert old in MODES
    with pytest.raises(error, match=text):
        board.load(write(tmp_path, MODES.replace(old, new, 1) + GOOD) + end)


@pytest.mark.parametrize("name", board.names())
def test_every_unit_and_power_mode_of_a_built_in_board_loads(name: str) -> None:
    units = [unit.removeprefix(name).removeprefix(":") for unit in board.units(name)]
    modes = [part for part in board.parts(name) if part not in units]
    for unit in units:
        for mode in ("", *modes):
            target = board.load(":".join(part for part in (name, unit, mode) if part))
            if mode:
                assert target.power_mode == mode
                assert target.clock_hz == next(m.clock_hz for m in target.modes if m.name == mode)


def test_a_jetson_is_a_gpu_and_a_cpu_on_one_memory() -> None:
    gpu, cpu = (board.load(name) for name in board.units("jetson-nano"))
    assert (gpu.unit, gpu.kind, gpu.stack.runtime) == ("gpu", "gpu", "tensorrt")
    assert (cpu.unit, cpu.kind, cpu.stack.runtime) == ("cpu", "cpu", "onnxruntime")
    assert cpu.ram_bytes == gpu.ram_bytes
    assert cpu.mem_bytes_per_s == gpu.mem_bytes_per_s
    assert board.load("jetson-nano:cpu:5W").cores == 2


NEUROMORPHIC = """
description = "a board"
kind = "neuromorphic"
power_mode = "run"
cores = 1

[joules]
synop = 2e-12
neuron_update = 5e-12

[stack]
name = "my runtime"
runtime = "mine"
exports = ["nir"]

[sources]
cores = "data sheet"
joules.synop = "a paper"
joules.neuron_update = "another"
"""


def test_a_neuromorphic_board_gives_energies_instead_of_speeds(tmp_path: Path) -> None:
    target = board.load(write(tmp_path, NEUROMORPHIC))
    assert target.joules == {"synop": 2e-12, "neuron_update": 5e-12}
    assert target.stack.exports == ("nir",)
    assert (target.clock_hz, target.mem_bytes_per_s, target.ram_bytes, target.flash_bytes) == (None, None, None, None)
    assert board.load(write(tmp_path, GOOD)).stack.exports == ("onnx",)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("neuron_update = 5e-12\n", "", r"joules\.neuron_update must be given, got nothing; add it"),
        ("synop = 2e-12", "synop = 0", r"joules\.synop must be greater than 0, got 0"),
        (
            "synop = 2e-12",
            "synop = 2e-12\nspike = 1e-12",
            r"every key must be one of a board's, got joules\.spike; known: neuron_upd",
        ),
        ('joules.synop = "a paper"\n', "", r"joules\.synop must have a source, got none"),
    ],
)
def test_a_wrong_neuromorphic_file_gets_one_sentence(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert old in NEUROMORPHIC
    with pytest.raises(InputError, match=text):
        board.load(write(tmp_path, NEUROMORPHIC.replace(old, new)))


def test_loihi_2_says_that_its_prices_are_those_of_loihi_1() -> None:
    loihi = board.load("loihi")
    assert (loihi.name, loihi.kind, loihi.cores, loihi.stack.exports) == ("loihi2", "neuromorphic", 128, ("nir",))
    assert loihi.joules == {"synop": pytest.approx(23.6e-12 + 3.5e-12), "neuron_update": 81e-12}
    assert all(loihi.sources[f"joules.{key}"].startswith("Loihi 1, not 2: Davies et al.") for key in loihi.joules)
    assert str(loihi) == "loihi2 (power mode constants of Loihi 1, stack NIR)"


def test_unknown_name_offers_the_closest() -> None:
    text = r"target 'jetsn': must be the name of a board or a path that ends in \.toml; did you mean jetson"
    with pytest.raises(UnknownName, match=text):
        board.load("jetsn")


def test_missing_file() -> None:
    with pytest.raises(InputError, match=r"board /no/such\.toml: must be a readable file, got No such file or directory"):
        board.load("/no/such.toml")


CASES = {
    "not toml": ("clock_hz = 1e8", "clock_hz = = 1", "must be TOML, got"),
    "unknown key": (
        "clock_hz = 1e8",
        "clock_hz = 1e8\nclok = 1",
        "every key must be one of a board's, got clok; did you mean clock",
    ),
    "unknown stack key": ("opset = 15", "opsett = 15", r"got stack\.opsett; did you mean opset"),
    "missing key": ("cores = 1\n", "", "cores must be given, got nothing; add it"),
    "missing stack key": ('runtime = "mine"\n', "", r"stack\.runtime must be given"),
    "text for a number": ("clock_hz = 1e8", 'clock_hz = "fast"', "clock_hz must be a number, got 'fast'; correct it"),
    "true for a number": ("clock_hz = 1e8", "clock_hz = true", "clock_hz must be a number, got True"),
    "fraction of a byte": ("ram_bytes = 262144", "ram_bytes = 0.5", "ram_bytes must be a whole number, got 0.5"),
    "number for a text": ('kind = "mcu"', "kind = 1", "kind must be text, got 1"),
    "text for a flag": ("clock_hz = 1e8", 'clock_hz = 1e8\nmeasurable = "yes"', "measurable must be true or false, got 'yes'"),
    "text for a list": ("clock_hz = 1e8", 'clock_hz = 1e8\naliases = "a"', "aliases must be a list of texts, got 'a'"),
    "number for a table": ("[macs_per_cycle]\nfloat32 = 0.5", "[x]", "every key must be one of a board's, got x"),
    "zero": ("clock_hz = 1e8", "clock_hz = 0", "clock_hz must be greater than 0, got 0; correct it or leave it out"),
    "negative": ("float32 = 0.5", "float32 = -1", r"macs_per_cycle\.float32 must be greater than 0, got -1"),
    "infinite": ("clock_hz = 1e8", "clock_hz = inf", "clock_hz must be greater than 0, got inf"),
    "no source": ('clock_hz = "data sheet"\n', "", r"clock_hz must have a source, got none; add clock_hz under \[sources\]"),
    "empty source": ('clock_hz = "data sheet"', 'clock_hz = " "', "clock_hz must have a source, got none"),
    "no rate source": ('macs_per_cycle.float32 = "assumed"\n', "", r"macs_per_cycle\.float32 must have a source"),
    "source of nothing": (
        'cores = "data sheet"',
        'cores = "d"\npower_w = "d"',
        "a source must belong to a number, got power_w",
    ),
    "kind": ('kind = "mcu"', 'kind = "toaster"', "kind must be one of cpu, gpu, mcu, neuromorphic, got 'toaster'"),
    "joules of no neuromorphic board": (
        "[macs_per_cycle]",
        "[joules]\nsynop = 1e-12\n[macs_per_cycle]",
        "joules must stand on a board of kind \"neuromorphic\", got 'mcu'; remove it",
    ),
    "no joules": ('kind = "mcu"', 'kind = "neuromorphic"', "joules must be given, got nothing; add it"),
    "no exports": (
        "opset = 15",
        "opset = 15\nexports = []",
        r"stack\.exports must name a format, got none; name one or leave it",
    ),
    "text for exports": ("opset = 15", 'opset = 15\nexports = "nir"', r"stack\.exports must be a list of texts, got 'nir'"),
    "activation": (
        "opset = 15",
        'opset = 15\nactivation = "int4"',
        r"stack\.activation must be one of int8, uint8, got 'int4'",
    ),
    "no float32": ("float32 = 0.5", "int8 = 0.5", r"macs_per_cycle must give at least float32, got \['int8'\]"),
    "late without measurable": (
        "clock_hz = 1e8",
        'clock_hz = 1e8\nread_at_run_time = ["cores"]',
        r"read_at_run_time must stand beside measurable = true, got \['cores'\]",
    ),
    "late and given": (
        "clock_hz = 1e8",
        'clock_hz = 1e8\nmeasurable = true\nread_at_run_time = ["cores"]',
        "cores must be given or read at run time, got both",
    ),
    "late and unreadable": (
        "clock_hz = 1e8",
        'clock_hz = 1e8\nmeasurable = true\nread_at_run_time = ["power_w"]',
        "read_at_run_time must hold keys it can read, got 'power_w'",
    ),
    "calibration": ("[sources]", "[calibration]\nx = 1\n[sources]", "calibration must name its source, got none"),
    "share above 1": (
        "[sources]",
        "[achievable]\ngemv = 1.5\n[sources]",
        r"achievable is a share and must be at most 1, got 1\.5; correct it",
    ),
    "unknown share": ("[sources]", "[achievable]\ngem = 0.5\n[sources]", r"got achievable\.gem; did you mean gemv or gemm"),
    "unsourced share": ("[sources]", "[achievable]\ngemv = 0.5\n[sources]", r"achievable\.gemv must have a source, got none"),
    "half a cache": ("[sources]", "[caches.l2]\nbytes = 1e6\n[sources]", r"caches\.l2\.bytes_per_s must be given, got nothing"),
    "unsourced cache": (
        "[sources]",
        "[caches.l2]\nbytes = 1e6\nbytes_per_s = 1e9\n[sources]",
        r"caches\.l2\.bytes must have a source, got none",
    ),
    "text for formats": (
        "[sources]",
        '[calibration]\nsource = "a"\nformats = "int8"\n[sources]',
        r"calibration\.formats must be a list of texts, got 'int8'",
    ),
    "error without a place": (
        "[sources]",
        '[calibration]\nsource = "a"\nerrors.latency = { n = 3, median_error = 0.1 }\n[sources]',
        r"calibration\.errors\.latency\.where must be given, got nothing",
    ),
    "energy per mac": (
        "[sources]",
        '[calibration]\nsource = "a"\njoules_per_mac.int8 = 0\n[sources]',
        r"calibration\.joules_per_mac\.int8 must be greater than 0, got 0",
    ),
}


@pytest.mark.parametrize(("old", "new", "text"), CASES.values(), ids=CASES.keys())
def test_a_wrong_file_gets_one_sentence(tmp_path: Path, old: str, new: str, text: str) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=text) as caught:
        board.load(write(tmp_path, GOOD.replace(old, new)))
    assert "my-board.toml: " in str(caught.value)


def test_two_boards_with_one_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.toml").write_text('aliases = ["same"]', encoding="utf-8")
    monkeypatch.setattr(board, "_FOLDER", tmp_path)
    board._aliases.cache_clear()
    try:
        with pytest.raises(InputError, match="board b: an alias must belong to one board, got 'same' of a"):
            board.aliases()
    finally:
        board._aliases.cache_clear()


def test_energies_are_validated_at_the_power_that_was_measured() -> None:
    """A mode with a power of its own has latencies that were validated, and energies that were not."""
    assert set(board.load("stm32h7a3").calibration["errors"]) == {"latency", "energy"}
    assert set(board.load("stm32h7a3:280MHz").calibration["errors"]) == {"latency", "energy"}
    assert set(board.load("stm32h7a3:40MHz").calibration["errors"]) == {"latency"}


@pytest.mark.parametrize("name", [name for name in board.names() if len(board.units(name)) > 1])
def test_one_core_draws_less_than_the_budget_of_its_mode(name: str) -> None:
    _, *modes = board.parts(name)
    for mode in modes:
        gpu, cpu = board.load(f"{name}:{mode}"), board.load(f"{name}:cpu:{mode}")
        assert None not in (gpu.power_w, cpu.power_w, cpu.idle_w)
        assert cpu.idle_w < cpu.power_w < gpu.power_w  # type: ignore[operator]
    here = board.load(name).power_mode  # the board as it is and the mode it is in are one thing
    assert board.load(f"{name}:cpu:{here}").power_w == board.load(f"{name}:cpu").power_w


def test_no_board_draws_more_idle_than_busy() -> None:
    for name in board.names():
        for part in ("", *board.parts(name)):
            target = board.load(f"{name}:{part}" if part else name)
            assert target.power_w is None or target.idle_w is None or target.idle_w <= target.power_w, target.name


def test_the_other_units_of_boards_come_along_once(tmp_path: Path) -> None:
    named = [board.load(name) for name in ("jetson-nano", "jetson-nano:cpu", "stm32h7a3", "jetson-tx2:MAXQ")]
    assert [target.name for target in board.with_units(named)] == [target.name for target in named]
    assert [target.name for target in board.with_units(named[:1])] == ["jetson-nano", "jetson-nano:cpu"]
    file = tmp_path / "jetson-nano.toml"
    file.write_text(GOOD)
    assert [target.name for target in board.with_units([board.load(str(file))])] == ["jetson-nano"]  # only the name is the same
