"""Cortex-M4 and M55 under QEMU, aarch64 under qemu-user: the bytes of the host build, instructions for each product, sizes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from c_graphs import BOARD, MODEL, build, clips, needs, needs_cc, program, write
from emulated import BOARDS, board_build, board_run, object_sections

from edgetk.export.to_c import stream

#: steps of the emulated runs
STEPS = 64

#: most instructions of a whole step for each multiply-accumulate
BARS = {"cortex-m4": 3.5, "cortex-m55": 0.8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("boards")
    write(program(onnx.load(MODEL)), made)
    clips(1)[0, :STEPS].tofile(made / "frames.bin")
    return made


@pytest.fixture(scope="module")
def host(folder: Path) -> np.ndarray:
    return stream(build(folder), (clips(1)[:, :STEPS],))[0][0]


@needs_cc
@needs("arm-none-eabi-gcc", "qemu-system-arm")
@pytest.mark.parametrize("board", BOARDS)
def test_microcontrollers_compute_the_same_bits_within_the_bar(board: str, folder: Path, host: np.ndarray) -> None:
    made = program(onnx.load(MODEL))
    found = board_run(board_build(board, folder, made), folder)
    np.testing.assert_array_equal(np.fromfile(folder / "outputs.bin", np.float32).reshape(STEPS, -1), host)
    assert found.steps == STEPS
    assert found.isa == {"cortex-m4": "dsp", "cortex-m55": "mve"}[board]
    assert found.instructions / made.macs <= BARS[board]
    assert found == board_run(folder / f"{board}.elf", folder), "counts are the same every time"


@needs("arm-none-eabi-gcc")
@pytest.mark.parametrize("board", BOARDS)
def test_flash_and_ram_are_what_was_said_to_the_byte(board: str, folder: Path) -> None:
    made = program(onnx.load(MODEL))
    sections = object_sections(board, folder, made)
    assert sections["net_data"][".rodata"] == made.constant_bytes
    assert sections["net"][".bss"] == made.arena_bytes
    assert sections["net"].get(".data", 0) == sections["net"].get(".rodata", 0) == 0
    state = re.search(r"#define NET_STATE_BYTES (\d+)", (folder / "net.h").read_text())
    assert state is not None
    assert int(state[1]) == made.state_bytes  # the source refuses to compile where the struct is not as large


@needs_cc
@needs("aarch64-linux-gnu-gcc", "qemu-aarch64-static")
def test_aarch64_computes_the_same_bits_with_dot_products(folder: Path, host: np.ndarray) -> None:
    elf = folder / "aarch64"
    for options in (["-march=armv8.2-a+dotprod"], ["-DEDGETK_PORTABLE"]):
        subprocess.run(
            ["aarch64-linux-gnu-gcc", "-std=gnu99", "-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-static",
             *options,
             f"-I{folder}", "-DTICKS=0", *_names(), str(BOARD / "main.c"), str(folder / "net.c"), str(folder / "net_data.c"),
             "-o", str(elf)],
            check=True,
        )  # fmt: skip
        done = subprocess.run(
            ["qemu-aarch64-static", "-cpu", "max", str(elf)], cwd=folder, check=True, capture_output=True, text=True
        )
        assert ("neon-dotprod" if "dotprod" in options[0] else "portable") in done.stdout
        np.testing.assert_array_equal(np.fromfile(folder / "outputs.bin", np.float32).reshape(STEPS, -1), host)


def _names() -> list[str]:
    from emulated import defines

    return defines(program(onnx.load(MODEL)))
