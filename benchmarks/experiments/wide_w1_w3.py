"""Is one wide layer as good as four or six narrow ones? Moods of IMDb reviews by bytes, every shape trained alike.

Source: Brown et al. 2022, arXiv:2210.00640, on the text task of Long Range Arena, arXiv:2011.04006. Jobs, in their order:

    w1-SHAPE-sSEED          4x4, 2x8 and 1x16, 1000 bytes, d = 256, softmax; three seeds, seed 0 of every shape first
    w2-SHAPE-sSEED          6x8 and 1x48, 512 bytes, d = 512, softmax
    w3-MIXER-SHAPE-sSEED    linear, linformer, local, performer and synthesizer at 4x4 and 1x16, 1000 bytes

Each job is a process of its own, so that several share a GPU; a finished job's row is in the result at once, and is not
repeated when the same command is given again. Everything needs torch and numpy only. The reviews are prepared once:

    python benchmarks/experiments/memoryformer_e1.py --prepare IMDB_FOLDER REVIEWS.npz
    python benchmarks/experiments/wide_w1_w3.py REVIEWS.npz -o RESULT.json --weights FOLDER --gpus 2 --each 2 --seconds 500

What differs from the published code: a tenth of the training part chooses the epoch, the test is scored once; 10 epochs of
batch 64 in place of 20,000 steps of 32, warm-up over a tenth of them, the rate raised by the root of the batch; AdamW; no
dropout inside attention; batches hold reviews of similar length; the last layer computes the class token only, which is all
that is read.

Seconds of training, measured with four jobs at a time on one H100 (torch 2.11): w1 1x16 50, 2x8 90, 4x4 160; w2 1x48 55;
w3 linear and linformer 1x16 70. Expected from arithmetic alone for one job that has the GPU to itself: w1 1x16 15, 2x8 50, 4x4
80; w2 1x48 20, 6x8 110; w3 1x16 15 to 60, 4x4 60 to 160. All jobs together: about 20 minutes of one H100 and 10 of two.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from edgetk.models.wide import VARIANTS, Config, WideEncoder

BASE_RATE, BASE_WARMUP, BASE_BATCH, DECAY, CLIP, WARMUP = 0.05, 8000, 32, 0.1, 1.0, 0.1
MIXERS = ("linear", "linformer", "local", "performer", "synthesizer")
#: seconds of a job alone on an H100, for 10 epochs
EXPECTED = {"1x16": 15.0, "2x8": 50.0, "4x4": 80.0, "1x48": 20.0, "6x8": 110.0}
SLOWER = {"local": 1.3, "performer": 2.0, "synthesizer": 2.0}
#: two-sided 95 % quantiles of Student's t, by degrees of freedom
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306}
STARTING_S = 12.0


@dataclass(frozen=True)
class Job:
    """One training run."""

    experiment: str
    shape: str
    mixer: str
    seed: int
    length: int

    @property
    def name(self) -> str:
        mixer = f"{self.mixer}-" if self.experiment == "w3" else ""
        return f"{self.experiment}-{mixer}{self.shape}-s{self.seed}"

    def expected_s(self, epochs: float) -> float:
        return STARTING_S + EXPECTED[self.shape] * SLOWER.get(self.mixer, 1.0) * epochs / 10

    def config(self) -> Config:
        return replace(VARIANTS[self.shape], length=self.length, mixer=self.mixer)


def queue() -> list[Job]:
    """All jobs, the most wanted ones first."""
    jobs = [Job("w1", shape, "softmax", seed, 1000) for seed in range(3) for shape in ("1x16", "4x4", "2x8")]
    jobs += [Job("w2", shape, "softmax", 0, 512) for shape in ("6x8", "1x48")]
    jobs += [Job("w3", shape, mixer, 0, 1000) for mixer in MIXERS for shape in ("1x16", "4x4")]
    return jobs


@dataclass(frozen=True)
class Reviews:
    """Reviews of a split as rows of bytes with their lengths, and labels, on a device."""

    tokens: Tensor
    lengths: np.ndarray
    labels: Tensor


def load(path: Path, split: str, length: int, device: str, limit: int | None = None) -> Reviews:
    """The first `length` bytes of each review of a split, or of `limit` of them, evenly spaced."""
    with np.load(path, allow_pickle=False) as stored:
        if f"{split}_labels" not in stored.files:
            raise SystemExit(f"{path}: must hold {split}_labels, got none; prepare it again with memoryformer_e1.py --prepare")
        text, labels = stored[split], stored[f"{split}_labels"].astype(np.int64)
    ends = np.flatnonzero(text == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    if limit is not None:
        kept = np.arange(limit) * len(ends) // limit
        ends, starts, labels = ends[kept], starts[kept], labels[kept]
    lengths = np.minimum(ends - starts, length)
    rows = np.zeros((len(labels), length), np.uint8)
    for row, start, count in zip(rows, starts, lengths, strict=True):
        row[:count] = text[start : start + count]
    return Reviews(torch.from_numpy(rows).to(device), lengths, torch.from_numpy(labels).to(device))


def batches(lengths: np.ndarray, size: int, random: np.random.Generator | None) -> Iterator[np.ndarray]:
    """Rows in batches of similar length; with `random` in another order and company each time, leaving some out."""
    rows = np.arange(len(lengths))
    if random is None:
        order = np.argsort(lengths, kind="stable")
        yield from (order[i : i + size] for i in range(0, len(order), size))
        return
    random.shuffle(rows)
    order = rows[
        np.argsort(lengths[rows] + random.integers(-64, 65, len(rows)) * (lengths[rows] < lengths.max()), kind="stable")
    ]
    whole = len(order) // size
    skipped = int(random.integers(0, len(order) - whole * size + 1))
    for i in random.permutation(whole):
        yield order[skipped + i * size : skipped + (i + 1) * size]


def answer(net: WideEncoder, reviews: Reviews, rows: np.ndarray) -> Tensor:
    """Class scores of some rows, cut to the longest of them; where none has padding, no mask stands in a kernel's way."""
    longest = int(reviews.lengths[rows].max())
    wanted = min(-(-(longest + 1) // 32) * 32 - 1, reviews.tokens.shape[1])  # with the class token a multiple of 32
    index = torch.from_numpy(rows).to(reviews.tokens.device)
    first, *rest = net.steps()
    with torch.autocast("cuda", torch.bfloat16, enabled=reviews.tokens.is_cuda):
        states, real = first(reviews.tokens[index, :wanted])
        made: Any = (states, None if int(reviews.lengths[rows].min()) == wanted else real)
        for step in rest:
            made = step(made)
    scores: Tensor = made.float()
    return scores


def share(step: int, steps: int) -> float:
    """Of the highest rate: linear warm-up over WARMUP of all steps, then the inverse root."""
    warm = max(1, int(steps * WARMUP))
    return min((step + 1) / warm, math.sqrt(warm / (step + 1)))


@torch.no_grad()
def right(net: WideEncoder, reviews: Reviews, batch: int) -> int:
    """How many reviews are told right."""
    net.eval()
    found = torch.zeros((), dtype=torch.long, device=reviews.labels.device)
    for rows in batches(reviews.lengths, 2 * batch, None):
        index = torch.from_numpy(rows).to(reviews.labels.device)
        found += (answer(net, reviews, rows).argmax(1) == reviews.labels[index]).sum()
    return int(found)


def run(job: Job, args: argparse.Namespace) -> dict[str, Any]:
    """Train one network, keep the epoch that validation likes best, score it on the test."""
    begin = time.monotonic()
    torch.manual_seed(job.seed)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # makes a plan for every length
    train, validation, test = (
        load(args.reviews, s, job.length, args.device, args.limit) for s in ("train", "validation", "test")
    )
    net = WideEncoder(job.config()).to(args.device)
    matrices, others = [p for p in net.parameters() if p.ndim > 1], [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=args.device == "cuda")
    peak = args.rate * math.sqrt(args.batch / BASE_BATCH)
    steps = max(1, int(args.epochs * len(train.labels) / args.batch))
    random = np.random.default_rng(job.seed)
    curve: list[list[float]] = []
    best: tuple[int, dict[str, Tensor]] = (-1, {})
    step, losses, trained = 0, [], time.monotonic()
    while step < steps:
        net.train()
        for rows in batches(train.lengths, args.batch, random):
            for group in optimizer.param_groups:
                group["lr"] = peak * share(step, steps)
            index = torch.from_numpy(rows).to(train.labels.device)
            loss = F.cross_entropy(answer(net, train, rows), train.labels[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
            optimizer.step()
            losses.append(loss.detach())
            step += 1
            if step >= steps:
                break
        correct = right(net, validation, args.batch)
        curve.append([step, round(float(torch.stack(losses).mean()), 4), correct])
        losses = []
        print(
            f"{job.name} step {step} of {steps}: loss {curve[-1][1]}, validation {correct / len(validation.labels):.4f}",
            flush=True,
        )
        if correct > best[0]:
            best = correct, {k: v.detach().clone() for k, v in net.state_dict().items()}
    trained = time.monotonic() - trained
    net.load_state_dict(best[1])
    if args.weights is not None and job.mixer == "softmax" and job.shape.startswith("1x") and job.experiment == "w1":
        args.weights.mkdir(parents=True, exist_ok=True)
        torch.save({k: v.half().cpu() for k, v in best[1].items()}, args.weights / f"{job.name}.pt")
    cuda = args.device == "cuda"
    return {
        **asdict(job),
        "validation": {"correct": best[0], "n": len(validation.labels)},
        "test": {"correct": right(net, test, args.batch), "n": len(test.labels)},
        "parameters": sum(p.numel() for p in net.parameters()),
        "steps": step,
        "epochs": args.epochs,
        "batch": args.batch,
        "peak_rate": peak,
        "training_seconds": round(trained, 1),
        "seconds": round(time.monotonic() - begin, 1),
        "peak_gpu_bytes": torch.cuda.max_memory_allocated() if cuda else None,
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or platform.machine(),
        "curve": curve,
    }


def interval(differences: list[float]) -> dict[str, Any]:
    """Mean of differences and its 95 % interval by Student's t; no interval from one of them."""
    n, mean = len(differences), sum(differences) / len(differences)
    if n < 2:
        return {"n": n, "mean": mean, "ci95": None}
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / (n - 1))
    half = STUDENT[min(n - 1, max(STUDENT))] * deviation / math.sqrt(n)
    return {"n": n, "mean": mean, "ci95": [mean - half, mean + half]}


def summary(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Test accuracy by shape, and wide minus deep in points: over seeds (w1, w2), over mixers at seed 0 (w3)."""

    def accuracy(row: dict[str, Any]) -> float:
        return 100.0 * float(row["test"]["correct"]) / float(row["test"]["n"])

    found: dict[str, Any] = {"accuracy_percent": {}, "wide_minus_deep_points": {}, "size_ratio": {}}
    for row in rows.values():
        key = f"{row['experiment']} {row['mixer']} {row['shape']}"
        found["accuracy_percent"].setdefault(key, []).append(round(accuracy(row), 2))

    def difference(experiment: str, mixer: str, wide: str, deep: str, seed: int) -> float | None:
        pair = [
            r
            for shape in (wide, deep)
            for r in rows.values()
            if (r["experiment"], r["mixer"], r["shape"], r["seed"]) == (experiment, mixer, shape, seed)
        ]
        if len(pair) < 2:
            return None
        if mixer == "softmax":
            found["size_ratio"][f"{deep} / {wide}"] = pair[1]["parameters"] / pair[0]["parameters"]
        return accuracy(pair[0]) - accuracy(pair[1])

    for experiment, wide, deep in (("w1", "1x16", "4x4"), ("w2", "1x48", "6x8")):
        seeds = [d for s in range(3) if (d := difference(experiment, "softmax", wide, deep, s)) is not None]
        if seeds:
            found["wide_minus_deep_points"][experiment] = {**interval(seeds), "each": [round(d, 2) for d in seeds]}
    each = {m: difference("w1" if m == "softmax" else "w3", m, "1x16", "4x4", 0) for m in ("softmax", *MIXERS)}
    there = {m: round(d, 2) for m, d in each.items() if d is not None}
    if there:
        found["wide_minus_deep_points"]["w3"] = {**interval(list(there.values())), "each": there}
    return found


def write(path: Path, rows: dict[str, dict[str, Any]], args: argparse.Namespace) -> None:
    report = {
        "what": __doc__,
        "conditions": {
            "torch": torch.__version__,
            "precision": "bfloat16 autocast" if args.device == "cuda" else "float32",
            "jobs_sharing_a_gpu": args.each,
            "gpus": args.gpus,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        "rows": rows,
        "summary": summary(rows),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    partial.replace(path)


def work(jobs: list[Job], args: argparse.Namespace) -> None:
    """All jobs that are not done, `each` at a time on every GPU, while there is time for them."""
    begin = time.monotonic()
    rows: dict[str, Any] = json.loads(args.output.read_text())["rows"] if args.output.is_file() else {}
    waiting = [job for job in jobs if job.name not in rows]
    slots: list[tuple[subprocess.Popen[bytes], Job, Path] | None] = [None] * (args.gpus * args.each)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    while waiting or any(slots):
        left = args.seconds - (time.monotonic() - begin)
        for i, slot in enumerate(slots):
            if slot is not None and slot[0].poll() is not None:
                process, job, part = slot
                if process.returncode == 0:
                    rows[job.name] = json.loads(part.read_text())
                    write(args.output, rows, args)
                else:
                    print(f"{job.name}: failed with {process.returncode}", flush=True)
                part.unlink(missing_ok=True)
                slots[i] = None
            elif slot is not None and left < 0:
                print(f"{slot[1].name}: no time left, ended", flush=True)
                slot[0].kill()
                slot[0].wait()
                slots[i] = None
            if slots[i] is None:
                fitting = next((j for j in waiting if j.expected_s(args.epochs) * args.slow <= left), None)
                if fitting is None:
                    continue
                waiting.remove(fitting)
                slots[i] = start(fitting, i, args)
        if waiting and not any(slots):
            print(f"no time left for {', '.join(job.name for job in waiting)}", flush=True)
            return
        time.sleep(args.pause)


def start(job: Job, slot: int, args: argparse.Namespace) -> tuple[subprocess.Popen[bytes], Job, Path]:
    """A process that writes one job's row."""
    part = args.output.with_name(f"{job.name}.row.json")
    command = [sys.executable, __file__, str(args.reviews), "--job", job.name, "-o", str(part), "--device", args.device]
    command += ["--epochs", str(args.epochs), "--batch", str(args.batch), "--rate", str(args.rate)]
    command += ["--limit", str(args.limit)] if args.limit is not None else []
    if args.weights is not None:
        command += ["--weights", str(args.weights)]
    place = {"CUDA_VISIBLE_DEVICES": str(slot % args.gpus)} if args.device == "cuda" else {}
    return subprocess.Popen(command, env={**os.environ, **place}), job, part


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("reviews", type=Path, help="what memoryformer_e1.py --prepare wrote")
    made.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/wide_w1_w3.json"))
    made.add_argument("--weights", type=Path, help="folder for the float16 weights of w1's 1x16, 3.8 MB each")
    made.add_argument("--jobs", nargs="+", help="beginnings of names, such as w1 or w3-linear; default: all")
    made.add_argument(
        "--seconds", type=float, default=540.0, help="no job starts that would not fit; what still runs then is ended"
    )
    made.add_argument("--gpus", type=int, default=max(1, torch.cuda.device_count()))
    made.add_argument("--each", type=int, default=2, help="jobs that share a GPU")
    made.add_argument("--slow", type=float, default=1.5, help="how much longer a job is expected to take with others beside it")
    made.add_argument("--epochs", type=float, default=10.0)
    made.add_argument("--batch", type=int, default=64)
    made.add_argument("--rate", type=float, default=BASE_RATE / math.sqrt(BASE_WARMUP), help="highest rate at a batch of 32")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--limit", type=int, help="so many reviews of each split, to try it out")
    made.add_argument("--pause", type=float, default=0.5, help=argparse.SUPPRESS)
    made.add_argument("--job", help=argparse.SUPPRESS)
    args = made.parse_args()
    known = {job.name: job for job in queue()}
    if args.job is not None:
        args.output.write_text(json.dumps(run(known[args.job], args)))
        return
    chosen = [j for j in known.values() if args.jobs is None or any(j.name.startswith(start) for start in args.jobs)]
    if not chosen:
        made.error(f"--jobs must name some of {', '.join(known)}, got {' '.join(args.jobs)}")
    work(chosen, args)


if __name__ == "__main__":
    main()
