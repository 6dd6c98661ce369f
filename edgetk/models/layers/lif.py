"""Leaky integrate-and-fire neurons with explicit membranes, over single steps and whole clips.

Source: LMUFormer's code (arXiv:2402.04882), tau = 2 with decayed input and a hard, detached reset:

    h_t = (v_{t-1} + x_t) / 2;   s_t = 1 if h_t >= threshold else 0;   v_t = rest if s_t else h_t
    ds/dh = 4 sg (1 - sg), sg = sigmoid(4 (h - threshold))               no gradient through the reset
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from snntorch import Leaky, surrogate
from torch import Tensor, nn

from edgetk.models.layers.norm import BatchNorm, Sign

#: 1 - 1/tau: how much of a membrane a step keeps
BETA = 0.5
#: steepness of the surrogate gradient
SLOPE = 4
#: a norm whose scale is smaller than this stays: dividing by it would lose all digits
SMALLEST_SCALE = 1e-6


class LIF(Leaky):  # type: ignore[misc]
    """snnTorch's `Leaky` with per-channel threshold and rest, whose membrane is an argument and a result.

    x (..., C), v (..., C) -> spikes (..., C) of 0 and 1, next v. It differs from its parent in three ways: a membrane equal to
    the threshold fires, as in the published network; the membrane it returns is the one the next step needs, after the reset;
    the drive is halved here. `threshold` and `rest` are buffers (C,); `rest` is also the membrane at the start.
    """

    def __init__(self, width: int, threshold: float = 1.0) -> None:
        super().__init__(
            beta=BETA,
            threshold=torch.full((width,), float(threshold)),
            spike_grad=surrogate.sigmoid(slope=SLOPE),
            reset_mechanism="zero",
            reset_delay=True,
        )
        self.instances.pop()  # snnTorch keeps every neuron alive in a global list, for hidden states that are not used here
        del self.mem
        # Constants of the parent, which belong into no weights file.
        self._non_persistent_buffers_set |= {"beta", "graded_spikes_factor", "reset_mechanism_val"}
        self.register_buffer("rest", torch.zeros(width))
        self.threshold: Tensor
        self.rest: Tensor

    def forward(self, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """One step."""
        h = (v + x) * (1 - BETA)
        return self.fire(h), torch.where(h.detach() >= self.threshold, self.rest, h)

    def fire(self, h: Tensor) -> Tensor:
        """Spikes of membranes h (..., C)."""
        if not h.requires_grad:
            return (h >= self.threshold).to(h.dtype)
        # The parent fires above its threshold; the next smaller number makes that "at or above".
        below = torch.nextafter(self.threshold, self.threshold.new_tensor(-torch.inf))
        spikes: Tensor = self.spike_grad(h - below)
        return spikes

    def clip(self, x: Tensor) -> Tensor:
        """Whole clips x (B, T, C) -> spikes (B, T, C), each from rest."""
        if torch.onnx.is_in_onnx_export():
            return torch.onnx.ops.symbolic(
                "edgetk::LIF", (x, self.threshold, self.rest), {}, dtype=x.dtype, shape=x.shape, version=1
            )
        if x.is_cuda:
            from edgetk.models.layers.lif_cuda import lif

            return lif(x, self.threshold, self.rest)
        v = self.rest.expand(x.shape[0], -1)
        steps = []
        for drive in x.float().unbind(1):
            spikes, v = self(drive, v)
            steps.append(spikes)
        return torch.stack(steps, dim=1).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.threshold.numel()}"


class NormedLIF(nn.Module):
    """Batch norm and neuron, the unit that spiking layers are made of: x (..., C) -> spikes (..., C).

    `fold` makes the norm part of the neuron. With z = g x + b and g > 0 the membrane of z is g v' + b, where v' is the membrane
    of x itself; so v' fires at (threshold - b) / g and rests at (rest - b) / g, and nothing else changes.
    """

    def __init__(self, width: int, threshold: float = 1.0) -> None:
        super().__init__()
        self.norm: nn.Module = BatchNorm(width)
        self.neuron = LIF(width, threshold)

    @property
    def rest(self) -> Tensor:
        """The membrane at the start, (C,)."""
        return self.neuron.rest

    def clip(self, x: Tensor) -> Tensor:
        """x (B, T, C) -> spikes (B, T, C)."""
        return self.neuron.clip(self.norm(x))

    def step(self, x: Tensor, inside: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, C), membrane v (B, C) -> spikes, next v. Where `inside` (B, 1) is false the neuron rests and is silent.

        A membrane that is driven by its own rest stays there, or falls back to it, so that one selection does both.
        """
        drive = torch.where(inside, self.norm(x), self.neuron.rest)
        spikes, v = self.neuron(drive, v)
        return spikes, v

    @torch.no_grad()
    def fold(self) -> bool:
        """Make the norm part of the neuron; negative scales leave a `Sign`. False where there is none, or one too small."""
        if not isinstance(self.norm, BatchNorm):
            return False
        scale, shift = (t.double() for t in self.norm.scale_shift())
        if float(scale.abs().min()) < SMALLEST_SCALE:
            return False
        neuron = self.neuron
        neuron.threshold = ((neuron.threshold.double() - shift) / scale.abs()).float()
        neuron.rest = ((neuron.rest.double() - shift) / scale.abs()).float()
        self.norm = Sign(torch.where(scale < 0, -1.0, 1.0).float()) if bool((scale < 0).any()) else nn.Identity()
        return True


@contextmanager
def spikes_of(body: nn.Module, take: Callable[[str, Tensor], None]) -> Iterator[None]:
    """Within the block, `take` gets the name of every unit of neurons in `body` and its spikes (B, T, C) of each whole clip."""
    units = [(name, unit) for name, unit in body.named_modules() if isinstance(unit, NormedLIF)]
    for name, unit in units:

        def clip(x: Tensor, name: str = name, unit: NormedLIF = unit) -> Tensor:
            spikes = NormedLIF.clip(unit, x)
            take(name, spikes)
            return spikes

        unit.clip = clip  # type: ignore[method-assign]
    try:
        yield
    finally:
        for _, unit in units:
            del unit.clip
