"""Generated C on emulated Cortex-M boards: built with arm-none-eabi-gcc, run by QEMU, its instructions counted.

QEMU counts instructions, never cycles: with -icount shift=0 each takes one nanosecond of the board's time, and SysTick tells
that time in ticks of the board's clock.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgetk.export.c.program import Program

BOARD = Path(__file__).parent / "board"


@dataclass(frozen=True)
class Board:
    """A machine of QEMU, the compiler's options for its processor, and nanoseconds (instructions) a tick."""

    machine: str
    options: tuple[str, ...]
    linker: str
    per_tick: float


BOARDS: Mapping[str, Board] = {
    "cortex-m4": Board(
        "mps2-an386", ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"), "an386.ld", 1e9 / 25e6
    ),
    "cortex-m55": Board("mps3-an547", ("-mcpu=cortex-m55", "-mthumb", "-mfloat-abi=hard"), "an547.ld", 1e9 / 32e6),
}


@dataclass(frozen=True)
class Counted:
    """What a run printed: steps, instructions of one step (mean), and the kernels that ran."""

    steps: int
    instructions: float
    isa: str


def options(board: Board) -> list[str]:
    """How generated C is compiled for a board."""
    return ["arm-none-eabi-gcc", *board.options, "-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]


def defines(made: Program) -> list[str]:
    """What `board/main.c` has to know about a program of one input and one output."""
    name, upper = made.name, made.name.upper()
    (source,), (result,) = made.plan.inputs, made.plan.outputs
    return [
        f'-DMODEL_HEADER="{name}.h"',
        f"-DMODEL_STATE={name}_state",
        f"-DMODEL_RESET={name}_reset",
        f"-DMODEL_STEP={name}_step",
        f"-DMODEL_INPUTS={upper}_{source.name.upper()}",
        f"-DMODEL_OUTPUTS={upper}_{result.name.upper()}",
    ]


def board_build(name: str, folder: Path, made: Program) -> Path:
    """The program that runs the step over frames.bin, as an ELF file in `folder`."""
    board, elf = BOARDS[name], folder / f"{name}.elf"
    sources = [BOARD / "start.c", BOARD / "main.c", folder / f"{made.name}.c", folder / f"{made.name}_data.c"]
    subprocess.run(
        [*options(board), f"-I{folder}", "-DTICKS=1", *defines(made), *map(str, sources), "-nostartfiles",
         "--specs=rdimon.specs",
         f"-L{BOARD}", f"-T{BOARD / board.linker}", "-o", str(elf)],
        check=True,
    )  # fmt: skip
    return elf


def board_run(elf: Path, folder: Path) -> Counted:
    """Run it in `folder`, which has frames.bin and gets outputs.bin."""
    return _count(elf, BOARDS[elf.stem], folder)


def _count(elf: Path, board: Board, folder: Path) -> Counted:
    done = subprocess.run(
        ["qemu-system-arm", "-M", board.machine, "-nographic", "-icount", "shift=0", "-semihosting-config",
         "enable=on,target=native", "-kernel", str(elf)],
        cwd=folder, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    found = re.search(r"steps (\d+) ticks (\d+) isa (\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    steps = int(found[1])
    return Counted(steps, int(found[2]) * board.per_tick / steps, found[3])


def front_end_run(name: str, folder: Path) -> float:
    """Instructions of the front end for one frame of sound.bin (made here where there is none); writes features.bin."""
    board, elf = BOARDS[name], folder / f"{name}_front.elf"
    if not (folder / "sound.bin").is_file():
        np.random.default_rng(0).integers(-3000, 3000, 16000).astype(np.int16).tofile(folder / "sound.bin")
    sources = [BOARD / "start.c", BOARD / "front.c", folder / "edgetk_log_mel.c"]
    subprocess.run(
        [*options(board), f"-I{folder}", *map(str, sources), "-nostartfiles", "--specs=rdimon.specs", f"-L{BOARD}",
         f"-T{BOARD / board.linker}", "-o", str(elf)],
        check=True,
    )  # fmt: skip
    return _count(elf, board, folder).instructions


def object_sections(name: str, folder: Path, made: Program) -> Mapping[str, Mapping[str, int]]:
    """Bytes of each section of the two object files of a program."""
    found = {}
    for stem in (made.name, f"{made.name}_data"):
        target = folder / f"{name}_{stem}.o"
        subprocess.run([*options(BOARDS[name]), f"-I{folder}", "-c", str(folder / f"{stem}.c"), "-o", str(target)], check=True)
        text = subprocess.run(["arm-none-eabi-size", "-A", str(target)], check=True, capture_output=True, text=True).stdout
        found[stem] = {m[1]: int(m[2]) for m in re.finditer(r"^(\.\w+)\s+(\d+)\s", text, re.MULTILINE)}
    return found
