"""What a MemoryFormer can lose: attentions and feed-forward networks whole; dense blocks their heads and neurons as well."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgetk.models._memoryformer_costs import attention_macs
from edgetk.models._memoryformer_parts import DenseBlock, MemoryBlock
from edgetk.models.layers import elements
from edgetk.models.layers.elements import Block, plain
from edgetk.models.layers.groups import Group, rows
from edgetk.models.layers.memory_layer import MemoryLayer

if TYPE_CHECKING:
    from edgetk.models.memoryformer import MemoryFormer


def declared(net: MemoryFormer, neurons: int) -> tuple[Block, ...]:
    """In order of computation; a sum that goes takes its norms along.

    Tables go whole: a hash reads all of its bits, and no projection behind the heads of their attention could lose columns.
    """
    tokens = net.config.length // net.config.patch
    found: list[Block] = []
    for i, block in enumerate(net.blocks):
        made = _of_tables if isinstance(block, MemoryBlock) else _of_matrices
        found += made(net, f"blocks.{i}", block, i + 1, tokens, neurons)
    return tuple(found)


def _of_tables(net: MemoryFormer, path: str, block: Any, step: int, tokens: int, _: int) -> list[Block]:
    found = []
    for kind, norms, layers, products in (
        ("attention", ("norm1",), ("qkv",), attention_macs(tokens, net.config.dim)),
        ("ffn", ("norm2", "norm3"), ("expand", "reduce"), 0),
    ):
        tables = [getattr(block, name) for name in layers]
        if all(type(layer) is MemoryLayer for layer in tables):
            away = [f"{path}.{name}" for name in (*norms, *layers)]
            macs = tokens * sum(layer.macs() for layer in tables) + products  # not one for each entry of the tables
            found.append(replace(elements.block(net, f"{path}.{kind}", kind, step, paths=away), macs=macs))
    return found


def _of_matrices(net: MemoryFormer, path: str, block: Any, step: int, tokens: int, neurons: int) -> list[Block]:
    assert isinstance(block, DenseBlock)
    found = []
    if plain(block, "qkv", "proj"):
        size = block.proj.in_features
        group = Group(f"{path}.attention", size, rows(f"{path}.qkv", block.qkv, 3), f"{path}.proj")
        away = [f"{path}.{name}" for name in ("norm1", "qkv", "proj")]
        products, bias = attention_macs(tokens, size), f"{path}.proj.bias"
        found.append(elements.block(net, group.name, "attention", step, group, block.width, tokens, products, away, bias))
    if plain(block, "expand", "reduce"):
        (group,) = [g for g in net.groups() if g.name == f"{path}.ffn"]
        away = [f"{path}.{name}" for name in ("norm2", "expand", "reduce")]
        found.append(elements.block(net, group.name, "ffn", step, group, neurons, tokens, 0, away, f"{path}.reduce.bias"))
    return found


__all__ = ["declared"]
