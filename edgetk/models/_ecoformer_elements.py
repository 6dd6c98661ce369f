"""What a pyramid transformer can lose: each block's attention, softmax ones by heads, and its MLP by groups of neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from edgetk.models._ecoformer_parts import Block as Pair
from edgetk.models.layers import elements
from edgetk.models.layers.attention import ReducedAttention, SoftmaxAttention
from edgetk.models.layers.elements import Block, gone, plain
from edgetk.models.layers.groups import Group, rows

if TYPE_CHECKING:
    from edgetk.models.ecoformer import PyramidTransformer


def declared(net: PyramidTransformer, neurons: int) -> tuple[Block, ...]:
    """In order of computation; a sum that goes takes its norm along. An attention on codes can only go whole."""
    found = []
    mlps = {group.name: group for group in net.groups()}
    for s, (tokens, stage) in enumerate(zip(net.grid_sizes(), net.stages, strict=True)):
        for b, pair in enumerate(stage.blocks):  # type: ignore[arg-type]
            assert isinstance(pair, Pair)
            path = f"stages.{s}.blocks.{b}"
            if not gone(pair.attention) and not isinstance(pair.attention, elements.Constant):
                found.append(_attention(net, path, pair.attention, s, tokens))
            name = f"{path}.mlp"
            if name in mlps:
                away = [f"{path}.norm2", name]
                made = elements.block(net, name, "ffn", s, mlps[name], neurons, tokens, 0, away, f"{name}.reduce.bias")
                found.append(made)
    return tuple(found)


def _attention(net: nn.Module, path: str, layer: nn.Module, stage: int, tokens: int) -> Block:
    name = f"{path}.attention"
    away = [f"{path}.norm1", name]
    if isinstance(layer, SoftmaxAttention) and plain(layer, "qkv", "proj"):
        group = Group(name, layer.proj.in_features, rows(f"{name}.qkv", layer.qkv, 3), f"{name}.proj")
        products = 2 * tokens * tokens * group.size
    elif isinstance(layer, ReducedAttention) and plain(layer, "q", "kv", "proj"):
        made = (*rows(f"{name}.q", layer.q), *rows(f"{name}.kv", layer.kv, 2))
        group = Group(name, layer.proj.in_features, made, f"{name}.proj")
        products = 2 * tokens * (tokens // layer.reduction**2) * group.size
    else:
        return elements.block(net, name, "attention", stage, runs=tokens, paths=away)
    return elements.block(net, name, "attention", stage, group, layer.width, tokens, products, away, f"{name}.proj.bias")


__all__ = ["declared"]
