"""Kernelized hash functions: unit vectors to codes in {-1, +1}^b by comparing kernel values with a few support vectors.

Source: EcoFormer, Liu et al., NeurIPS 2022, arXiv:2209.09004, and the authors' code; kernels as in Liu et al., CVPR 2012.
For a head with support vectors ("anchors") a_j, weights A (b, m) and mean kernel values mu (m,):

    D_nj = |z_n - a_j|^2,  sigma = mean of D over n and j,  kappa_nj = exp(-D_nj / (2 sigma)),  code_n = sign(A (kappa_n - mu))

sigma belongs to the sample: every token of it has a say in the code of each ("sample", as published). "frozen" takes the
mean over a calibration batch instead, so that a code depends on its token alone.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from edgetk.core.errors import InputError, PreconditionError, UsageError
from edgetk.models.layers.hash_learning import Learned, learn_bits, similarity_targets
from edgetk.models.layers.precision import at_least_float32, no_autocast

Sigma = Literal["sample", "frozen"]
SIGMAS: tuple[str, ...] = get_args(Sigma)
BITS = 16
ANCHORS = 25
#: values of `KernelHash.learned`
UNLEARNED, RANDOM, LEARNED = 0, 1, 2
STATES = ("unlearned", "random", "learned")
#: random directions that stand for data in a random hash, and their mean squared distance from each other
_SAMPLES, _RANDOM_SIGMA = 1024, 2.0


class _Sign(torch.autograd.Function):
    """sign(y) with the gradient of the identity where -1 < y < 1, and none elsewhere (clipped straight-through estimator)."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        return torch.sign(y)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        inside: Tensor = y.abs() < 1
        return grads[0] * inside


def sign(y: Tensor) -> Tensor:
    """sign(y), 0 at 0, with a clipped straight-through gradient."""
    if torch.is_grad_enabled() and y.requires_grad:
        return _Sign.apply(y)  # type: ignore[no-any-return, no-untyped-call]
    return torch.sign(y)


def unit(z: Tensor) -> Tensor:
    """z (…, d) with length 1. A vector of zeros stays one, where the published code gives NaN for its whole sample."""
    length = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
    y: Tensor = z / torch.where(length > 0, length, 1.0)
    return y


def squared_distances(z: Tensor, anchor: Tensor) -> Tensor:
    """|z_n - a_j|^2 for z (B, H, N, d) and anchor (1, H, m, d): (B, H, N, m)."""
    both = z.square().sum(-1, keepdim=True) + anchor.square().sum(-1)[..., None, :]
    return both - 2 * (z @ anchor.transpose(-2, -1))


