"""DS-CNN, the keyword-spotting reference of MLPerf Tiny, as a control for other models.

Source: Zhang et al. 2017, arXiv:1711.07128; shape of MLPerf Tiny's reference (conv 64 @ 10x4 stride 2, four depthwise-separable
3x3 blocks of 64 channels, average pool, linear). Its input here is the task's 128 log-mel bins, averaged 8 at a time to 16,
not MFCC, so that every model of a comparison sees the same features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.signature import Signature, TensorSpec


@dataclass(frozen=True)
class Config:
    """`bands` mel bins are averaged into one; `width` channels everywhere."""

    features: int = 128
    frames: int = 128
    classes: int = 35
    width: int = 64
    blocks: int = 4
    bands: int = 8


VARIANTS: Mapping[str, Config] = {"base": Config()}


def _conv(inputs: int, outputs: int, kernel: tuple[int, int], **options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, bias=False, **options), nn.BatchNorm2d(outputs), nn.ReLU())


class DSCNN(nn.Module):
    """features (B, T, F) -> logits (B, K). Not a streaming model: it needs the whole clip."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.stem = _conv(1, width, (10, 4), stride=2, padding=(4, 1))
        self.blocks = nn.Sequential()
        for _ in range(config.blocks):
            self.blocks.extend([_conv(width, width, (3, 3), padding=1, groups=width), _conv(width, width, (1, 1))])
        self.head = nn.Linear(width, config.classes)

    def forward(self, x: Tensor) -> Tensor:
        image = F.avg_pool2d(x[:, None], (1, self.config.bands))
        y: Tensor = self.head(self.blocks(self.stem(image)).mean(dim=(2, 3)))
        return y


def build(variant: str = "base", **config: Any) -> Bundle:
    """An untrained DS-CNN; `config` overrides fields of the variant's `Config`."""
    shape = replace(VARIANTS[variant], **config)
    return Bundle(
        name="ds-cnn" if variant == "base" else f"ds-cnn-{variant}",
        body=DSCNN(shape).eval(),
        signature=Signature(
            inputs=(TensorSpec("features", ("batch", shape.frames, shape.features), axes="B T F"),),
            outputs=(TensorSpec("logits", ("batch", shape.classes), axes="B K"),),
        ),
        source={"model": "ds-cnn", "variant": variant, "config": asdict(shape)},
        task="speech-commands",
    )
