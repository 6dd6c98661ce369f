"""Does a language model of look-up tables learn as well as one of matrices? Bytes of IMDb reviews, the same steps for all.

Source: MemoryFormer, Ding et al., NeurIPS 2024, arXiv:2411.12992, tables 1 to 5, at a smaller size: 4 layers, d = 256, 512
bytes of context, vocabulary 256. Runs:

    dense         a plain transformer block (pre-norm, GELU, 4 d hidden), rate 1e-3
    memory        tau = 8, e = 2, tables at three times the rate
    memory-lr1    the same, tables at the rate of all others
    memory-e0     the same without extra bits between the feed-forward layers
    memory-tau4   tau = 4 (64 tables a layer), e = 2

Claims that the paper makes, and that `verdict` answers: memory within 2 % of dense in bits per byte with a sixth of its
multiply-accumulates outside attention or fewer; three times the rate beats one; e = 2 beats e = 0; tau = 8 beats tau = 4.

Everything needs torch and numpy only, but for `--prepare`, which reads the reviews once:

    python benchmarks/experiments/memoryformer_e1.py --prepare IMDB_FOLDER TEXT.npz
    python benchmarks/experiments/memoryformer_e1.py TEXT.npz -o RESULT.json --checkpoints FOLDER

Each run leaves a checkpoint every so many seconds, and goes on from there when the same command is given again; a finished run
is not repeated. With `--minutes` the number of steps is what all runs together are expected to need, measured on a few steps of
each.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.models import _memoryformer_costs as costs
from edgetk.models.layers.memory_layer import MemoryLayer
from edgetk.models.memoryformer import Config, MemoryFormer

LENGTH = 512
SHAPE = Config(vocabulary=256, length=LENGTH, causal=True, classes=256, layers=4, dim=256, heads=4, bits=8, extra=2, std=0.02)
#: name -> shape, and factor on the rate of tables
RUNS: dict[str, tuple[Config, float]] = {
    "dense": (replace(SHAPE, blocks="dense"), 1.0),
    "memory": (SHAPE, 3.0),
    "memory-lr1": (SHAPE, 1.0),
    "memory-e0": (replace(SHAPE, extra=0), 3.0),
    "memory-tau4": (replace(SHAPE, bits=4), 3.0),
}
BETAS, DECAY, CLIP, WARMUP, LAST_RATE = (0.9, 0.95), 0.1, 1.0, 0.05, 0.1
LABELS = "_labels"
VALIDATION_WINDOWS, PROBE_STEPS, CHECKPOINT_S = 512, 8, 45.0


def prepare(folder: Path, output: Path) -> None:
    """The bytes of the training, validation and test reviews as one compressed file, and their labels, which others need."""
    from edgetk.tasks.imdb.reviews import joined, layout, split_of

    source = layout(folder, "imdb-bytes-lm")
    read = {name: split_of(source, name, "imdb-bytes-lm") for name in ("train", "validation", "test")}
    texts = {name: joined(reviews) for name, (reviews, _) in read.items()}
    moods = {f"{name}{LABELS}": np.array(labels, np.uint8) for name, (_, labels) in read.items()}
    np.savez_compressed(output, **{name: np.frombuffer(text, np.uint8) for name, text in texts.items()}, **moods)
    print({name: len(text) for name, text in texts.items()}, f"{output.stat().st_size / 1e6:.1f} MB")


def groups(net: nn.Module, rate: float, table_factor: float) -> list[dict[str, Any]]:
    """Tables at a rate of their own and without decay; matrices with decay, biases and norms without."""
    tables = {id(m.tables) for m in net.modules() if isinstance(m, MemoryLayer)}
    kinds: dict[str, list[Tensor]] = {"table": [], "matrix": [], "vector": []}
    for p in net.parameters():
        kinds["table" if id(p) in tables else "matrix" if p.ndim > 1 else "vector"].append(p)
    made = []
    for kind, parameters in kinds.items():
        base = rate * (table_factor if kind == "table" else 1.0)
        made.append({"params": parameters, "base": base, "lr": base, "weight_decay": DECAY if kind == "matrix" else 0.0})
    return [group for group in made if group["params"]]


def share(step: int, steps: int) -> float:
    """Of the highest rate: linear warm-up, then half a cosine down to LAST_RATE."""
    warm = max(1, int(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    return LAST_RATE + (1 - LAST_RATE) * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


class Run:
    """One network in training. Which windows a step sees depends on seed and step only: the same for all runs."""

    def __init__(self, name: str, text: dict[str, Tensor], args: argparse.Namespace, steps: int) -> None:
        self.name, self.text, self.args, self.steps = name, text, args, steps
        self.shape, factor = RUNS[name]
        torch.manual_seed(args.seed)
        self.net = MemoryFormer(self.shape).to(args.device)
        self.optimizer = torch.optim.AdamW(groups(self.net, args.lr, factor), betas=BETAS)
        self.step, self.seconds = 0, 0.0
        self.curve: list[list[float]] = []

    def windows(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(1_000_003 * self.args.seed + step)
        starts = torch.randint(len(self.text["train"]) - LENGTH - 1, (self.args.batch,), generator=generator)
        places = starts[:, None] + torch.arange(LENGTH + 1)
        return self.text["train"][places.to(self.text["train"].device)].long()

    def loss(self, windows: Tensor) -> Tensor:
        half = self.args.device == "cuda"
        with torch.autocast("cuda", torch.bfloat16, enabled=half):
            logits = self.net.running(windows[:, :-1].float())
        return F.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())

    def train(self, last: int, kept: Callable[[], None]) -> None:
        """Up to step `last`; `kept` is called every CHECKPOINT_S seconds, and at the end."""
        self.net.train()
        begin = saved = time.monotonic()
        losses: list[Tensor] = []
        while self.step < last:
            for group in self.optimizer.param_groups:
                group["lr"] = group["base"] * share(self.step, self.steps)
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.loss(self.windows(self.step))
            loss.backward()
            nn.utils.clip_grad_norm_(self.net.parameters(), CLIP)
            self.optimizer.step()
            losses.append(loss.detach())
            self.step += 1
            now = time.monotonic()
            if self.step % 50 == 0 or self.step == last:
                mean = float(torch.stack(losses).mean()) / math.log(2)
                self.curve.append([self.step, round(mean, 5)])
                losses.clear()
                print(f"  {self.name} step {self.step} of {self.steps}: {mean:.4f} bits per byte", flush=True)
            if now - saved >= CHECKPOINT_S:
                self.seconds, begin, saved = self.seconds + now - begin, now, now
                kept()
        self._wait()
        self.seconds += time.monotonic() - begin
        kept()

    def _wait(self) -> None:
        if self.args.device == "cuda":
            torch.cuda.synchronize()

    @torch.no_grad()
    def bits(self, split: str) -> float:
        """Bits per byte on evenly spaced windows; every byte of a window counts."""
        self.net.eval()
        text = self.text[split]
        count = min(self.args.windows, (len(text) - 1) // LENGTH)
        starts = torch.arange(count) * ((len(text) - LENGTH - 1) // count)
        places = (starts[:, None] + torch.arange(LENGTH + 1)).to(text.device)
        parts = [float(self.loss(text[rows].long())) * len(rows) for rows in torch.split(places, self.args.batch)]
        return sum(parts) / count / math.log(2)

    def state(self) -> dict[str, Any]:
        return {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "steps": self.steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]

    @torch.no_grad()
    def occupancy(self) -> dict[str, float]:
        """Normalised entropy of how often each row is named on validation text: 1 is even."""
        counts = {name: torch.zeros(m.shape[:2]) for name, m in self.net.named_modules() if isinstance(m, MemoryLayer)}

        def hook(name: str) -> Callable[..., None]:
            def count(layer: MemoryLayer, inputs: tuple[Tensor, ...]) -> None:
                index = layer.rows(inputs[0])[0].flatten(0, -2).T.cpu()
                counts[name].scatter_add_(1, index, torch.ones(index.shape))

            return count

        handles = [self.net.get_submodule(name).register_forward_pre_hook(hook(name)) for name in counts]
        text = self.text["validation"]
        starts = torch.arange(16) * ((len(text) - LENGTH) // 16)
        self.net.running(text[(starts[:, None] + torch.arange(LENGTH)).to(text.device)].float())
        for handle in handles:
            handle.remove()
        shares = {name: c / c.sum(1, keepdim=True) for name, c in counts.items()}
        return {name: round(float(torch.special.entr(s).sum(1).mean()) / math.log(s.shape[1]), 4) for name, s in shares.items()}


def cost(shape: Config) -> dict[str, int]:
    """Multiply-accumulates of one sequence outside attention, in attention, and numbers stored, all blocks together."""
    if shape.blocks == "dense":
        macs, stored = costs.dense_macs(LENGTH, shape.dim), 12 * shape.dim**2
    else:
        macs = costs.memory_macs(LENGTH, shape.dim, shape.bits, shape.extra)
        stored = costs.table_entries(shape.dim, shape.bits, shape.extra)
    attention = costs.attention_macs(LENGTH, shape.dim)
    return {"macs": shape.layers * macs, "attention_macs": shape.layers * attention, "entries": shape.layers * stored}


def verdict(rows: dict[str, Any]) -> dict[str, Any]:
    """The paper's claims, answered by validation bits per byte; only where all runs of a claim are there."""

    def bits(name: str) -> float:
        return float(rows[name]["validation_bits_per_byte"])

    claims: dict[str, tuple[tuple[str, ...], Callable[[], bool]]] = {
        "memory is within 2 % of dense": (("memory", "dense"), lambda: bits("memory") <= 1.02 * bits("dense")),
        "memory has a sixth of the MACs outside attention, or fewer": (
            ("memory", "dense"),
            lambda: 6 * rows["memory"]["cost"]["macs"] <= rows["dense"]["cost"]["macs"],
        ),
        "three times the rate for tables beats one": (("memory", "memory-lr1"), lambda: bits("memory") < bits("memory-lr1")),
        "two extra bits beat none": (("memory", "memory-e0"), lambda: bits("memory") < bits("memory-e0")),
        "tau = 8 beats tau = 4": (("memory", "memory-tau4"), lambda: bits("memory") < bits("memory-tau4")),
    }
    return {text: holds() for text, (needs, holds) in claims.items() if all(name in rows for name in needs)}


