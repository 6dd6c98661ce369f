"""EcoFormer's attention: queries and keys are the same binary codes, so its cost grows with the tokens and not their square.

Source: Liu et al., NeurIPS 2022, arXiv:2209.09004, and the authors' code; the codes are `kernel_hash`'s, the products
`binary_attention`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from edgetk.models.layers.attention import Grid, merge_heads, split_heads
from edgetk.models.layers.binary_attention import Numerator, binary_linear_attention
from edgetk.models.layers.hash_learning import Learned
from edgetk.models.layers.kernel_hash import ANCHORS, BITS, KernelHash, Sigma
from edgetk.models.layers.precision import no_autocast


class HashedAttention(nn.Module):
    """x (B, N, C) -> (B, N, C); `to_qk` makes what is hashed, `to_v` the values. No scaling, no mask."""

    def __init__(
        self,
        dim: int,
        heads: int,
        bits: int = BITS,
        anchors: int = ANCHORS,
        numerator: Numerator = "own_token",
        sigma: Sigma = "sample",
        who: str = "hashed attention",
    ) -> None:
        super().__init__()
        self.heads = heads
        self.numerator: Numerator = numerator
        self.to_qk = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.hash = KernelHash(heads, dim // heads, bits, anchors, sigma, who)

    def codes(self, x: Tensor) -> Tensor:
        """The codes (B, H, N, b) of tokens x (B, N, C)."""
        codes: Tensor = self.hash(split_heads(self.to_qk(x), self.heads))
        return codes

    def forward(self, x: Tensor, grid: Grid | None = None) -> Tensor:
        v = split_heads(self.to_v(x), self.heads)
        y: Tensor = self.proj(merge_heads(binary_linear_attention(self.codes(x), v, self.numerator)))
        return y

    @torch.no_grad()
    def learn(self, x: Tensor, generator: torch.Generator | None = None) -> Learned:
        """Learn the hash from the tokens x (B, N, C) of one batch. Raises InputError as `KernelHash.learn`."""
        return self.hash.learn(split_heads(self.to_qk(x), self.heads), generator)


@torch.no_grad()
def learn_hashes(net: nn.Module, x: Tensor, generator: torch.Generator | None = None) -> tuple[str, ...]:
    """Learn every hash of `net` that is not learned yet from one batch x of its inputs, and name the layers.

    Layer by layer in the order of the forward pass, so that each learns from what the learned ones before it give, as in
    the published training at its first mini-batch. It runs in evaluation mode and in float32; a second call does nothing.
    """
    waiting = {name: m for name, m in net.named_modules() if isinstance(m, HashedAttention) and m.hash.state != "learned"}

    def learn(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, HashedAttention) and layer.hash.state != "learned":  # a shared layer comes by more than once
            layer.learn(inputs[0], generator)

    if waiting:
        _run(net, x, waiting.values(), learn)
    return tuple(waiting)


@torch.no_grad()
def freeze_sigma(net: nn.Module, x: Tensor) -> None:
    """From now on every hash of `net` uses the mean of the sigmas that the inputs x of one batch give, layer by layer."""

    def freeze(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if isinstance(layer, HashedAttention):
            layer.hash.freeze_sigma(split_heads(layer.to_qk(inputs[0]), layer.heads))

    _run(net, x, [m for m in net.modules() if isinstance(m, HashedAttention)], freeze)


def _run(
    net: nn.Module, x: Tensor, layers: Iterable[nn.Module], before: Callable[[nn.Module, tuple[Tensor, ...]], None]
) -> None:
    """One forward pass in evaluation mode and float32, with `before` called on each of `layers` and its inputs."""
    handles = [layer.register_forward_pre_hook(before) for layer in layers]
    modes = [(m, m.training) for m in net.modules()]
    net.eval()
    try:
        with no_autocast(x):
            getattr(net, "clip", net)(x)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
