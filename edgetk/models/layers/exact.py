"""Weights on power-of-two grids, so that sums of them are exact in float32 and no kernel's summation order shows.

A spiking layer adds up the weights of the inputs that fired, and a threshold turns a difference in the last bit into another
spike. Where all weights of a row are multiples of 2^-e and the sum of their magnitudes stays below 2^24 * 2^-e, every partial
sum is a float32 number: any order, any batch size, any runtime gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgetk.models.layers import sparse_pattern
from edgetk.models.layers.qdq import dequantize_weight
from edgetk.models.layers.quantized import QuantLinear

#: bits of a float32 significand
SIGNIFICAND = 24
#: finest step that float16, in which weights are stored, can hold
FINEST = 24
#: rounding weights to half precision may lengthen a row's sum by this share
ROOM = 1.01


@torch.no_grad()
def put_on_grid(layers: Sequence[nn.Module], largest: float = 1.0, step: float = 1.0) -> None:
    """Round weights and biases of linear and integer linear layers, in place, so that the sum of all their outputs is exact.

    The layers share their rows: output c of the sum is the sum of every layer's output c. Their inputs are multiples of `step`
    (a power of two) of at most `largest` in magnitude; the defaults are those of spikes. Integer rows are on a grid already
    where their scales are powers of two; a row whose grid is too fine for the sum gets a coarser one. Calling it twice changes
    nothing.
    """
    plain = [layer for layer in layers if isinstance(layer, nn.Linear | QuantLinear)]
    if not plain:
        return
    biases = [layer.bias.double() for layer in plain if layer.bias is not None]
    total = torch.stack([_weight(layer).abs().sum(1) * largest for layer in plain] + [b.abs() for b in biases]).sum(0)
    room = SIGNIFICAND + math.log2(step)
    exponent = (room - torch.log2(total.clamp_min(2.0**-FINEST) * ROOM)).floor().clamp(max=FINEST)
    scale = torch.exp2(exponent)
    for layer in plain:
        if isinstance(layer, QuantLinear):
            coarser = torch.maximum(layer.scale, (1 / scale).float())
            layer.weight.copy_((layer.weight * (layer.scale / coarser)[:, None]).round())
            layer.scale.copy_(coarser)
        else:
            layer.weight.copy_(_rounded(layer.weight, scale[:, None]))
        if layer.bias is not None:
            layer.bias.copy_(_rounded(layer.bias, scale))


def settle(body: nn.Module) -> None:
    """Let a module with a method `settle` put its weights back into the form it computes in, after they were changed.

    Layers that keep to an N:M pattern are put back into it before.
    """
    sparse_pattern.project(body)
    own = getattr(body, "settle", None)
    if own is not None:
        own()


def _weight(layer: nn.Linear | QuantLinear) -> Tensor:
    return (dequantize_weight(layer.weight, layer.scale) if isinstance(layer, QuantLinear) else layer.weight).double()


def _rounded(x: Tensor, scale: Tensor) -> Tensor:
    return ((x.double() * scale).round() / scale).float()
