"""What a MemoryFormer block costs, by the paper's formulas: table entries, bytes, multiply-accumulates.

Source: MemoryFormer, arXiv:2411.12992, section 3.3 and tables 1 to 5. Its "FLOPs" are multiply-accumulates, over a sequence of
s tokens of width d = K tau, with e extra bits between the two feed-forward layers.
"""

from __future__ import annotations


def attention_macs(tokens: int, dim: int) -> int:
    """Scores and sums of values: 2 s^2 d."""
    return 2 * tokens**2 * dim


def dense_macs(tokens: int, dim: int) -> int:
    """All matrices of a dense block, without attention: 12 s d^2."""
    return 12 * tokens * dim**2


def rounded_memory_macs(tokens: int, dim: int, tables: int) -> int:
    """The six layers of a memory block as the paper rounds them, without attention: 6 K s d."""
    return 6 * tables * tokens * dim


def memory_macs(tokens: int, dim: int, bits: int, extra: int) -> int:
    """The same counted in full: K (tau + h) a layer, the hash of queries, keys and values counted three times."""
    tables = dim // bits
    hidden = tables * (bits + extra)
    qkv = 3 * (bits + dim)
    return tokens * tables * (qkv + bits + hidden + bits + extra + dim)


def feed_forward_entries(dim: int, bits: int, extra: int) -> int:
    """Table entries of the two feed-forward layers."""
    tables = dim // bits
    return tables * (1 << bits) * tables * (bits + extra) + tables * (1 << (bits + extra)) * dim


def table_entries(dim: int, bits: int, extra: int) -> int:
    """Table entries of a whole block."""
    return 3 * (dim // bits) * (1 << bits) * dim + feed_forward_entries(dim, bits, extra)


def bytes_read(dim: int, bits: int, extra: int, entry_bytes: int) -> int:
    """What a token reads of a block's tables: one row of each."""
    tables = dim // bits
    return tables * (3 * dim + tables * (bits + extra) + dim) * entry_bytes


__all__ = [
    "attention_macs", "bytes_read", "dense_macs", "feed_forward_entries", "memory_macs", "rounded_memory_macs", "table_entries",
]  # fmt: skip
