"""AxFormer's claim on GLUE: MiniLM without the blocks, heads and neurons whose removal lowers the loss, or hardly raises it.

    python benchmarks/experiments/dsformer_d1_d2.py prepare --data FOLDER --minilm FOLDER    writes the data, see there
    python benchmarks/experiments/axformer_a1_a4.py run [--tasks sst2 mrpc] [--seconds 450]  on a GPU: torch and numpy will do
    python benchmarks/experiments/axformer_a1_a4.py latency                                  CPU, onnxruntime: of what was found
    python benchmarks/experiments/axformer_a1_a4.py table                                    what was found so far

all-MiniLM-L6-v2 is fine-tuned on 85 % of a task's training part (the DSFormer experiment's recipe; of its epochs the one with
most right answers on the other 15 % stays). At most 1500 of those 15 % judge candidates; the published dev part is scored after
a search and never seen by it.

A1  searches: accuracy mode as published, and size modes: loss up by 1 or 2 % at most, right answers lost by 1 or 2 % at most;
    the smallest harm first by savings, by gradients (Taylor) or by each element's own trial (worth). What is left is also
    trained again, from the pretrained weights
A2  random elements instead, as many of each kind, 20 draws; those that matter least for each parameter by the size of their
    weights, and by the loss to first order (Taylor, 128 training examples), as many parameters
A3  accuracy mode without the rule that most samples must not lose; losses on the search's samples and on dev after each step
A4  what is left in int8 (weights, a scale for each row, rounded to nearest), next to the whole model in int8; and as
    dense-sparse pairs, trained on as long as the model was fine-tuned

`run` writes its results after each piece. A task and seed that was interrupted is done again from its first piece on unless the
fine-tuned model is still in build/axformer.
"""

from __future__ import annotations

import argparse
import copy
import functools
import itertools
import json
import math
import statistics
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from dsformer_d1_d2 import RECIPES, TokenData, pretrained, schedule
from torch import Tensor, nn

from edgetk.core.bundle import Bundle, PassRecord
from edgetk.models.layers.elements import Block, declared, macs_of, parameters_of
from edgetk.models.layers.removal import Masks, delete
from edgetk.passes._hierarchical import Found, Rules, Search
from edgetk.passes._importance import elements, least
from edgetk.passes._trials import Trials, batched
from edgetk.passes.factorize import Factorize
from edgetk.tasks.text.metrics import f1
from edgetk.tasks.training.loop import Schedule
from edgetk.tasks.training.tuning import resolve, tune

FINE_TUNED = Path("build/axformer")
RESULTS = Path("benchmarks/results/axformer_a1_a4.json")
#: A4: what becomes dense-sparse pairs, and how many times smaller
MATRICES, RATIO = ("query", "key", "value", "output", "up", "down"), 2.0
PROVIDER = "CPUExecutionProvider"
#: share of the training part that is held out, samples that judge, random draws
HELD_OUT, JUDGES, DRAWS = 0.15, 1500, 20
#: training examples of the Taylor importance
GRADIENTS = 128
#: name -> rules of a search; the first two are A1's and A3's, the others A1's size modes
SEARCHES: Mapping[str, Rules] = {
    "accuracy": Rules(keep=30),
    "accuracy, mean only": Rules(keep=30, per_sample=False),
    "size, loss and answers 1 %": Rules("size", "saved", max_loss=0.01, max_drop=0.01),
    "size, loss and answers 2 %": Rules("size", "saved", max_loss=0.02, max_drop=0.02),
    "size, loss and answers 1 %, by Taylor": Rules("size", "taylor", max_loss=0.01, max_drop=0.01),
    "size, loss and answers 2 %, by Taylor": Rules("size", "taylor", max_loss=0.02, max_drop=0.02),
    "size, answers 1 %, by Taylor": Rules("size", "taylor", max_drop=0.01),
    "size, answers 2 %, by Taylor": Rules("size", "taylor", max_drop=0.02),
    "size, answers 1 %, by worth": Rules("size", "worth", max_drop=0.01),
}
#: those that A2, A4 and the latency look at, and those that are trained again
COMPARED = ("accuracy", "size, loss and answers 1 %", "size, answers 1 %, by Taylor")
AGAIN = ("size, answers 1 %, by Taylor", "size, answers 2 %, by Taylor")
#: encoders that are more times smaller have nothing left to time
LEFT = 20.0
#: samples of a batch; losses are means of batches
BATCH = 500
#: epochs where they are fewer than in the DSFormer experiment: five make MRPC's models so sure of themselves that the mean loss
#: falls when everything is removed
EPOCHS: Mapping[str, int] = {"mrpc": 3}


