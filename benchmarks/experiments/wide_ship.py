"""A trained single wide layer as a file that may ship: some heads, its unchanging query multiplied out, float16, with its card.

    python benchmarks/experiments/wide_ship.py W1-1x16-sSEED.pt WIDE_W1_W3.json --heads 0 4 10 12 --data IMDB_FOLDER -o FOLDER

`--heads` are those that stay, as W5 found them; the others are deleted. Where all sixteen stay, the pass `fold` leaves
1,385,472 of 1,905,152 parameters with the same function. The card's accuracy is that of the rounded file, computed here.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from edgetk.core.bundle import Bundle, PassRecord
from edgetk.models.layers.elements import NEURONS
from edgetk.models.wide import build
from edgetk.passes.fold import Fold
from edgetk.passes.prune_blocks import PruneBlocks
from edgetk.tasks.imdb.reviews import LABELS
from edgetk.toolkit.card import card
from edgetk.toolkit.checkpoint import save_model
from edgetk.toolkit.stored import rounded

NAME = "wide-compact"
#: of the network of W1
HEADS = 16


def shipped(state: Mapping[str, Tensor], heads: Collection[int] = range(HEADS)) -> Bundle:
    """The network of W1's 1x16 with weights `state` and `heads` of its heads, folded, its floats rounded to float16."""
    made = build("1x16")
    made.module.load_state_dict({name: value.float() for name, value in state.items()})
    made = replace(made, name=NAME, labels=LABELS)
    removed = [f"layers.0.attention.{h}" for h in range(HEADS) if h not in heads]
    if removed:
        structure = {"removed": removed, "hard": {}, "neurons": NEURONS}
        notes = {"why": "the heads that W5 left", "removed": removed}
        body = PruneBlocks().rebuild(made.body, structure)
        made = made.with_body(body, PassRecord("prune-blocks", {}, notes, structure))
    fold = Fold()
    result = fold(made)
    record = PassRecord("fold", asdict(fold), result.notes, result.structure)
    bundle = made.with_body(result.body, record)
    rounded(bundle.module, "float16")
    return bundle


def main() -> None:
    from edgetk.core import registry
    from edgetk.toolkit.evaluate import evaluate, predictor

    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("weights", type=Path)
    made.add_argument("rows", type=Path, help="what wide_w1_w3.py found")
    made.add_argument("--heads", type=int, nargs="+", default=list(range(HEADS)), help="those that stay; default: all")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("-o", "--output", type=Path, default=Path("build/wide_ship"))
    args = made.parse_args()
    result = json.loads(args.rows.read_text())
    row = result["rows"][args.weights.stem]
    bundle = shipped(torch.load(args.weights, weights_only=True), args.heads)
    content = save_model(bundle, "float16")
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
        "heads": args.heads,
        "note": f"with all heads, in bfloat16 on the GPU: {row['test']['correct']} of {row['test']['n']} test answers",
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
    print(f"{len(content)} bytes, " + ", ".join(f"{k} {v}" for k, v in accuracy.items()))


if __name__ == "__main__":
    main()
