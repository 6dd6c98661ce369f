"""DSFormer's claim on GLUE: dense-sparse factors with a straight-through factorizer against low rank and magnitude pruning.

    python benchmarks/experiments/dsformer_d1_d2.py prepare --data FOLDER --minilm FOLDER    where tokenizers are installed
    python benchmarks/experiments/dsformer_d1_d2.py run --task sst2 [--seconds 450]          on a GPU: torch and numpy will do
    python benchmarks/experiments/dsformer_d1_d2.py table                                    what was found so far

D1  all-MiniLM-L6-v2 is fine-tuned for the task (one model for each seed); then the encoder's 36 matrices are compressed to
    1 / ratio of their float32 bits, indices counted, and trained on, all methods for as many epochs with one recipe.
    Embeddings stay as they are.
D2  the trained dense-sparse models with both factors in int8 as the pass `quantize` stores them (a scale for each output of the
    dictionary and for each line), rounded to nearest, not trained on; what the factors read is not rounded.

svd        plain truncated SVD              fwsvd   the same, input rows weighted by Fisher information
magnitude  the largest weights stay, wherever they are; an index of 9 bits each (rows of 384)
2:4, 1:4   the largest of four neighbours along the input; an index of 2 bits each; at their own ratio only
frozen     dense-sparse pairs, which coefficients are kept does not change in training
stf-a, -b  the same with `refactorize`, variants a and b

`prepare` writes small files below build/dsformer, which `run` reads. `run` does what is missing in the results, one seed after
the other, and stops before --seconds are over: call it again to go on. The epoch with most right answers on the held-out part
of the training set is scored once on the published dev set.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core import registry
from edgetk.core.bundle import Bundle, PassRecord
from edgetk.core.contracts import Split
from edgetk.models import dsformer
from edgetk.models._bert_encoder import BertEncoder
from edgetk.models.layers.dense_sparse import DenseSparseLinear, groups_of
from edgetk.models.layers.dense_sparse_int8 import QuantSparseFactor, line_codes
from edgetk.models.layers.qdq import dequantize_weight
from edgetk.passes.factorize import Factorize
from edgetk.passes.refactorize import Refactorize
from edgetk.tasks.text.metrics import f1
from edgetk.tasks.training.loop import Schedule
from edgetk.tasks.training.tuning import resolve, tune

#: what `prepare` writes, and the fine-tuned dense models that `run` keeps for its next call
BUILD, DENSE = Path("build/dsformer"), Path("build/dsformer-dense")
RESULTS = Path("benchmarks/results/dsformer_d1_d2.json")
RATIOS = (2.0, 2.8, 3.57)
FACTORED = ("svd", "fwsvd", "frozen", "stf-a", "stf-b")
#: bits of an index: a place among 384 rows, among four neighbours
ROW_BITS, NEIGHBOUR_BITS = 9, 2
#: what a task's runs have in common
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "sst2": {"epochs": 3, "batch": 64, "lr": 1e-4},
    "mrpc": {"epochs": 5, "batch": 32, "lr": 1e-4},
}
LABELS = 2


def schedule(task: str, seed: int, epochs: int | None) -> Schedule:
    chosen = {**RECIPES[task], **({"epochs": epochs} if epochs else {})}
    return Schedule(
        **chosen, betas=(0.9, 0.999), shape="cosine", loss="ce", weight_decay=0.01, decoupled=True, seed=seed
    )  # fmt: skip


class TokenData:
    """Token numbers and labels of a task that were written by `prepare`; `rows` fewer of each split, for a try."""

    augmentations: Mapping[str, Any] = {"none": None}

    def __init__(self, task: str, rows: int | None = None) -> None:
        self.labels = registry.load("task", task).classes
        self.origin = task
        stored = np.load(BUILD / f"{task}.npz")
        self._splits = {
            name: (torch.from_numpy(stored[f"{name}_x"][:rows].astype(np.int32)), torch.from_numpy(stored[f"{name}_y"][:rows]))
            for name in ("train", "validation", "test")
        }

    def split(self, name: str) -> Split:
        x, y = self._splits[name]
        return Split(name, x.float(), y.long(), self.origin)

    def calibration(self, n: int) -> Tensor:
        x, _ = self._splits["train"]
        return x[torch.linspace(0, len(x) - 1, min(n, len(x))).long()].float()

    def batches(
        self, device: torch.device | str, augmentation: Any = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        x, y = (t.to(device) for t in self._splits["train"])
        targets = F.one_hot(y.long(), LABELS).float()
        return lambda rows: (x[rows].float(), targets[rows]), len(x)


class Masked(nn.Linear):
    """A linear layer of which only the weights under `mask` count."""

    def __init__(self, layer: nn.Linear, mask: Tensor) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.load_state_dict(layer.state_dict())
        self.register_buffer("mask", mask)
        self.mask: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


def prepare(data: Path, minilm: Path) -> None:
    """Tokens of both tasks, and the encoder's weights in float16: small enough to be carried to another machine."""
    from edgetk.models import _bert_published

    BUILD.mkdir(parents=True, exist_ok=True)
    for task in RECIPES:
        opened = registry.load("task", task).open(data / task)
        arrays = {}
        for name in ("train", "validation", "test"):
            x, y = opened.tokens(name)
            arrays |= {f"{name}_x": x.numpy().astype(np.int16), f"{name}_y": y.numpy().astype(np.int8)}
        np.savez_compressed(BUILD / f"{task}.npz", **arrays)
    net = _bert_published.read(minilm, 64, 0)
    np.savez(BUILD / "minilm.npz", **{k: v.half().numpy() for k, v in net.state_dict().items()})
    for path in sorted(BUILD.glob("*.npz")):
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def pretrained(task: str, seed: int, layers: int) -> Bundle:
    """MiniLM's first `layers` layers with a fresh head for the task."""
    torch.manual_seed(seed)
    bundle = dsformer.build("base", task=task, length=registry.load("task", task).front_end["tokens"], layers=layers)
    stored = {k: torch.from_numpy(v).float() for k, v in np.load(BUILD / "minilm.npz").items()}
    weights = {k: v for k, v in stored.items() if not k.startswith("layers.") or int(k.split(".")[1]) < layers}
    missing = bundle.module.load_state_dict(weights, strict=False).missing_keys
    assert set(missing) == {"head.weight", "head.bias"}, missing
    return bundle


