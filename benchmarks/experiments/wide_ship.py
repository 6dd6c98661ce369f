"""A trained wide layer with as many heads as fit into a file that may ship: weights and their card.

    python benchmarks/experiments/wide_ship.py W1-1x16-sSEED.pt WIDE_W5.json WIDE_W1_W3.json --data IMDB_FOLDER -o FOLDER

Of the sets of heads that wide_w5.py went through, the largest whose float16 weights have at most `--bytes` is taken. Heads of
softmax attention are alike, so what is left is a `wide` encoder with fewer heads: no pass needs to be repeated to load it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgetk.core.bundle import Bundle
from edgetk.models.wide import VARIANTS, build
from edgetk.toolkit.card import card
from edgetk.toolkit.checkpoint import save_model

NAME, WIDTH = "wide-pruned", VARIANTS["1x16"].head_width


def cut(state: Mapping[str, Tensor], heads: Sequence[int]) -> dict[str, Tensor]:
    """Weights of a single layer with some of its heads."""
    rows = torch.cat([torch.arange(h * WIDTH, (h + 1) * WIDTH) for h in heads])
    made = dict(state)
    for name in ("to_q", "to_k", "to_v"):
        key = f"layers.0.attention.{name}.weight"
        made[key] = made[key][rows]
    key = "layers.0.attention.proj.weight"
    made[key] = made[key][:, rows]
    return made


def shipped(state: Mapping[str, Tensor], path: Sequence[Mapping[str, Any]], most_bytes: int) -> tuple[Bundle, list[int], bytes]:
    """The largest network of `path` (sets of heads) that fits, its heads in ascending order, and its file."""
    for step in sorted(path, key=lambda step: -len(step["heads"])):
        heads = sorted(step["heads"])
        if not heads:
            break
        bundle = build("1x16", heads=len(heads))
        bundle.module.load_state_dict({k: v.float() for k, v in cut(state, heads).items()})
        bundle = replace(bundle, name=NAME, labels=("negative", "positive"))
        content = save_model(bundle, half=True)
        if len(content) <= most_bytes:
            return bundle, heads, content
    raise SystemExit(f"wide_ship: some set of heads must fit into {most_bytes} bytes, got none; allow more with --bytes")


def main() -> None:
    from edgetk.core import registry
    from edgetk.toolkit.evaluate import evaluate, predictor

    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("weights", type=Path)
    made.add_argument("heads", type=Path, help="what wide_w5.py found for these weights")
    made.add_argument("rows", type=Path, help="what wide_w1_w3.py found")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--bytes", type=int, default=3_000_000)
    made.add_argument("-o", "--output", type=Path, default=Path("build/wide_ship"))
    args = made.parse_args()
    found = json.loads(args.heads.read_text())
    result = json.loads(args.rows.read_text())
    row = result["rows"][args.weights.stem]
    bundle, heads, content = shipped(torch.load(args.weights, weights_only=True), found["backwards"], args.bytes)
    data = registry.load("task", bundle.task).open(args.data)
    predict = predictor(bundle)
    accuracy = {split: evaluate(predict, bundle.task, data, split, official_only=False) for split in ("validation", "test")}
    counts = {split: len(data.split(split).labels) for split in ("train", "validation", "test")}
    origin = {"origin": data.origin, **counts, "licence": "none stated by the publisher; cite Maas et al. 2011, ACL"}
    recipe = {"name": "wide_w1_w3", **{k: row[k] for k in ("epochs", "batch", "peak_rate", "steps")}}
    training = {
        "seed": row["seed"],
        "best_epoch": 1 + max(range(len(row["curve"])), key=lambda i: (row["curve"][i][2], -i)),
        "chosen_by": "most correct validation answers, of the seeds and within a run",
        "heads": heads,
        "heads_note": f"of 16, cut by wide_w5.py; with all {row['test']['correct']} of {row['test']['n']} test answers",
        "seconds": row["training_seconds"],
        "device": row["device"],
        "torch": result["conditions"]["torch"],
        "date": result["conditions"]["when"][:10],
        "licence": "Apache-2.0",
    }
    args.output.mkdir(parents=True, exist_ok=True)
    about = card(bundle, f"{NAME}.safetensors", content, origin, accuracy, recipe, training)
    (args.output / f"{NAME}.safetensors").write_bytes(content)
    (args.output / f"{NAME}.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")
    print(f"{len(heads)} heads, {len(content)} bytes, " + ", ".join(f"{k} {v}" for k, v in accuracy.items()))


if __name__ == "__main__":
    main()
