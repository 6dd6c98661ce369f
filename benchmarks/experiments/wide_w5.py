"""Which heads of a wide single layer does its task need? Removed one after the other, exactly, and for good.

    python benchmarks/experiments/wide_w5.py REVIEWS.npz WEIGHTS.pt [-o benchmarks/results/wide_w5.json]

REVIEWS.npz and WEIGHTS.pt are those of wide_w1_w3.py (1x16 on bytes). Needs torch and numpy only.

In one layer a head's part of the output depends on no other head: what each adds to the class token is computed once, and any
set of heads is then a sum, followed by the feed-forward network and the decision. So nothing has to be aligned again after a
head is gone, unlike in a deep encoder, and a search tries thousands of sets in seconds.

alone       how the mean loss on validation changes without each head
backwards   heads removed one by one, always the one whose removal leaves the smallest mean loss on validation (AxFormer,
            arXiv:2010.03688, orders by place instead: there is one place here); mean loss and right answers at each number
modes       the fewest heads whose loss is at most that of all heads ("accuracy"), and 1 and 2 % above it ("size"); against 20
            random sets of as many heads; deleted physically: parameters, multiply-accumulates, and the largest difference of
            any output from the sum that left them out

Validation chooses; the test part is scored for what was chosen.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
from wide_w1_w3 import Reviews, batches, load

from edgetk.models.layers.elements import declared
from edgetk.models.layers.pooled_attention import PooledAttention
from edgetk.models.layers.removal import delete
from edgetk.models.wide import VARIANTS, Config, Layer, WideAttention, WideEncoder

ATTENTION = "layers.0.attention"
MODES = {"accuracy": 0.0, "size, loss +1 %": 0.01, "size, loss +2 %": 0.02}
DRAWS = 20


@dataclass(frozen=True)
class Parts:
    """The class token of each review (N, C) before attention, what each head adds to it (N, H, C), and labels (N,)."""

    start: Tensor
    heads: Tensor
    labels: Tensor


def layer_of(net: WideEncoder) -> tuple[Layer, WideAttention]:
    """The only layer, and its attention."""
    (layer,) = net.layers
    assert isinstance(layer, Layer)
    assert isinstance(layer.attention, WideAttention)
    return layer, layer.attention


@torch.no_grad()
def taken_apart(net: WideEncoder, reviews: Reviews, batch: int = 8) -> Parts:
    """What each head adds to the class token of each review."""
    _, attention = layer_of(net)
    weight = attention.proj.weight.view(net.config.dim, attention.heads, attention.width)
    folded: Any = copy.deepcopy(net)  # the same function, much cheaper
    folded.fold_norms()
    norm, pooled = folded.layers[0].attention_norm, folded.layers[0].attention
    assert isinstance(pooled, PooledAttention)
    order, starts, added = [], [], []
    for rows in batches(reviews.lengths, batch, None):
        longest = int(reviews.lengths[rows].max())
        index = torch.from_numpy(rows).to(reviews.tokens.device)
        states, real = net.steps()[0](reviews.tokens[index, :longest])
        mixed = pooled.read(norm(states), real).view(len(rows), attention.heads, attention.width)
        starts.append(states[:, 0].clone())  # a view would keep all tokens
        added.append(torch.einsum("nhd,chd->nhc", mixed, weight))
        order.append(index)
    place = torch.cat(order).argsort()
    return Parts(torch.cat(starts)[place], torch.cat(added)[place], reviews.labels)


@torch.no_grad()
def scores(net: WideEncoder, parts: Parts, heads: Sequence[int]) -> Tensor:
    """Class scores (N, K) with some of the heads only."""
    layer, _ = layer_of(net)
    y = parts.start + parts.heads[:, list(heads)].sum(1)
    y = y + layer.down(F.gelu(layer.up(layer.norm(y))))
    made: Tensor = net.head(torch.relu(net.hidden(net.norm(y))))
    return made


def loss(net: WideEncoder, parts: Parts, heads: Sequence[int]) -> float:
    return float(F.cross_entropy(scores(net, parts, heads), parts.labels))


def right(net: WideEncoder, parts: Parts, heads: Sequence[int]) -> int:
    return int((scores(net, parts, heads).argmax(1) == parts.labels).sum())


def backwards(net: WideEncoder, parts: Parts) -> list[tuple[tuple[int, ...], float]]:
    """Sets of heads from all to none, each with its mean loss."""
    left = tuple(range(parts.heads.shape[1]))
    found = [(left, loss(net, parts, left))]
    while left:
        smaller = [tuple(x for x in left if x != h) for h in left]
        best, left = min((loss(net, parts, kept), kept) for kept in smaller)
        found.append((left, best))
    return found


@torch.no_grad()
def deleted(net: WideEncoder, heads: Sequence[int], parts: Parts, reviews: Reviews) -> dict[str, Any]:
    """The network without the other heads, for good: its size, its work, its distance from the sum that leaves them out."""
    smaller, blocks = copy.deepcopy(net), declared(net)
    block = next(b for b in blocks if b.name == ATTENTION)
    gone = [part for part in block.parts if part.first // layer_of(net)[1].width not in heads]
    delete(smaller, blocks, [part.name for part in gone])
    sample = slice(0, 64)
    gap = (smaller(reviews.tokens[sample]) - scores(net, parts, heads)[sample]).abs().max()
    return {
        "parameters": sum(p.numel() for p in smaller.parameters()),
        "macs_less": sum(part.macs for part in gone),
        "largest_difference": float(gap),
    }


def study(net: WideEncoder, validation: Reviews, test: Reviews) -> dict[str, Any]:
    """All of it, as plain data."""
    judge, final = taken_apart(net, validation), taken_apart(net, test)
    every = tuple(range(judge.heads.shape[1]))
    whole = loss(net, judge, every)
    path = backwards(net, judge)
    random = np.random.default_rng(0)
    modes = {}
    for name, more in MODES.items():
        kept, at = min(((k, v) for k, v in path if v <= whole * (1 + more)), key=lambda pair: len(pair[0]))
        draws = [tuple(random.choice(len(every), len(kept), replace=False).tolist()) for _ in range(DRAWS)]
        modes[name] = {
            "heads": list(kept),
            "validation_loss": at,
            "validation_right": right(net, judge, kept),
            "test_right": right(net, final, kept),
            "random_test_right": sorted(right(net, final, heads) for heads in draws),
            **deleted(net, kept, judge, validation),
        }
    return {
        "whole": {
            "heads": len(every),
            "parameters": sum(p.numel() for p in net.parameters()),
            "macs": sum(block.macs for block in declared(net)) + net.hidden.weight.numel() + net.head.weight.numel(),
            "validation_loss": whole,
            "validation_right": right(net, judge, every),
            "test_right": right(net, final, every),
        },
        "n": {"validation": len(judge.labels), "test": len(final.labels)},
        "alone": [loss(net, judge, [x for x in every if x != h]) - whole for h in every],
        "backwards": [
            {
                "heads": list(k),
                "validation_loss": v,
                "validation_right": right(net, judge, k),
                "test_right": right(net, final, k),
            }
            for k, v in path
        ],
        "modes": modes,
    }


def main() -> None:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("reviews", type=Path)
    made.add_argument("weights", type=Path)
    made.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/wide_w5.json"))
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--limit", type=int, help="so many reviews of each split, to try it out")
    args = made.parse_args()
    config: Config = VARIANTS["1x16"]
    net = WideEncoder(config).eval()
    net.load_state_dict({k: v.float() for k, v in torch.load(args.weights, weights_only=True).items()})
    net.to(args.device)
    parts = [load(args.reviews, split, config.length, args.device, args.limit) for split in ("validation", "test")]
    report = {
        "what": __doc__,
        "conditions": {
            "weights": args.weights.name,
            "device": torch.cuda.get_device_name() if args.device == "cuda" else platform.machine(),
            "torch": torch.__version__,
            "precision": "float32",
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        **study(net, *parts),
    }
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for name, mode in report["modes"].items():
        print(f"{name}: {len(mode['heads'])} heads, {mode['parameters']} parameters, {mode['test_right']} right", flush=True)


if __name__ == "__main__":
    main()
