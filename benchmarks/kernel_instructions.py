"""Instructions of the look-up and sparse kernels for each multiply-accumulate: AVX2 and plain C by callgrind, NEON by QEMU.

    python benchmarks/kernel_instructions.py [-o benchmarks/results/kernel_instructions.json]

A count is the difference of runs of two calls and of one, so that what comes before and after drops out. Multiply-accumulates
are those of the formulas: K (tau + h) of a look-up, lines times non-zeros of a sparse factor. callgrind has no AVX-512. QEMU's
user mode runs NEON one instruction at a time and logs each; that takes minutes. Counts do not depend on what else the machine
does; they are no times: nothing is said about loads that wait for memory. Needs valgrind; for NEON aarch64-linux-gnu-gcc and
qemu-aarch64-static.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgetk.export import operators

HERE = Path(__file__).parent
#: kernel, tokens, inputs, outputs (or lines), bits of a table (or columns), non-zeros of a line
SIZES = (
    *(("lookup", tokens, 768, 768, bits, 0) for tokens in (1, 16) for bits in (4, 8)),
    *((kind, tokens, 384, 1536, 256, s) for kind in ("sparse", "codes") for tokens in (1, 16) for s in (16, 58)),
)
NAMES = {"lookup": "LookupLinear", "sparse": "DenseSparseMatMul", "codes": "DenseSparseMatMulInt8"}
OPTIMISE = "-O3"


def built(compiler: str, program: Path) -> Path:
    """The driver with the library's own sources, those for ONNX Runtime left out."""
    sources = [p for p in sorted(operators.SOURCES.glob("*.c")) if not p.name.startswith("ort_")]
    flags = ["-std=c99", OPTIMISE, "-ffp-contract=off", "-static", "-I", str(operators.SOURCES), "-o", str(program)]
    subprocess.run([compiler, *flags, *map(str, sources), str(HERE / "kernel_count.c"), "-lm"], check=True)
    return program


def by_callgrind(command: list[str]) -> int:
    tool = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    done = subprocess.run([*tool, *command], check=True, capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", done.stderr)
    assert found is not None, done.stderr
    return int(found[1])


def by_qemu(command: list[str]) -> int:
    """One line of the log for each instruction."""
    emulated = ["qemu-aarch64-static", "-singlestep", "-d", "exec,nochain", *command]
    with subprocess.Popen(emulated, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as run:
        assert run.stderr is not None
        lines = sum(line.startswith(b"Trace") for line in run.stderr)
    assert run.returncode == 0, command
    return lines


def rows(program: Path, isa: str, count: Any) -> list[dict[str, Any]]:
    found = []
    for kind, tokens, n, m, r, s in SIZES:
        sizes = [str(x) for x in (tokens, n, m, r, s)]
        one, two = (count([str(program), kind, isa, *sizes, str(calls)]) for calls in (1, 2))
        macs = tokens * (n // r * (r + m) if kind == "lookup" else m * s)
        shape = {"tau": r} if kind == "lookup" else {"r": r, "s": s}
        found.append(
            {"kernel": NAMES[kind], "isa": isa, "tokens": tokens, "n": n, "m": m, **shape, "macs": macs,
             "instructions": two - one, "instructions_per_mac": round((two - one) / macs, 4)}
        )  # fmt: skip
        print(found[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=HERE / "results" / "kernel_instructions.json")
    output: Path = parser.parse_args().output
    compilers = {"x86-64": "cc", "aarch64": "aarch64-linux-gnu-gcc"}
    made: list[dict[str, Any]] = []
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        if platform.machine() == "x86_64" and shutil.which("valgrind"):
            program = built(compilers["x86-64"], Path(folder) / "host")
            for isa in ("avx2", "portable"):
                made += rows(program, isa, by_callgrind)
            versions["x86-64"] = first_line("valgrind", "--version")
        if shutil.which(compilers["aarch64"]) and shutil.which("qemu-aarch64-static"):
            made += rows(built(compilers["aarch64"], Path(folder) / "arm"), "neon", by_qemu)
            versions["aarch64"] = first_line("qemu-aarch64-static", "--version")
    report = {
        "what": "instructions of one call, by counting; no times",
        "conditions": {
            "compilers": {arch: first_line(name, "--version") for arch, name in compilers.items() if shutil.which(name)},
            "flags": f"{OPTIMISE} -ffp-contract=off",
            "counted_by": versions,
            "date": datetime.now(UTC).date().isoformat(),
        },
        "rows": made,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def first_line(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]


if __name__ == "__main__":
    main()
