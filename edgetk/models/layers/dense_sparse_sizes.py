"""Sizes of dense-sparse pairs: atoms, non-zeros and the bits that they take.

Source: DSFormer, Chand, Prabhu & Kumar 2023, arXiv:2312.13211; `edgetk.models.layers.dense_sparse` has the layout. Bits of a
file: b_D * short * r + lines * s * (b_S + index bits), with ceil(log2 r) index bits, or ceil(log2 (r / s)) where the atoms are
in s groups with one non-zero each.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from edgetk.core.errors import UsageError

Side = Literal["outputs", "inputs"]

#: bits of a float32
FLOAT = 32


@dataclass(frozen=True)
class Group:
    """The factorization of the matrices of `layers`, which read one input and share a dictionary, side by side as (n, m).

    short   length of the shorter axis, which the dictionary spans
    lines   length of the longer one: columns of S
    rank    r, atoms of the dictionary
    nonzeros  s, coefficients of a line
    grouped True: atoms lie in s groups of r / s, and a line has one of each
    """

    layers: tuple[str, ...]
    side: Side
    short: int
    lines: int
    rank: int
    nonzeros: int
    grouped: bool = False

    def __post_init__(self) -> None:
        if self.side not in get_args(Side):
            raise UsageError(f"dense-sparse: side must be outputs or inputs, got {self.side!r}; correct it")
        if not 1 <= self.nonzeros <= self.rank:
            raise UsageError(
                f"dense-sparse: non-zeros of a line must be in [1, rank], got {self.nonzeros} of {self.rank}; correct them"
            )
        if self.grouped and self.rank % self.nonzeros:
            raise UsageError(
                f"dense-sparse: groups need a rank that is a multiple of the non-zeros, got {self.rank} and {self.nonzeros}; "
                "correct them"
            )

    @property
    def index_bits(self) -> int:
        return index_bits(self.rank, self.nonzeros, self.grouped)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one input vector: n r + m s, or m r + n s."""
        return self.short * self.rank + self.lines * self.nonzeros

    def bits(self, dense: int = FLOAT, sparse: int = FLOAT, indices: bool = True) -> int:
        """Stored bits, without biases and scales; `dense` and `sparse` of one number, indices counted unless told otherwise."""
        each = sparse + (self.index_bits if indices else 0)
        return dense * self.short * self.rank + self.lines * self.nonzeros * each

    @property
    def scales(self) -> int:
        """How many scales int8 factors have: one for each line, and one for each output of the dense layer."""
        return self.lines + (self.rank if self.side == "outputs" else self.short)

    def ratio(self, indices: bool = True) -> float:
        """How many times fewer bits than the dense float32 matrix."""
        return FLOAT * self.short * self.lines / self.bits(indices=indices)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "layers": list(self.layers)}

    @classmethod
    def from_json(cls, data: Any) -> Group:
        return cls(**{**data, "layers": tuple(data["layers"])})


def index_bits(rank: int, nonzeros: int, grouped: bool = False) -> int:
    """Bits that name one atom of `rank`, or of its group."""
    return math.ceil(math.log2(rank // nonzeros if grouped else rank))


def most_nonzeros(short: int, lines: int, rank: int, ratio: float, grouped: bool = False) -> int:
    """The largest s within 1 / `ratio` of the dense float32 bits; 0 where the dictionary alone is too large."""
    left = FLOAT * short * lines / ratio - FLOAT * short * rank
    if not grouped:
        return max(0, min(rank, int(left / (lines * (FLOAT + index_bits(rank, 1))))))
    fits = [s for s in range(1, rank + 1) if rank % s == 0 and lines * s * (FLOAT + index_bits(rank, s, True)) <= left]
    return max(fits, default=0)


def svd_rank(n: int, m: int, ratio: float) -> int:
    """The rank of a plain pair with 1 / `ratio` of the weights of (n, m)."""
    return int(n * m / (ratio * (n + m)))


__all__ = ["FLOAT", "Group", "Side", "index_bits", "most_nonzeros", "svd_rank"]
