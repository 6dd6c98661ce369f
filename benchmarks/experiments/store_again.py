"""A trained file stored anew in smaller numbers, scored as it is then, with its card: how the int8 files that ship were made.

    python benchmarks/experiments/store_again.py FILE.safetensors --store int8 --data FOLDER -o FOLDER [--name NAME]

FILE has its card beside it, whose recipe and training the new card keeps. The accuracies are those of the stored weights, on
this machine; the card's figures before are kept as `accuracy_before`, with how they were stored.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgetk.core import registry
from edgetk.core.bundle import Bundle
from edgetk.toolkit import stored
from edgetk.toolkit.card import card
from edgetk.toolkit.checkpoint import load_model, save_model
from edgetk.toolkit.evaluate import evaluate, predictor


def again(bundle: Bundle, store: stored.Store) -> tuple[Bundle, bytes]:
    """The bundle with the weights it will have, and its file."""
    stored.check(store, bundle.module, bundle.name)
    content = save_model(bundle, store)
    stored.rounded(bundle.module, store)
    return bundle, content


def about(bundle: Bundle, content: bytes, before: dict[str, Any], accuracy: dict[str, Any], store: str) -> dict[str, Any]:
    """The new card: everything of the old one but what the file itself changes."""
    training = {**before["training"], "accuracy_before": before["accuracy"], "stored": store}
    return card(bundle, f"{bundle.name}.safetensors", content, before["data"], accuracy, before["recipe"], training)


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("weights", type=Path)
    made.add_argument("--store", choices=stored.STORES, default="int8")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--name", help="of the new file and model; default: as it is")
    made.add_argument("--splits", nargs="+", default=["validation", "test"])
    made.add_argument("-o", "--output", type=Path, required=True)
    args = made.parse_args()
    before = json.loads(args.weights.with_suffix(".json").read_text())
    bundle = load_model(args.weights)
    bundle, content = again(replace(bundle, name=args.name or bundle.name), args.store)
    data = registry.load("task", bundle.task).open(args.data)
    predict = predictor(bundle)
    accuracy = {split: evaluate(predict, bundle.task, data, split, official_only=split == "test") for split in args.splits}
    official = data.split("test").official
    if official is not None and not bool(official.all()):
        accuracy["test_all"] = evaluate(predict, bundle.task, data, "test", official_only=False)
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / f"{bundle.name}.safetensors").write_bytes(content)
    text = json.dumps(about(bundle, content, before, accuracy, args.store), indent=1, ensure_ascii=False)
    (args.output / f"{bundle.name}.json").write_text(text + "\n", encoding="utf-8")
    print(f"{len(content)} bytes, " + ", ".join(f"{k} {v}" for k, v in accuracy.items()))


if __name__ == "__main__":
    main()
