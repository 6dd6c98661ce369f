"""What `edgetk inspect` says about generated C is what the header says."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnx
from c_graphs import MODEL, Maker, program
from rich.console import Console

from edgetk.toolkit import inspect


def test_inspect_tells_the_bytes_of_generated_c() -> None:
    found = inspect.examine(str(MODEL), ("stm32h7a3",))
    made = program(onnx.load(MODEL))
    assert found["forms"][0]["generated_c"] == {
        "constant_bytes": made.constant_bytes,
        "state_bytes": made.state_bytes,
        "arena_bytes": made.arena_bytes,
    }
    console = Console(record=True, width=200, file=io.StringIO())
    inspect.terminal(found, console)
    said = f"{made.constant_bytes:,} bytes of constants in flash, {made.state_bytes:,} bytes of state and"
    assert said in console.export_text()


def test_inspect_tells_why_there_is_no_generated_c(tmp_path: Path) -> None:
    made = Maker()
    for name in ("y", "state_s_out"):
        made.output(name, 1, 4)
    x = made.input("x", 1, 4)
    made.node("CumSum", made.node("Add", x, made.input("state_s", 1, 4)), made.value(1, np.int64), out="y")
    made.node("Identity", x, out="state_s_out")
    path = tmp_path / "sums.onnx"
    onnx.save(made.model(), path)
    found = inspect.examine(str(path), ("stm32h7a3",))["forms"][0]["generated_c"]
    assert list(found) == ["refused"]
    assert found["refused"].startswith("c: every operator must have a form in C, got CumSum")
