"""What tests of several rooms do with spiking networks."""

from __future__ import annotations

import torch
from torch import Tensor

from edgetk.core.bundle import Bundle
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.lmuformer_spiking import SpikingLMUFormer


def spikes(bundle: Bundle) -> SpikingLMUFormer:
    """The bundle's network."""
    assert isinstance(bundle.module, SpikingLMUFormer)
    return bundle.module


def clips(bundle: Bundle) -> Tensor:
    """Inputs that a bundle brings along."""
    assert bundle.data is not None
    return bundle.data.split("validation").features


def last_decision(bundle: Bundle, x: Tensor) -> Tensor:
    """What the stream says at the end of x (B, T, F), one frame at a time."""
    net = spikes(bundle)
    state = net.zero_state(len(x))
    with torch.no_grad():
        for frame in x.unbind(1):
            _, *state = net(frame[:, None], *state)
        return net.flush(*state)[0][:, -1]


def fit_norms(net: SpikingLMUFormer, x: Tensor) -> None:
    """Give all norms the statistics of x, so that neurons fire now and then, and the weights their grids."""
    net.train()
    with torch.no_grad():
        for norm in net.modules():
            if isinstance(norm, BatchNorm):
                norm.momentum = 1.0
        net.clip(x)
    net.eval().settle()