def fine_tuned(task: str, seed: int, data: TokenData, args: Any) -> tuple[Bundle, dict[str, Any]]:
    """The dense model of a seed, from a file where it was made before."""
    bundle, plan = replace(pretrained(task, seed, args.layers), data=data), schedule(task, seed, args.epochs)
    path = DENSE / f"{task}-{seed}-{args.layers}-{plan.epochs}.pt"
    notes: dict[str, Any] = {}
    if path.is_file():
        bundle.module.load_state_dict(torch.load(path, weights_only=True))
    else:
        notes = tune(bundle.module, bundle, plan, "none", args.device)
        DENSE.mkdir(parents=True, exist_ok=True)
        torch.save(bundle.module.state_dict(), path)
    return replace(bundle, original=bundle.body), notes


def scored(bundle: Bundle, data: TokenData, device: str) -> dict[str, Any]:
    """Accuracy and F1 on the published dev set."""
    device, net, dev = resolve(device), bundle.module, data.split("test")
    net.to(device).eval()
    with torch.inference_mode():
        parts = [net(x.to(device)).argmax(1).cpu() for x in dev.features.split(256)]
    net.cpu()
    predicted = torch.cat(parts)
    return {"accuracy": float((predicted == dev.labels).float().mean()), "f1": f1(predicted, dev.labels), "n": len(dev.labels)}


def sizes(bits: float, bits_without_indices: float, net: nn.Module) -> dict[str, Any]:
    """How many times smaller the encoder's matrices became, and the whole model."""
    dense = 32 * dense_weights(net)
    config: Any = net.config
    total = 32 * sum(p.numel() for p in BertEncoder(config).parameters())
    return {
        "ratio": round(dense / bits, 4),
        "ratio_without_indices": round(dense / bits_without_indices, 4),
        "ratio_of_whole_model": round(total / (total - dense + bits), 4),
    }


def dense_weights(net: nn.Module) -> int:
    config: Any = net.config
    return int(config.layers * (4 * config.dim**2 + 2 * config.dim * config.ffn))


