"""Memory layers: tables of learned rows in the place of a matrix, with float tables to train and with int8 tables to run.

Source: MemoryFormer, Ding et al., NeurIPS 2024, arXiv:2411.12992, eq. 4 to 8; the bias is the authors' code's. A token
x in R^d, d = K tau, is cut into K sub-vectors z_k; each names a row of its own table by its signs:

    y = b + sum_k w(z_k) T_k[h(z_k)],        T_k in R^(2^tau x h)

Queries, keys and values of one input are one layer with outputs of three times the width: rows and weights are found once.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.errors import UsageError
from edgetk.models.layers import memory_hash, operators
from edgetk.models.layers.memory_hash import FRACTION_BITS, Weighting
from edgetk.models.layers.memory_lookup import gathered, lookup
from edgetk.models.layers.precision import at_least_float32, no_autocast

#: size of fresh table entries in the authors' code
STD = 0.02


class Hashed(nn.Module):
    """What both kinds of memory layer have in common: sizes, the hash, and an input that may be shifted and scaled first.

    x (…, in) -> (…, out). `centred` adds x -> gain * (x - shift) per coordinate in front of the hash, for inputs that no norm
    has made zero on average.
    """

    #: a rounding on the other side of a sign picks another row: `edgetk.export.parity` allows for it
    hashed = True

    def __init__(self, inputs: int, outputs: int, bits: int, weighting: Weighting, temperature: float, who: str) -> None:
        super().__init__()
        memory_hash.check(who, bits, weighting, temperature)
        if inputs < 1 or outputs < 1 or inputs % bits:
            raise UsageError(
                f"{who}: inputs must be a multiple of the hash's {bits} bits, and outputs at least 1, "
                f"got {inputs} and {outputs}; change one of them"
            )
        self.in_features, self.out_features, self.bits = inputs, outputs, bits
        self.weighting: Weighting = weighting
        self.temperature = temperature
        self.shift: Tensor | None
        self.gain: Tensor | None

    @property
    def count(self) -> int:
        """How many tables there are."""
        return self.in_features // self.bits

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of all tables together: (K, 2^tau, h)."""
        return self.count, 2**self.bits, self.out_features

    def centre(self, x: Tensor) -> Tensor:
        """What is hashed, in float32 at least."""
        x = at_least_float32(x)
        return x if self.shift is None or self.gain is None else (x - self.shift) * self.gain

    def rows(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Row (…, K) int64 and weight (…, K) of every table for tokens x (…, in)."""
        with no_autocast(x):
            z = memory_hash.split(self.centre(x), self.bits)
            return memory_hash.row(z), memory_hash.weigh(z, self.weighting, self.temperature)

    def node(self, name: str, x: Tensor, *constants: Tensor) -> Tensor:
        """The layer as one operator of an exported graph."""
        z = self.centre(x)
        attributes = {
            "weighting": self.weighting,
            "temperature": float(self.temperature),
            "powers": [2.0**i for i in range(self.bits)],
            "offsets": [2**self.bits * k for k in range(self.count)],
        }
        like = z.new_empty(*z.shape[:-1], self.out_features)
        return operators.node(name, (z, *constants), like, **attributes)

    def macs(self) -> int:
        """Multiply-accumulates of a token as the paper counts them: K (tau + h)."""
        return self.count * (self.bits + self.out_features)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bits={self.bits}, weight={self.weighting}"


class MemoryLayer(Hashed):
    """Tables in float32, to be trained.

    std     size of fresh entries; None: as many as give outputs of variance one for inputs of N(0, 1)
    sparse  the tables' gradient is a sparse tensor of the rows that were read
    """

    #: parameters that training may give a rate of their own, and does not shrink: most of their rows have no gradient in a step
    tables_of = ("tables",)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bits: int = 8,
        weighting: Weighting = "p",
        temperature: float = 1.0,
        std: float | None = STD,
        centred: bool = False,
        sparse: bool = False,
        who: str = "memory layer",
    ) -> None:
        super().__init__(inputs, outputs, bits, weighting, temperature, who)
        self.sparse = sparse
        if std is None:
            std = 1 / math.sqrt(self.count * memory_hash.second_moment(weighting, bits, temperature))
        self.tables = nn.Parameter(torch.randn(self.shape) * std)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.shift = nn.Parameter(torch.zeros(inputs)) if centred else None
        self.gain = nn.Parameter(torch.ones(inputs)) if centred else None

    def forward(self, x: Tensor) -> Tensor:
        if operators.wanted():
            return self.node("LookupLinearFloat", x, self.tables, self.bias)
        index, weight = self.rows(x)
        with no_autocast(x):
            if torch.onnx.is_in_onnx_export():
                return gathered(index, weight, self.tables) + self.bias
            return lookup(index, weight, self.tables, self.sparse) + self.bias


class QuantMemoryLayer(Hashed):
    """Tables of int8 with a scale per output column, and weights of 16 bits: sums are exact integers, in any order.

    `weight` (K, 2^tau, h) int8, `scale` and `bias` (h,) float32. In an exported graph it is one operator,
    `edgetk::LookupLinear`. Raises UsageError where int32 could overflow.
    """

    integer = True

    def __init__(
        self,
        inputs: int,
        outputs: int,
        bits: int,
        weighting: Weighting = "p",
        temperature: float = 1.0,
        centred: bool = False,
        who: str = "memory layer",
    ) -> None:
        super().__init__(inputs, outputs, bits, weighting, temperature, who)
        most = memory_hash.most_tables(weighting)
        if self.count > most:
            raise UsageError(
                f"{who}: int8 tables must be at most {most}, or sums leave int32, got {self.count}; "
                "use more bits for each, or keep them float"
            )
        self.register_buffer("weight", torch.zeros(self.shape, dtype=torch.int8))
        self.register_buffer("scale", torch.ones(outputs))
        self.register_buffer("bias", torch.zeros(outputs))
        self.register_buffer("shift", torch.zeros(inputs) if centred else None)
        self.register_buffer("gain", torch.ones(inputs) if centred else None)
        self.weight: Tensor
        self.scale: Tensor
        self.bias: Tensor

    @classmethod
    def like(cls, layer: Hashed) -> QuantMemoryLayer:
        """An empty one of the sizes of `layer`."""
        centred = layer.shift is not None
        return cls(layer.in_features, layer.out_features, layer.bits, layer.weighting, layer.temperature, centred)

    @classmethod
    @torch.no_grad()
    def of(cls, layer: MemoryLayer) -> QuantMemoryLayer:
        """`layer` with each output column's largest entry at code 127."""
        made = cls.like(layer)
        codes, scale = column_codes(layer.tables)
        made.weight.copy_(codes)
        made.scale.copy_(scale)
        made.bias.copy_(layer.bias)
        if layer.shift is not None and layer.gain is not None and made.shift is not None and made.gain is not None:
            made.shift.copy_(layer.shift)
            made.gain.copy_(layer.gain)
        return made.to(layer.tables.device)

    def codes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Row (…, K) and weight as a code (…, K), whole numbers in a floating type, for tokens x (…, in)."""
        index, weight = self.rows(x)
        return index, memory_hash.fixed_point(weight, self.weighting)

    def forward(self, x: Tensor) -> Tensor:
        if operators.wanted():
            return self.node("LookupLinear", x, self.weight, self.scale, self.bias)
        index, codes = self.codes(x)
        factor = self.scale * 2.0 ** -FRACTION_BITS[self.weighting]
        if torch.onnx.is_in_onnx_export():  # written out for stacks without functions
            return gathered(index, codes, self.weight.float()) * factor + self.bias
        height = self.shape[1]
        flat = (index + height * torch.arange(self.count, device=x.device)).reshape(-1, self.count)
        # double precision holds every sum that int32 does
        table = self.weight.flatten(0, 1).double()
        total = F.embedding_bag(flat, table, mode="sum", per_sample_weights=codes.double().reshape(-1, self.count))
        return total.view(*index.shape[:-1], -1).float() * factor + self.bias


def column_codes(tables: Tensor) -> tuple[Tensor, Tensor]:
    """Tables (K, R, h) as int8 codes and a scale (h,) per output column, symmetric: the largest entry gets 127."""
    largest = tables.abs().amax((0, 1)).clamp_min(torch.finfo(torch.float32).tiny)
    scale = largest / 127
    return torch.clamp(torch.round(tables / scale), -127, 127).to(torch.int8), scale


__all__ = ["STD", "Hashed", "MemoryLayer", "QuantMemoryLayer", "column_codes"]