class KernelHash(nn.Module):
    """Codes (B, H, N, b) of z (B, H, N, d), z of any length.

    Buffers, none of them trained by gradient: `A` (H, b, m), `mvec` (1, H, 1, m), `anchor` (1, H, m, d), with sigma "frozen"
    also `sigma` (1, H, 1, 1), and `learned`: 0 not yet, 1 random, 2 from data. It travels with the weights, so that
    evaluation never learns; a hash that is not learned refuses to work.
    """

    #: a response near zero may have another sign where sums are rounded otherwise: what `edgetk.export.parity` allows for
    hashed = True

    def __init__(
        self, heads: int, dim: int, bits: int = BITS, anchors: int = ANCHORS, sigma: Sigma = "sample", who: str = "hash"
    ) -> None:
        super().__init__()
        if sigma not in SIGMAS:
            raise UsageError(f"{who}: sigma must be one of {', '.join(SIGMAS)}, got {sigma!r}; correct it")
        self.who = who
        self.register_buffer("A", torch.randn(heads, bits, anchors))
        self.register_buffer("mvec", torch.zeros(1, heads, 1, anchors))
        self.register_buffer("anchor", torch.zeros(1, heads, anchors, dim))
        self.register_buffer("learned", torch.tensor(UNLEARNED, dtype=torch.uint8))
        self.register_buffer("sigma", torch.full((1, heads, 1, 1), _RANDOM_SIGMA) if sigma == "frozen" else None)
        self.A: Tensor
        self.mvec: Tensor
        self.anchor: Tensor
        self.learned: Tensor
        self.sigma: Tensor | None
        # the buffer on the host: looking at the buffer itself would stall a GPU at every step and break its graphs
        self._state = UNLEARNED

    @property
    def state(self) -> str:
        """ "unlearned", "random" or "learned"."""
        return STATES[self._state]

    def kernel(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel values (B, H, N, m) of unit vectors z (B, H, N, d), and the sigma they were made with (B or 1, H, 1, 1)."""
        distances = squared_distances(z, self.anchor)
        sigma = distances.mean(dim=(-2, -1), keepdim=True) if self.sigma is None else self.sigma
        return torch.exp(-distances / (2 * sigma)), sigma

    def response(self, z: Tensor) -> Tensor:
        """What the sign is taken of, (B, H, N, b), for z (B, H, N, d); in float32 at least, whatever the autocast."""
        with no_autocast(z):
            kernel, _ = self.kernel(unit(at_least_float32(z)))
            return (kernel - self.mvec) @ self.A.transpose(-2, -1)

    def forward(self, z: Tensor) -> Tensor:
        if self._state == UNLEARNED:
            raise PreconditionError(
                f"{self.who}: must be learned on data before it is used, got an unlearned hash; "
                "call learn_hashes with a batch of inputs, or load weights that hold learned hashes"
            )
        return sign(self.response(z))

    @torch.no_grad()
    def learn(self, z: Tensor, generator: torch.Generator | None = None) -> Learned:
        """Learn `anchor`, `mvec` and `A` from the vectors z (B, H, N, d) of one batch.

        Anchors are the vectors of the first sample at random positions (of a CPU `generator`), the same for all heads.
        Raises InputError for too few tokens and for vectors that have no direction.
        """
        heads, _, anchors = self.A.shape
        z = z.to(self.A.dtype)
        if z.dim() != 4 or z.shape[1] != heads or z.shape[-1] != self.anchor.shape[-1] or z.shape[2] < anchors:
            raise InputError(
                f"{self.who}: learning needs (B, {heads}, N, {self.anchor.shape[-1]}) with N >= {anchors}, "
                f"got {tuple(z.shape)}; use softmax attention where there are fewer tokens"
            )
        if not bool((torch.isfinite(z).all(-1) & (z != 0).any(-1)).all()):
            raise InputError(
                f"{self.who}: vectors to learn from must be finite and not all zeros, got some that are; "
                "use inputs that are not blank and weights that have not blown up"
            )
        z = unit(z)
        chosen = torch.randperm(z.shape[2], generator=generator)[:anchors].to(z.device)
        return self.learn_from(z, z[:1, :, chosen])

    @torch.no_grad()
    def learn_from(self, z: Tensor, anchor: Tensor) -> Learned:
        """The same from unit vectors z (B, H, N, d) with given anchors (1, H, m, d)."""
        with no_autocast(z):
            self.anchor.copy_(anchor)
            if self.sigma is not None:
                self.sigma.copy_(squared_distances(z, self.anchor).mean(dim=(0, 2, 3)).view_as(self.sigma))
            kernel, _ = self.kernel(z)
            self.mvec.copy_(kernel.mean(dim=2, keepdim=True).mean(dim=0, keepdim=True))
            found = learn_bits(kernel - self.mvec, self.A, similarity_targets(z))
            self.A.copy_(found.A)
        self._mark(LEARNED)
        return found

    @torch.no_grad()
    def randomise(self) -> None:
        """A hash that has seen no data: random directions as anchors, centred for random directions. `learned` says so."""
        heads, _, _ = self.A.shape
        self.A.normal_()
        self.anchor.copy_(unit(torch.randn_like(self.anchor)))
        kernel, _ = self.kernel(unit(self.anchor.new_empty(1, heads, _SAMPLES, self.anchor.shape[-1]).normal_()))
        self.mvec.copy_(kernel.mean(dim=2, keepdim=True))
        self._mark(RANDOM)

    @torch.no_grad()
    def freeze_sigma(self, z: Tensor) -> None:
        """From now on sigma is the mean over the samples of z (B, H, N, d)."""
        self.sigma = None
        _, sigma = self.kernel(unit(z.to(self.A.dtype)))
        self.sigma = sigma.mean(dim=0, keepdim=True)

    def mark_learned(self) -> None:
        """Say that the buffers were learned, after writing them by hand."""
        self._mark(LEARNED)

    def _mark(self, state: int) -> None:
        self.learned.fill_(state)
        self._state = state

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._state = min(int(self.learned), LEARNED)