def masked(bundle: Bundle, method: str, ratio: float) -> tuple[Bundle, dict[str, Any]]:
    """The dense model with its smallest weights off, and what it then takes."""
    body: Any = copy.deepcopy(bundle.body)
    kept_bits = 0
    kept_total = 0
    for name in body.matrices():
        layer = body.get_submodule(name)
        size = layer.weight.detach().abs()
        if method == "magnitude":
            kept = int(size.numel() * 32 / (ratio * (32 + ROW_BITS)))
            mask = size >= size.flatten().topk(kept).values[-1]
            each = 32 + ROW_BITS
        else:
            n = int(method[0])
            places = size.reshape(size.shape[0], -1, 4).topk(n, dim=-1).indices
            mask = (
                torch.zeros(size.shape[0], size.shape[1] // 4, 4, dtype=torch.bool)
                .scatter(-1, places, True)
                .reshape(size.shape)
            )
            each = 32 + NEIGHBOUR_BITS
        kept_total += int(mask.sum())
        kept_bits += int(mask.sum()) * each
        body.set_submodule(name, Masked(layer, mask.float()))
    return replace(bundle, body=body), sizes(kept_bits, 32 * kept_total, bundle.module)


def factored(bundle: Bundle, method: str, ratio: float, device: str) -> tuple[Bundle, dict[str, Any]]:
    """The dense model with every matrix of the encoder as a product."""
    kind = method if method in ("svd", "fwsvd") else "dense-sparse"
    layers = ("query", "key", "value", "output", "up", "down")
    made = Factorize(kind, {"ratio": ratio}, layers, activations=False, device=device, min_weights=4096)
    result = made(replace(bundle, body=copy.deepcopy(bundle.body)))
    notes = dict(result.notes)
    bits = [8 * notes["bytes_before"] / notes[key] for key in ("ratio", "ratio_without_indices")]
    record = PassRecord("factorize", {}, {}, result.structure)
    about = {**sizes(*bits, bundle.module), "sizes": notes.get("sizes", notes.get("ranks"))}
    return bundle.with_body(result.body, record), {**about, "macs_ratio": notes["macs_before"] / notes["macs_after"]}


def int8(bundle: Bundle) -> tuple[Bundle, float]:
    """D2: the model with its factors as `quantize` stores them, and how many times fewer bits these take, scales counted."""
    body: Any = copy.deepcopy(bundle.body)
    groups = groups_of(body)
    for layer in [m for m in body.modules() if isinstance(m, DenseSparseLinear)]:
        layer.sparse = QuantSparseFactor.of(layer.sparse)
        if layer.owner is None:
            layer.dense.weight.data = dequantize_weight(*line_codes(layer.dense.weight.data))
    before = sum(g.bits() for g in groups)
    after = sum(g.bits(8, 8) + 32 * g.scales for g in groups)
    return replace(bundle, body=body), before / after


def one(task: str, method: str, ratio: float, seed: int, data: TokenData, state: dict[str, Any], args: Any) -> dict[str, Any]:
    """One run: compress, train on, score. `state` keeps what runs of one seed share."""
    begin = time.monotonic()
    if state.get("seed") != seed:
        state.clear()
        state["seed"] = seed
        state["dense"], state["notes"] = fine_tuned(task, seed, data, args)
    dense: Bundle = state["dense"]
    plan, row = schedule(task, seed, args.epochs), {"task": task, "method": method, "wanted": ratio, "seed": seed}
    if method == "dense":
        row |= {"ratio": 1.0, **scored(dense, data, args.device), "history": state["notes"].get("history")}
    elif method in ("magnitude", "2:4", "1:4"):
        bundle, about = masked(dense, method, ratio)
        notes = tune(bundle.module, bundle, plan, "none", args.device)
        row |= {**about, **scored(bundle, data, args.device), "history": notes["history"]}
    else:
        key = (method if method in ("svd", "fwsvd") else "dense-sparse", ratio)
        if key not in state:
            state[key] = factored(dense, method, ratio, args.device)
        start, about = state[key]
        bundle = replace(start, body=copy.deepcopy(start.body))
        row |= {**about, "untrained": scored(bundle, data, args.device)["accuracy"]}
        if method in ("stf-a", "stf-b"):
            shared = {"weight_decay": plan.weight_decay, "device": args.device, "seed": seed}
            made = Refactorize(method[-1], epochs=plan.epochs, batch=plan.batch, lr=plan.lr, **shared)
            result = made(bundle)
            bundle, notes = replace(bundle, body=result.body), result.notes
            row["support_moved"] = notes["support_moved"]
        else:
            notes = tune(bundle.module, bundle, plan, "none", args.device)
        row |= {**scored(bundle, data, args.device), "history": notes["history"]}
        if key[0] == "dense-sparse":
            small, further = int8(bundle)
            row["int8"] = {**scored(small, data, args.device), "further_ratio": round(further, 4)}
    return {**row, "seconds": round(time.monotonic() - begin, 1)}


def jobs(seeds: list[int]) -> list[tuple[str, float, int]]:
    """Method, ratio and seed of every run, a seed after the other, what the bar needs first."""
    order = [("dense", 1.0)]
    order += [(m, r) for r in (2.8, 2.0, 3.57) for m in ("stf-a", "svd", "frozen", "stf-b", "magnitude", "fwsvd")]
    order += [("2:4", 1.88), ("1:4", 3.76)]
    return [(method, ratio, seed) for seed in seeds for method, ratio in order]


def run(args: Any) -> None:
    begin = time.monotonic()
    found = read(args.results)
    done = {(r["task"], r["method"], r["wanted"], r["seed"]) for r in found["rows"]}
    data, state = TokenData(args.task, args.rows), {}
    slowest = 0.0
    for method, ratio, seed in jobs(args.seeds):
        if (args.task, method, ratio, seed) in done or (args.methods and method not in args.methods):
            continue
        if time.monotonic() - begin + slowest > args.seconds:
            print("out of time: call again to go on")
            break
        row = one(args.task, method, ratio, seed, data, state, args)
        slowest = max(slowest, row["seconds"])
        found["rows"].append(row)
        found["conditions"] = {
            "device": torch.cuda.get_device_name() if resolve(args.device) == "cuda" else "cpu",
            "torch": torch.__version__,
            "recipes": {task: vars(schedule(task, 0, args.epochs)) for task in RECIPES},
            "model": "all-MiniLM-L6-v2, mean of the tokens, one linear layer on top",
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps({"what": __doc__, **found}, indent=1, ensure_ascii=False) + "\n")
        more = f", int8 {row['int8']['accuracy']:.4f} at a further {row['int8']['further_ratio']:.2f}x" if "int8" in row else ""
        print(
            f"{args.task} {method} {row['ratio']:.2f}x seed {seed}: {row['accuracy']:.4f}{more} ({row['seconds']} s)",
            flush=True,
        )
    table(found)


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": []}


def table(found: Mapping[str, Any]) -> None:
    """Means over seeds with their standard errors."""
    cells: dict[tuple[str, float, str], list[dict[str, Any]]] = {}
    for row in found["rows"]:
        cells.setdefault((row["task"], row["wanted"], row["method"]), []).append(row)
    for (task, ratio, method), rows in sorted(cells.items()):
        values = [r["accuracy"] for r in rows]
        mean = sum(values) / len(values)
        error = math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1) / len(values)) if len(values) > 1 else 0.0
        small = [r["int8"]["accuracy"] for r in rows if "int8" in r]
        more = f"   int8 {100 * sum(small) / len(small):6.2f}" if small else ""
        print(f"{task:5} {ratio:5.2f}x {method:10} {100 * mean:6.2f} ± {100 * error:4.2f} (seeds: {len(values)}){more}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    first = steps.add_parser("prepare")
    first.add_argument("--data", type=Path, required=True, help="folder with sst2/ and mrpc/")
    first.add_argument("--minilm", type=Path, required=True, help="Hugging Face folder of all-MiniLM-L6-v2")
    second = steps.add_parser("run")
    second.add_argument("--task", choices=sorted(RECIPES), required=True)
    second.add_argument("--methods", nargs="*", help="only these")
    second.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    second.add_argument("--seconds", type=float, default=450.0, help="no run is begun that may end later")
    second.add_argument("--results", type=Path, default=RESULTS, help="what was found before: is not done again")
    second.add_argument("-o", "--output", type=Path, default=RESULTS)
    second.add_argument("--device", default="auto")
    second.add_argument("--rows", type=int, help="only so many examples of each split, for a try")
    second.add_argument("--epochs", type=int, help="other than the recipe's, for a try")
    second.add_argument("--layers", type=int, default=6, help="fewer than MiniLM's, for a try")
    third = steps.add_parser("table")
    third.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.step == "prepare":
        prepare(args.data, args.minilm)
    elif args.step == "run":
        run(args)
    else:
        table(read(args.results))


if __name__ == "__main__":
    main()
