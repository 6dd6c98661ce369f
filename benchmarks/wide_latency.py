"""Latency of deep and wide encoders with equally many heads, in turns: ONNX Runtime and torch, batch 1, 1 and 2 threads.

    python benchmarks/wide_latency.py --graphs build/wide_latency --prepare
    python benchmarks/wide_latency.py --graphs build/wide_latency [--seconds 200] [-o benchmarks/results/wide_latency.json]

Pairs of arXiv:2210.00640: 4x4 against 1x16 on 1000 bytes (d = 256), 6x8 against 1x48 on 512 bytes (d = 512). Latency does not
depend on weights, so the encoders are untrained; inputs are random bytes without padding.

all       every layer computes every token, as published
class     the last layer computes the class token only, with the same outputs: nothing else is read
turns     as "all", one head after the other in each layer
folded    as "class", and the query of a single layer, which never changes, multiplied out (the pass `fold`); the deep encoder
          has no such form and is compared as in "class"
int8      edgetk's quantize with uint8 activations, as for this machine's stack; linear layers only, attention stays float32
torch     eager, inference mode, float32; attention by torch's fused kernel

`--prepare` writes the graphs once. Then each contender has one call in turn, the order reversed every round, for as long as
`--seconds` says; the first round is left out. Median, 10th and 90th percentile; `ratios` are deep / wide: of the medians, and
median and spread of the ratios round by round, which disturbances of both cancel in. `predicted` is the ratio of
multiply-accumulates.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

PAIRS = {"n=1000": ("4x4", "1x16", 1000), "n=512": ("6x8", "1x48", 512)}
LAST, PRECISIONS, THREADS = ("all", "turns", "class", "folded"), ("float32", "int8"), (1, 2)


def networks() -> list[tuple[str, str, int, str]]:
    """(pair, shape, length, last) of every network."""
    found = []
    for pair, (deep, wide, length) in PAIRS.items():
        found += [(pair, deep, length, last) for last in LAST if last != "folded"]
        found += [(pair, wide, length, last) for last in LAST]
    return found


def network(shape: str, length: int, last: str) -> Any:
    """An untrained network as a bundle."""
    import torch

    from edgetk.models.wide import build

    torch.manual_seed(0)
    bundle = build(shape, length=length, last="all" if last in ("all", "turns") else "class", turns=int(last == "turns"))
    if last == "folded":
        bundle.body.fold_norms()
    return bundle


def tokens(length: int) -> Any:
    return np.random.default_rng(0).integers(1, 256, (1, length)).astype(np.float32)


class RandomBytes:
    """As much data as the quantizer asks for: scales do not change how long a product takes."""

    labels: tuple[str, ...] = ("negative", "positive")
    origin = "random bytes"

    def __init__(self, length: int) -> None:
        self.length = length

    def calibration(self, n: int) -> Any:
        import torch

        return torch.randint(1, 256, (n, self.length), generator=torch.Generator().manual_seed(0)).float()

    def split(self, name: str) -> Any:
        import torch

        from edgetk.core.contracts import Split

        return Split(name, self.calibration(2), torch.tensor([0, 1]), self.origin)


def prepare(folder: Path) -> None:
    """Every network as a float32 and an int8 graph, with its multiply-accumulates."""
    import onnx
    import torch

    from edgetk.export.lower import lower
    from edgetk.quant.quantize import Quantize
    from edgetk.targets import board
    from edgetk.targets.count import count

    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "facts.json"
    facts = json.loads(kept.read_text()) if kept.is_file() else {}
    host = board.load("host")
    for pair, shape, length, last in networks():
        if all(f"{shape}-{last}-{precision}" in facts for precision in PRECISIONS):
            continue
        bundle = network(shape, length, last)
        quantize = Quantize(calibration=2, max_change=1.0, max_drop=1.0, keep_float=())
        for precision in PRECISIONS:
            if precision == "int8":
                with torch.no_grad():
                    made = quantize(replace(bundle, data=RandomBytes(length), labels=RandomBytes.labels, target=host))
                bundle = bundle.with_body(made.body)
            low = lower(bundle, host)[0]
            name = f"{shape}-{last}-{precision}"
            onnx.save(low.graph, folder / f"{name}.onnx")
            work = count(low.graph, low.signature)
            facts[name] = {"macs": work.macs, "parameters": work.parameters, "bytes": (folder / f"{name}.onnx").stat().st_size}
            print(pair, name, facts[name], flush=True)
        kept.write_text(json.dumps(facts, indent=1))


def contenders(folder: Path) -> dict[tuple[str, str, str, str, int], Callable[[], Any]]:
    """(pair, shape, last, how, threads) -> one call."""
    import onnxruntime as ort
    import torch

    made: dict[tuple[str, str, str, str, int], Callable[[], Any]] = {}
    for pair, shape, length, last in networks():
        feeds = {"tokens": tokens(length)}
        for precision, threads in itertools.product(PRECISIONS, THREADS):
            options = ort.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle sessions must not take cores
            path = str(folder / f"{shape}-{last}-{precision}.onnx")
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            made[pair, shape, last, precision, threads] = partial(session.run, None, feeds)
        if last == "turns":  # torch's kernel keeps no scores anyway
            continue
        net, x = network(shape, length, last).module, torch.from_numpy(feeds["tokens"])

        for threads in THREADS:
            made[pair, shape, last, "torch", threads] = partial(eager, net, x, threads)
    return made


def eager(net: Any, x: Any, threads: int) -> None:
    """One call of a module."""
    import torch

    torch.set_num_threads(threads)
    with torch.inference_mode():
        net(x)


def timed(calls: dict[Any, Callable[[], Any]], seconds: float) -> dict[Any, list[float]]:
    """Seconds of each call in every round but the first."""
    samples: dict[Any, list[float]] = {key: [] for key in calls}
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end or rounds < 2:
        for key in list(calls) if rounds % 2 else list(reversed(calls)):
            start = time.perf_counter()
            calls[key]()
            samples[key].append(time.perf_counter() - start)
        rounds += 1
    return {key: times[1:] for key, times in samples.items()}


def spread(values: list[float]) -> dict[str, float]:
    low, median, high = np.percentile(values, [10, 50, 90])
    return {"median": float(median), "p10": float(low), "p90": float(high)}


def summary(samples: dict[Any, list[float]], facts: dict[str, Any]) -> dict[str, Any]:
    """Latencies, and how many times faster the wide encoder is."""
    latency = {", ".join((p, s, f"last {la}", how, f"{t} threads")): spread(v) for (p, s, la, how, t), v in samples.items()}
    ratios = {}
    for pair, (deep, wide, _) in PAIRS.items():
        for last, how, threads in itertools.product(LAST, (*PRECISIONS, "torch"), THREADS):
            if (last, how) == ("turns", "torch"):
                continue
            other = "class" if last == "folded" else last
            slow, fast = samples[pair, deep, other, how, threads], samples[pair, wide, last, how, threads]
            precision = "float32" if how == "torch" else how
            ratios[f"{pair}, {deep} / {wide}, last {last}, {how}, {threads} threads"] = {
                "of_medians": float(np.median(slow) / np.median(fast)),
                **{f"by_round_{k}": v for k, v in spread([a / b for a, b in zip(slow, fast, strict=True)]).items()},
                "predicted": facts[f"{deep}-{other}-{precision}"]["macs"] / facts[f"{wide}-{last}-{precision}"]["macs"],
            }
    return {"latency_s": latency, "ratios": ratios}


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results" / "wide_latency.json")
    made.add_argument("--graphs", type=Path, default=Path("build/wide_latency"))
    made.add_argument("--prepare", action="store_true", help="write the graphs and stop")
    made.add_argument("--seconds", type=float, default=200.0)
    made.add_argument("--note", default="", help="what else the machine was doing")
    args = made.parse_args()
    if args.prepare:
        prepare(args.graphs)
        return
    if not (args.graphs / "facts.json").is_file():
        made.error(f"--graphs must hold what --prepare writes, got {args.graphs} without facts.json; run with --prepare first")
    import onnxruntime as ort
    import torch

    from edgetk.targets import machine

    facts = json.loads((args.graphs / "facts.json").read_text())
    before = os.getloadavg()[0]
    samples = timed(contenders(args.graphs), args.seconds)
    report = {
        "what": __doc__,
        "conditions": {
            "machine": f"{machine.cpu_model()}, {platform.platform()}",
            "cores": os.cpu_count(),
            "onnxruntime": ort.__version__,
            "torch": torch.__version__,
            "rounds": len(next(iter(samples.values()))),
            "load_before": round(before, 2),
            "note": args.note,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "networks": facts,
        **summary(samples, facts),
    }
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    for name, ratio in report["ratios"].items():
        print(
            f"{name}: {ratio['of_medians']:.2f} (by round {ratio['by_round_median']:.2f}), predicted {ratio['predicted']:.2f}"
        )


if __name__ == "__main__":
    main()
