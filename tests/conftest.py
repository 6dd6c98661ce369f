"""What tests of several rooms work on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Split
from edgetk.models.layers.norm import BatchNorm
from edgetk.models.lmuformer_spiking import SpikingLMUFormer, build

FRAMES, FEATURES, CLASSES = 24, 6, 4


class Answered:
    """Random inputs, labelled with what the model itself says of them."""

    labels: tuple[str, ...] = ("one", "two", "three", "four")
    origin = "made up"
    augmentations: Mapping[str, Any] = {"none": None}

    def __init__(self) -> None:
        self.features = torch.randn(96, FRAMES, FEATURES, generator=torch.Generator().manual_seed(1))
        self.classes = torch.zeros(96, dtype=torch.int64)

    def split(self, name: str) -> Split:
        part = slice(0, 48) if name == "validation" else slice(48, 96)
        return Split(name, self.features[part], self.classes[part], self.origin)

    def calibration(self, n: int) -> Tensor:
        return self.split("train").features[:n]

    def batches(
        self, device: torch.device | str, augmentation: Any = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        train = self.split("train")
        return lambda rows: (train.features[rows], F.one_hot(train.labels[rows], CLASSES).float()), len(train.labels)


@cache
def _spiking() -> Bundle:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = {"widths": (16, 12, 16, 16), "order": 16, "hidden": 12, "ffn": 24, "theta": 24.0}
        bundle = build("s", **shape, features=FEATURES, frames=FRAMES, classes=CLASSES)
        net, data = bundle.module, Answered()
        assert isinstance(net, SpikingLMUFormer)
        net.train()
        with torch.no_grad():
            for norm in net.modules():
                if isinstance(norm, BatchNorm):
                    norm.weight.uniform_(0.7, 1.3).mul_(torch.randn_like(norm.weight).sign())
                    norm.bias.uniform_(0.2, 0.6)
                    norm.momentum = 1.0
            net.head.weight.normal_(0, 0.3)
            net.clip(data.features)
            net.eval().settle()
            net.head.bias.sub_(net.clip(data.features).mean(0))  # so that all classes are given
            net.settle()
            data.classes = net.clip(data.features).argmax(1)
    return replace(bundle, data=data, labels=data.labels, original=copy.deepcopy(net))


@pytest.fixture
def spiking() -> Bundle:
    """A narrow spiking LMUFormer, all of whose neurons fire now and then, with data: a copy to work on."""
    bundle = _spiking()
    return replace(bundle, body=copy.deepcopy(bundle.body))
