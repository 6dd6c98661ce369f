"""Multiplications and additions of a network by layers, and their energy, as the EcoFormer paper counts them.

Source: the authors' counting code (EcoFormer, arXiv:2209.09004); energies of float32 operations at 45 nm: Horowitz, ISSCC
2014, fig. 1.1.9. For comparing attentions with each other and with published tables only: exponentials, divisions, the
vectors' lengths and all traffic with memory cost nothing here. `edgetk.targets.op_energy` prices exported graphs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgetk.models.layers.attention import ReducedAttention, SoftmaxAttention
from edgetk.models.layers.hashed_attention import HashedAttention

MULTIPLICATION_J = 3.7e-12
ADDITION_J = 0.9e-12


@dataclass(frozen=True)
class Operations:
    """`base` is what linear layers, convolutions and norms multiply and add; `muls` and `adds` hold it and the attention's.

    `distance_muls` are multiplications of hashed attention that the published count leaves out: z a^T in |z - a|^2.
    """

    base: int = 0
    muls: int = 0
    adds: int = 0
    distance_muls: int = 0

    def __add__(self, other: Operations) -> Operations:
        return Operations(
            self.base + other.base,
            self.muls + other.muls,
            self.adds + other.adds,
            self.distance_muls + other.distance_muls,
        )

    def __mul__(self, times: int) -> Operations:
        return Operations(self.base * times, self.muls * times, self.adds * times, self.distance_muls * times)

    def joules(self, distances: bool = False) -> float:
        """Energy by the 45 nm table; with `distances` the multiplications that the published count leaves out as well."""
        return MULTIPLICATION_J * (self.muls + self.distance_muls * distances) + ADDITION_J * self.adds


def softmax_operations(tokens: int, keys: int, dim: int, heads: int) -> Operations:
    """softmax(q k^T) v of one sample, and the scaling of its weights."""
    products = 2 * tokens * keys * dim
    return Operations(muls=products + heads * tokens * keys, adds=products)


def hashed_operations(tokens: int, dim: int, heads: int, bits: int, anchors: int) -> Operations:
    """Hashing of one sample and linear attention on its codes, whose products are additions."""
    rows, d = heads * tokens, dim // heads
    codes = rows * anchors * bits
    return Operations(
        muls=2 * rows * anchors + codes + rows * bits + rows + rows * d,
        adds=2 * rows * anchors * d + codes + 2 * rows * bits + 2 * rows * bits * d + rows * d,
        distance_muls=rows * anchors * d,
    )


def count_operations(net: nn.Module, x: Tensor) -> Operations:
    """All that `net` does for the inputs x; on the device "meta" nothing is computed.

    Sees `nn.Linear`, `nn.Conv2d`, `nn.LayerNorm` and the attentions of this package. Activations, sums of branches and
    pooling cost nothing.
    """
    found = []

    def see(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if (seen := _operations(layer, inputs, output)) is not None:
            found.append(seen)

    handles = [m.register_forward_hook(see) for m in net.modules()]
    try:
        with torch.no_grad():
            getattr(net, "clip", net)(x)
    finally:
        for handle in handles:
            handle.remove()
    return sum(found, Operations())


def _operations(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Operations | None:
    base = _base(layer, inputs[0], output)
    if base is not None:
        return Operations(base, base, base)
    if not isinstance(layer, SoftmaxAttention | ReducedAttention | HashedAttention):
        return None
    batch, tokens, dim = output.shape
    if isinstance(layer, HashedAttention):
        _, bits, anchors = layer.hash.A.shape
        return hashed_operations(tokens, dim, layer.heads, bits, anchors) * batch
    keys = tokens
    if isinstance(layer, ReducedAttention):
        keys = math.prod(size // layer.reduction for size in inputs[1])
    return softmax_operations(tokens, keys, layer.heads * layer.width, layer.heads) * batch


def _base(layer: nn.Module, x: Any, y: Tensor) -> int | None:
    if isinstance(layer, nn.Linear):
        return int(x.numel() * layer.out_features)
    if isinstance(layer, nn.Conv2d):
        taps = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
        return y.numel() * (taps + (layer.bias is not None))
    return 2 * y.numel() if isinstance(layer, nn.LayerNorm) else None
