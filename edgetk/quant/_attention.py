"""Softmax attention of any module, found by what it declares, and turned into plain or binary attention with its weights.

A module is attention where it has `heads` (or `num_heads`), an output layer `proj`, and its projections as one of

    qkv              one layer whose outputs are queries, keys and values, in this order
    to_q, to_k, to_v three layers
    q, kv            queries of all tokens, keys and values of fewer (reduced attention): what reduces them is left out

all of them `nn.Linear`, from and to the same width, and where `forward(x)` or `forward(x, grid)` maps tokens (B, N, C) to the
same shape: no mask, and (but for reduced attention) no parameters beside those layers, such as position biases.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn

from edgetk.models.layers.attention import SoftmaxAttention
from edgetk.models.layers.hashed_attention import HashedAttention

#: the layers in front of `proj`, with the multiple of the width that each one gives
LAYOUTS: Final[Mapping[str, Mapping[str, int]]] = {
    "fused": {"qkv": 3},
    "separate": {"to_q": 1, "to_k": 1, "to_v": 1},
    "reduced": {"q": 1, "kv": 2},
}


def find(body: nn.Module) -> tuple[dict[str, str], dict[str, str]]:
    """Attention inside `body`: name -> layout, and for what only looks like it: name -> why it is none."""
    plain: dict[str, str] = {}
    strange: dict[str, str] = {}
    for name, module in body.named_modules():
        layout = _layout(module)
        if layout is None or not name:
            continue
        reason = _objection(module, layout)
        if reason is None:
            plain[name] = layout
        else:
            strange[name] = reason
    return plain, strange


def heads(module: nn.Module) -> int | None:
    """Number of heads that a module declares."""
    number = getattr(module, "heads", getattr(module, "num_heads", None))
    return number if isinstance(number, int) and number > 0 else None


def to_softmax(module: nn.Module, layout: str) -> SoftmaxAttention:
    """Softmax attention over all tokens with a module's projections: for reduced attention, without the reduction."""
    parts = _projections(module, layout)
    made = SoftmaxAttention(parts["proj"][0].shape[0], _heads(module))
    for kind in range(2):
        _set(made.qkv, kind, torch.cat([parts[part][kind] for part in ("q", "k", "v")]))
        _set(made.proj, kind, parts["proj"][kind])
    return made.to(parts["proj"][0].device)


def to_hashed(module: nn.Module, layout: str, options: Mapping[str, Any]) -> HashedAttention:
    """Binary attention with a module's projections of queries, values and outputs; its hash is yet to be learned.

    Source: EcoFormer, arXiv:2209.09004, and the authors' code: the keys' projection is dropped.
    """
    parts = _projections(module, layout)
    made = HashedAttention(parts["proj"][0].shape[0], _heads(module), **options)
    for kind in range(2):
        _set(made.to_qk, kind, parts["q"][kind])
        _set(made.to_v, kind, parts["v"][kind])
        _set(made.proj, kind, parts["proj"][kind])
    return made.to(parts["proj"][0].device)


def _layout(module: nn.Module) -> str | None:
    children = dict(module.named_children())
    return next((name for name, parts in LAYOUTS.items() if {*parts, "proj"} <= children.keys()), None)


def _objection(module: nn.Module, layout: str) -> str | None:
    """Why a module with these layers is not plain attention; None where it is."""
    layers = {**LAYOUTS[layout], "proj": 1}
    for part in layers:
        if type(child := getattr(module, part)) is not nn.Linear:
            return f"its {part} is {type(child).__name__}, not nn.Linear"
    width = _layer(module, "proj").in_features
    for part, multiple in layers.items():
        layer = _layer(module, part)
        if (layer.in_features, layer.out_features) != (width, multiple * width):
            return f"its {part} goes from {layer.in_features} to {layer.out_features}, not from {width} to {multiple * width}"
    number = heads(module)
    if number is None or width % number:
        return f"its heads must be a number that divides {width}, and it declares {number}"
    own = {f"{part}.{kind}" for part in layers for kind in ("weight", "bias")}
    others = [name for name, _ in module.named_parameters() if name not in own]
    if others and layout != "reduced":
        return f"it has the parameter {others[0]} beside its projections"
    arguments = list(inspect.signature(module.forward).parameters)
    if len(arguments) not in (1, 2) or arguments[1:] not in ([], ["grid"]):
        return f"its forward takes {', '.join(arguments)}, not x or x, grid"
    return None


def _projections(module: nn.Module, layout: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and bias (zeros where there is none) of "q", "k", "v" and "proj"."""

    def both(part: str) -> tuple[Tensor, Tensor]:
        layer = _layer(module, part)
        weight = layer.weight.detach()
        return weight, layer.bias.detach() if layer.bias is not None else weight.new_zeros(len(weight))

    made: dict[str, tuple[Tensor, Tensor]] = {"proj": both("proj")}
    stacked = [both(part) for part in LAYOUTS[layout]]
    weights, biases = (torch.cat([pair[kind] for pair in stacked]).chunk(3) for kind in range(2))
    return made | {part: (weights[i], biases[i]) for i, part in enumerate(("q", "k", "v"))}


def _layer(module: nn.Module, part: str) -> nn.Linear:
    layer = getattr(module, part)
    assert isinstance(layer, nn.Linear)
    return layer


def _heads(module: nn.Module) -> int:
    number = heads(module)
    assert number is not None
    return number


@torch.no_grad()
def _set(layer: nn.Linear, kind: int, value: Tensor) -> None:
    (layer.bias if kind else layer.weight).copy_(value)


__all__ = ["find", "heads", "to_hashed", "to_softmax"]