def planned(names: list[str], text: dict[str, Tensor], args: argparse.Namespace) -> int:
    """Steps that fit into `--minutes` for all runs together, from the time of a few steps of each."""
    each = 0.0
    for name in names:
        run = Run(name, text, args, PROBE_STEPS)
        run.train(PROBE_STEPS // 2, lambda: None)
        run.seconds = 0.0
        run.train(PROBE_STEPS, lambda: None)
        each += run.seconds / (PROBE_STEPS - PROBE_STEPS // 2)
    steps = int(60 * args.minutes / each) // 50 * 50
    return max(steps, 50)


def load(path: Path, device: str) -> dict[str, Tensor]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: torch.from_numpy(stored[name].copy()).to(device) for name in stored.files if not name.endswith(LABELS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("text", type=Path, help="what --prepare wrote; with --prepare the folder of reviews")
    parser.add_argument("prepared", type=Path, nargs="?", help="with --prepare: the file to write")
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/memoryformer_e1.json"))
    parser.add_argument("--checkpoints", type=Path, default=Path("build/memoryformer_e1"))
    parser.add_argument("--runs", nargs="+", choices=tuple(RUNS), default=list(RUNS))
    parser.add_argument("--steps", type=int, help="for each run; default: what fits into --minutes")
    parser.add_argument("--minutes", type=float, default=7.0)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--windows", type=int, default=VALIDATION_WINDOWS, help="validation and test windows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if args.prepare:
        if args.prepared is None:
            parser.error("--prepare needs the file to write behind the folder")
        prepare(args.text, args.prepared)
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    text = load(args.text, args.device)
    args.checkpoints.mkdir(parents=True, exist_ok=True)
    plan = args.checkpoints / f"steps-{args.seed}.json"
    if args.steps is None and not plan.is_file():
        plan.write_text(json.dumps(planned(args.runs, text, args)))
    steps = args.steps if args.steps is not None else int(json.loads(plan.read_text()))
    rows: dict[str, Any] = {}
    for name in args.runs:
        rows[name] = one(name, text, args, steps)
        write(args, steps, text, rows)


def one(name: str, text: dict[str, Tensor], args: argparse.Namespace, steps: int) -> dict[str, Any]:
    """A run from its checkpoint to its end, and what came out."""
    place = args.checkpoints / f"{name}-{args.seed}-{steps}.pt"
    run = Run(name, text, args, steps)
    if place.is_file():
        run.restore(torch.load(place, map_location=args.device, weights_only=True))
        print(f"{name}: goes on from step {run.step}", flush=True)

    def keep() -> None:
        partial = place.with_suffix(".part")
        torch.save(run.state(), partial)
        partial.replace(place)

    if run.step < steps:
        run.train(steps, keep)
    found = {split: run.bits(split) for split in ("validation", "test")}
    print(f"{name}: {found['validation']:.4f} bits per byte on validation, {found['test']:.4f} on test", flush=True)
    return {
        "validation_bits_per_byte": found["validation"],
        "test_bits_per_byte": found["test"],
        "steps": run.step,
        "seconds": round(run.seconds, 1),
        "parameters": sum(p.numel() for p in run.net.parameters()),
        "cost": cost(run.shape),
        "table_rate": RUNS[name][1],
        "bucket_entropy": run.occupancy(),
        "training_curve": run.curve,
    }


def write(args: argparse.Namespace, steps: int, text: dict[str, Tensor], rows: dict[str, Any]) -> None:
    device = torch.cuda.get_device_name() if args.device == "cuda" else platform.processor() or platform.machine()
    report = {
        "what": __doc__,
        "conditions": {
            "device": device,
            "torch": torch.__version__,
            "precision": "bfloat16 autocast, tables and sums of rows float32" if args.device == "cuda" else "float32",
            "steps": steps,
            "batch": args.batch,
            "context": LENGTH,
            "lr": args.lr,
            "seed": args.seed,
            "windows": args.windows,
            "bytes": {name: len(part) for name, part in text.items()},
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "runs": rows,
        "claims": verdict(rows),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