def planned(task: str, seed: int, args: Any) -> Schedule:
    return schedule(task, seed, args.epochs or EPOCHS.get(task))


class HeldOut(TokenData):
    """The task's tokens with 15 % of the whole training part as validation, drawn by `seed`."""

    def __init__(self, task: str, seed: int, rows: int | None = None) -> None:
        super().__init__(task, rows)
        x, y = (torch.cat([self._splits[name][i] for name in ("train", "validation")]) for i in (0, 1))
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 + seed))
        cut = round(HELD_OUT * len(x))
        held, kept = order[:cut], order[cut:]
        self._splits |= {"train": (x[kept], y[kept]), "validation": (x[held], y[held])}


class Model:
    """A fine-tuned model on a device, with samples to judge on and the dev part to report on."""

    def __init__(self, bundle: Bundle, data: TokenData, device: str) -> None:
        net: Any = bundle.module
        self.bundle, self.net, self.device = bundle, net.to(device).eval(), device
        self.known: dict[str, dict[str, float]] = {}
        self.blocks = declared(net)
        judging, dev = data.split("validation"), data.split("test")
        self.judging = self._batches(judging.features[:JUDGES], judging.labels[:JUDGES])
        self.dev = self._batches(dev.features, dev.labels)
        self.n = [sum(len(y) for _, y in part) for part in (self.judging, self.dev)]
        self.masks = Masks(net, self.blocks)

    def _batches(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(a.to(self.device), b.to(self.device)) for a, b in batched(self.net, x, y, BATCH)]

    def search(self, rules: Rules) -> tuple[Found, int]:
        saves = {b.name: 4.0 * b.parameters for b in self.blocks}
        saves |= {p.name: 4.0 * p.parameters for b in self.blocks for p in b.parts}
        trials = Trials(self.net, self.blocks, self.judging)
        importance = self.importance("taylor") if rules.order == "taylor" else {}
        return Search(self.blocks, trials, rules, saves, importance).run(), trials.n

    def scored(self, removed: Collection[str] = (), hard: Mapping[str, int] | None = None) -> dict[str, Any]:
        """Losses on both parts, accuracy and F1 on dev, without `removed`."""
        self.masks.set(removed, hard or {})
        found = score(self.net, self.judging, self.dev)
        self.masks.set(())
        return found

    def sizes(self, removed: Collection[str]) -> dict[str, Any]:
        before = sum(p.numel() for p in self.net.layers.parameters())
        after = before - parameters_of(self.blocks, removed)
        whole = sum(b.macs for b in self.blocks)
        return {
            "parameters": after,
            "ratio": round(before / after, 4),
            "macs_ratio": round(whole / max(1, whole - macs_of(self.blocks, removed)), 4),
        }

    def importance(self, criterion: str) -> dict[str, float]:
        """Of blocks and parts, on the CPU."""
        if criterion not in self.known:
            body = copy.deepcopy(self.net).cpu()
            self.known[criterion] = elements(replace(self.bundle, body=body), declared(body), criterion, GRADIENTS)
        return self.known[criterion]

    def deleted(self, removed: Collection[str], hard: Mapping[str, int] | None = None) -> Any:
        net = copy.deepcopy(self.net)
        delete(net, declared(net), removed, hard or {})
        return net


@torch.inference_mode()
def score(net: nn.Module, judging: Sequence[tuple[Tensor, Tensor]], dev: Sequence[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    losses = []
    for part in (judging, dev):
        each = torch.cat([F.cross_entropy(net(x).float(), y, reduction="none") for x, y in part])
        losses.append(float(each.double().mean()))
    predicted = torch.cat([net(x).argmax(1) for x, _ in dev]).cpu()
    labels = torch.cat([y for _, y in dev]).cpu()
    accuracy = float((predicted == labels).float().mean())
    return {"loss": losses[0], "dev_loss": losses[1], "dev_accuracy": accuracy, "dev_f1": f1(predicted, labels)}


def fine_tuned(task: str, seed: int, data: HeldOut, args: Any) -> tuple[Bundle, bool, dict[str, Any]]:
    """The model of a task and seed, whether it was there already, and notes on its training."""
    bundle, plan = replace(pretrained(task, seed, args.layers), data=data), planned(task, seed, args)
    path = FINE_TUNED / f"{task}-{seed}-{args.layers}-{plan.epochs}.pt"
    if path.is_file():
        bundle.module.load_state_dict(torch.load(path, weights_only=True))
        return bundle, True, {}
    notes = tune(bundle.module, bundle, plan, "none", args.device)
    FINE_TUNED.mkdir(parents=True, exist_ok=True)
    torch.save(bundle.module.state_dict(), path)
    return bundle, False, {k: notes[k] for k in ("history", "validation_correct", "validation_n")}


def steps_of(found: Found) -> Iterator[tuple[str, set[str], dict[str, int]]]:
    """What was accepted, one thing after the other: its name, and all that is gone and hard by then."""
    removed: set[str] = set()
    hard: dict[str, int] = {}
    for line in found.trace[1:]:
        if line["accepted"]:
            what = str(line["what"])
            if what.startswith("hard "):
                hard[what.removeprefix("hard ")] = found.hard[what.removeprefix("hard ")]
            else:
                removed.add(what)
            yield what, set(removed), dict(hard)


def searched(model: Model, name: str) -> dict[str, Any]:
    """A1 and A3: one search, what it found and how it did after each step."""
    begin = time.monotonic()
    found, n = model.search(SEARCHES[name])
    seconds = time.monotonic() - begin
    trace = []
    if name.startswith("accuracy"):
        for what, removed, hard in steps_of(found):
            made = model.scored(removed, hard)
            trace.append({"what": what, **{k: made[k] for k in ("loss", "dev_loss", "dev_accuracy")}})
    gone, hard = sorted(found.removed), dict(found.hard)
    net = model.deleted(gone, hard)
    x = model.dev[0][0]
    model.masks.set(gone, hard)
    with torch.inference_mode():
        gap = float((model.net(x) - net(x)).abs().max())
    model.masks.set(())
    counted = sum(p.numel() for p in net.layers.parameters())
    assert counted == model.sizes(gone)["parameters"], "what was deleted must be what was counted"
    return {
        "removed": gone, "hard": hard, "kinds": kinds(model.blocks, gone), "judges": n, "evaluations": found.evaluations,
        **model.sizes(gone), **model.scored(gone, hard), "largest_gap_of_masked_and_deleted": gap, "steps": trace,
        "search_seconds": round(seconds, 2),
    }  # fmt: skip


def kinds(blocks: Sequence[Block], removed: Collection[str]) -> dict[str, int]:
    """How many attentions, feed-forward networks, heads and groups of neurons were removed."""
    found = {"attention": 0, "ffn": 0, "head": 0, "group": 0}
    for block in blocks:
        if block.name in removed:
            found[block.kind] += 1
        else:
            found["head" if block.kind == "attention" else "group"] += sum(p.name in removed for p in block.parts)
    return found


def drawn(blocks: Sequence[Block], wanted: Mapping[str, int], random: np.random.Generator) -> set[str]:
    """As many elements of each kind, from anywhere; no part of a block that is gone."""
    removed: set[str] = set()
    for kind, part in (("attention", "head"), ("ffn", "group")):
        own = [b for b in blocks if b.kind == kind]
        removed |= {own[i].name for i in random.choice(len(own), wanted[kind], replace=False)}
        parts = [p.name for b in own if b.name not in removed for p in b.parts]
        count = min(wanted[part], len(parts))
        removed |= {str(n) for n in random.choice(parts, count, replace=False)} if count else set()
    return removed


def controls(model: Model, name: str, found: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A2: random elements of the same kinds and numbers; what matters least by weights and by gradients, up to as many
    parameters."""
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(DRAWS):
        removed = drawn(model.blocks, found["kinds"], random)
        draws.append({**model.scored(removed), "parameters": model.sizes(removed)["parameters"]})
    better = sum(found["dev_accuracy"] > d["dev_accuracy"] for d in draws)
    better_loss = sum(found["dev_loss"] < d["dev_loss"] for d in draws)
    made: dict[str, Any] = {
        "of": name, "draws": draws, "beats": better, "beats_by_loss": better_loss,
        "95th_percentile": float(np.quantile([d["dev_accuracy"] for d in draws], 0.95)),
    }  # fmt: skip
    share = parameters_of(model.blocks, found["removed"]) / sum(b.parameters for b in model.blocks)
    for criterion in ("magnitude", "taylor"):
        gone = least(model.blocks, model.importance(criterion), share)
        made[criterion] = {"removed": sorted(gone), **model.sizes(gone), **model.scored(gone)}
    return made


def rounded(numbers: Tensor, dim: int) -> Tensor:
    """To int8 and back, a scale for each line along `dim`."""
    scale = (numbers.abs().amax(dim, keepdim=True) / 127).clamp_min(1e-12)
    return (numbers / scale).round().clamp(-127, 127) * scale


def composed(model: Model, found: Mapping[str, Any] | None) -> dict[str, Any]:
    """A4: int8 weights of the encoder's linear layers, on what is left (None: on the whole model)."""
    net = copy.deepcopy(model.net) if found is None else model.deleted(found["removed"], found["hard"])
    linear = [m for m in net.layers.modules() if isinstance(m, nn.Linear)]
    with torch.no_grad():
        for layer in linear:
            layer.weight.copy_(rounded(layer.weight, 1))
    float_bytes = 4 * sum(p.numel() for p in net.layers.parameters() if p.dim() == 1)
    eight_bits = sum(layer.weight.numel() + 4 * len(layer.weight) for layer in linear)
    return {**score(net, model.judging, model.dev), "encoder_bytes": eight_bits + float_bytes}


def again(found: Mapping[str, Any], data: HeldOut, task: str, seed: int, args: Any) -> dict[str, Any]:
    """A1: the pretrained encoder without what a search removed, fine-tuned as the whole one was."""
    bundle = replace(pretrained(task, seed, args.layers), data=data)
    delete(bundle.module, declared(bundle.module), found["removed"], found["hard"])
    notes = tune(bundle.module, bundle, planned(task, seed, args), "none", args.device)
    model = Model(bundle, data, resolve(args.device))
    return {**score(model.net, model.judging, model.dev), "ratio": found["ratio"], "history": notes["history"]}


def paired(model: Model, bundle: Bundle, found: Mapping[str, Any] | None, task: str, seed: int, args: Any) -> dict[str, Any]:
    """A4: dense-sparse pairs of what is left, and training; None: of the whole model."""
    net = copy.deepcopy(model.net) if found is None else model.deleted(found["removed"], found["hard"])
    start = replace(bundle, body=net.cpu(), original=None)
    kind = Factorize("dense-sparse", {"ratio": RATIO}, MATRICES, activations=False, device=args.device, min_weights=4096)
    result = kind(start)
    made = start.with_body(result.body, PassRecord("factorize", {}, {}, result.structure))
    tune(made.module, made, planned(task, seed, args), "none", args.device)
    after = score(made.module.to(model.device).eval(), model.judging, model.dev)
    model.net.to(model.device)
    return {**after, "bytes_before": result.notes["bytes_before"], "ratio_of_pairs": result.notes["ratio"]}


def pieces(part: str) -> list[str]:
    """Names of the pieces of a task and seed: the "searches" and what goes with them, trained "again", trained "pairs"."""
    if part == "pairs":
        return ["pairs: whole", f"pairs: {COMPARED[-1]}"]
    if part == "again":
        return [f"again: {name}" for name in AGAIN]
    return ["base", *SEARCHES, *(f"controls: {n}" for n in COMPARED), "int8: whole", *(f"int8: {n}" for n in COMPARED)]


def unit(task: str, seed: int, part: str, args: Any, rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pieces of a task and seed that are missing in `rows`, one after the other."""
    have = {r["piece"]: r for r in rows if (r["task"], r["seed"]) == (task, seed)}
    if set(pieces(part)) <= set(have):
        return
    data = HeldOut(task, seed, args.rows)
    bundle, known, notes = fine_tuned(task, seed, data, args)
    if not known:  # another model than that of the rows
        rows[:] = [r for r in rows if (r["task"], r["seed"]) != (task, seed)]
        have = {}
    model = Model(bundle, data, resolve(args.device))
    for name in [n for p in dict.fromkeys(("searches", part)) for n in pieces(p)]:
        if name in have:
            continue
        begin = time.monotonic()
        kind, _, of = name.partition(": ")
        found = None if of in ("", "whole") else have[of]
        if name == "base":
            made = {**model.scored(), **model.sizes(()), "training": notes, "n": model.n}
        elif name in SEARCHES:
            made = searched(model, name)
        elif found is not None and kind == "controls":
            made = controls(model, of, found, seed)
        elif kind == "int8":
            made = composed(model, found)
        elif found is not None and kind == "again":
            made = again(found, data, task, seed, args)
        else:
            made = paired(model, bundle, found, task, seed, args)
        have[name] = {"task": task, "seed": seed, "piece": name, **made, "seconds": round(time.monotonic() - begin, 2)}
        yield have[name]


def run(args: Any) -> None:
    begin = time.monotonic()
    found = read(args.results)
    rows = found["rows"]
    for part, seed, task in itertools.product(("searches", "again", "pairs"), range(args.seeds), args.tasks):
        for row in unit(task, seed, part, args, rows):
            rows.append(row)
            write(found, args)
            more = f"{row['ratio']:.2f}x " if "ratio" in row else ""
            dev = f"dev {row['dev_accuracy']:.4f} loss {row['dev_loss']:.4f} " if "dev_loss" in row else ""
            if "beats" in row:
                dev = f"beats {row['beats']} of {DRAWS} draws "
            print(f"{task} {seed} {row['piece']}: {more}{dev}({row['seconds']} s)", flush=True)
            if time.monotonic() - begin > args.seconds:
                print("out of time: call again to go on", flush=True)
                return


def write(found: dict[str, Any], args: Any) -> None:
    found["conditions"] = {
        "device": torch.cuda.get_device_name() if resolve(args.device) == "cuda" else "cpu",
        "torch": torch.__version__,
        "recipes": {task: vars(planned(task, 0, args)) for task in RECIPES},
        "model": "all-MiniLM-L6-v2, mean of the tokens, one linear layer on top",
        "held_out": HELD_OUT, "judges": JUDGES, "searches": {name: vars(rules) for name, rules in SEARCHES.items()},
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps({"what": __doc__, **found}, indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": []}


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    spread = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    return statistics.fmean(values), spread


def table(found: Mapping[str, Any]) -> None:
    """Means over seeds with standard errors, as Markdown."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    base: dict[tuple[str, int], dict[str, Any]] = {}
    for row in found["rows"]:
        cells.setdefault((row["task"], row["piece"]), []).append(row)
        if row["piece"] == "base":
            base[row["task"], row["seed"]] = row
    for task in sorted({t for t, _ in cells}):
        print(f"\n{task}\n\n| model | seeds | encoder smaller | dev accuracy | against the base | dev loss | evaluations |")
        print("|---|---|---|---|---|---|---|")
        for name in [n for t, n in cells if t == task and n.partition(": ")[0] not in ("controls", "int8", "pairs")]:
            rows = cells[task, name]
            accuracy, error = mean_and_error([100 * r["dev_accuracy"] for r in rows])
            change, spread = mean_and_error([100 * (r["dev_accuracy"] - base[task, r["seed"]]["dev_accuracy"]) for r in rows])
            loss, _ = mean_and_error([r["dev_loss"] for r in rows])
            count = round(statistics.fmean(r.get("evaluations", 0) for r in rows))
            ratio = statistics.fmean(r["ratio"] for r in rows)
            print(
                f"| {name} | {len(rows)} | {ratio:.2f} | {accuracy:.2f} ± {error:.2f} | {change:+.2f} ± {spread:.2f} | "
                f"{loss:.4f} | {count} |"
            )
        print("\n| control of | seeds | found | random, mean | random, 95th percentile | draws beaten | magnitude | Taylor |")
        print("|---|---|---|---|---|---|---|---|")
        for name in [n.removeprefix("controls: ") for t, n in cells if t == task and n.startswith("controls")]:
            rows = cells[task, f"controls: {name}"]
            own = {r["seed"]: r for r in cells[task, name]}
            values = [
                statistics.fmean(100 * own[r["seed"]]["dev_accuracy"] for r in rows),
                statistics.fmean(100 * d["dev_accuracy"] for r in rows for d in r["draws"]),
                statistics.fmean(100 * r["95th_percentile"] for r in rows),
            ]
            beaten, draws = sum(r["beats"] for r in rows), sum(len(r["draws"]) for r in rows)
            others = [statistics.fmean(100 * r[c]["dev_accuracy"] for r in rows) for c in ("magnitude", "taylor")]
            print(
                f"| {name} | {len(rows)} | {values[0]:.2f} | {values[1]:.2f} | {values[2]:.2f} | {beaten} of {draws} | "
                f"{others[0]:.2f} | {others[1]:.2f} |"
            )
        print("\n| composition | seeds | dev accuracy | dev loss |")
        print("|---|---|---|---|")
        for name in sorted(n for t, n in cells if t == task and n.startswith(("int8", "pairs"))):
            rows = cells[task, name]
            accuracy, error = mean_and_error([100 * r["dev_accuracy"] for r in rows])
            loss = statistics.fmean(r["dev_loss"] for r in rows)
            print(f"| {name} | {len(rows)} | {accuracy:.2f} ± {error:.2f} | {loss:.4f} |")
        both = [n for n in ("accuracy", "accuracy, mean only") if (task, n) in cells]
        for name in both:
            gains = [
                (base[task, r["seed"]]["loss"] - r["loss"], base[task, r["seed"]]["dev_loss"] - r["dev_loss"])
                for r in cells[task, name]
            ]
            ours, dev = (statistics.fmean(g[i] for g in gains) for i in (0, 1))
            print(
                f"\nA3 {name}: loss fell by {ours:.4f} on the search's samples and by {dev:.4f} on dev (n={len(gains)} seeds)"
            )
    for row in found.get("latency", []):
        print(f"\n{row}")


def latency(args: Any) -> None:
    """Of the first seed's models on this machine's CPU: onnxruntime, float32, batch 1, full length, in turns."""
    import onnxruntime

    from edgetk.export.lower import lower
    from edgetk.targets import board

    found = read(args.results)
    host = board.load("host")
    rows = []
    for task in sorted({r["task"] for r in found["rows"]}):
        own = {r["piece"]: r for r in found["rows"] if (r["task"], r["seed"]) == (task, 0)}
        bundle = pretrained(task, 0, args.layers)
        graphs = {}
        for name in ["base", *(n for n in COMPARED if n in own and own[n]["ratio"] < LEFT)]:
            net: Any = copy.deepcopy(bundle.module)
            if name != "base":
                delete(net, declared(net), own[name]["removed"], own[name]["hard"])
            graphs[name] = lower(replace(bundle, body=net), host)[0].graph.SerializeToString()
        for threads in (1, 2):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            open_session = functools.partial(onnxruntime.InferenceSession, sess_options=options, providers=[PROVIDER])
            sessions = {name: open_session(graph) for name, graph in graphs.items()}
            length = bundle.signature.inputs[0].shape[1]
            tokens = np.full((1, int(length)), 2000, np.float32)
            times: dict[str, list[float]] = {name: [] for name in sessions}
            for turn in range(args.turns + 3):
                for name, session in sessions.items():
                    begin = time.perf_counter()
                    session.run(None, {session.get_inputs()[0].name: tokens})
                    if turn >= 3:
                        times[name].append(1e3 * (time.perf_counter() - begin))
            for name, taken in times.items():
                rows.append(
                    {"task": task, "model": name, "threads": threads, "tokens": length, "n": len(taken),
                     "median_ms": round(statistics.median(taken), 3),
                     "p10_p90_ms": [round(float(q), 3) for q in np.quantile(taken, (0.1, 0.9))],
                     "times_faster": round(statistics.median(times["base"]) / statistics.median(taken), 3)}
                )  # fmt: skip
                print(rows[-1], flush=True)
    found["latency"] = rows
    args.output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    first = steps.add_parser("run")
    first.add_argument("--tasks", nargs="+", choices=sorted(RECIPES), default=["sst2", "mrpc"])
    first.add_argument("--seeds", type=int, default=3)
    first.add_argument("--seconds", type=float, default=450.0, help="no piece is begun later")
    first.add_argument("--device", default="auto")
    first.add_argument("--rows", type=int, help="only so many examples of each split, for a try")
    first.add_argument("--epochs", type=int, help="other than the recipe's, for a try")
    second = steps.add_parser("latency")
    second.add_argument("--turns", type=int, default=60)
    third = steps.add_parser("table")
    for each in (first, second):
        each.add_argument("--layers", type=int, default=6, help="fewer than MiniLM's, for a try")
        each.add_argument("-o", "--output", type=Path, default=RESULTS)
    for each in (first, second, third):
        each.add_argument("--results", type=Path, default=RESULTS, help="what was found before: is not done again")
    args = parser.parse_args()
    if args.step == "run":
        run(args)
    elif args.step == "latency":
        latency(args)
    else:
        table(read(args.results))


if __name__ == "__main__":
    main()
