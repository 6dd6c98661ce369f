"""Augmentation of small pictures, whole batches on the device, every operation fit for capture in a CUDA graph.

Crop and flip as in He et al. 2016 (arXiv:1512.03385, section 4.2), mixup of Zhang et al. 2018 (arXiv:1710.09412), cutout of
DeVries & Taylor 2017 (arXiv:1708.04552), label smoothing of Szegedy et al. 2016 (arXiv:1512.00567).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from edgetk.core.errors import UsageError
from edgetk.tasks.images import front_end as fe
from edgetk.tasks.images.pictures import normalise
from edgetk.tasks.training.draws import beta_table, chosen, integers


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training picture. Probabilities are per picture, in [0, 1]; places are drawn uniformly."""

    #: black pixels around the picture before a crop of the old size is cut out of it
    padding: int = 4
    #: probability of the mirror image, left for right
    flip: float = 0.5
    #: probability of mixing with a picture drawn from the whole training set; weight ~ Beta(mixup_beta, mixup_beta)
    mixup: float = 0.0
    mixup_beta: float = 1.0
    #: side of the square that is set to the mean, in pixels; its middle is anywhere, so a part may lie outside
    cutout: int = 0
    #: share of the target that is spread evenly over all classes
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "mixup", "smoothing"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"augmentation: {name} must be in [0, 1], got {getattr(self, name)}; correct it")
        for name in ("padding", "cutout"):
            if not 0 <= getattr(self, name) <= fe.SIZE:
                raise UsageError(f"augmentation: {name} must be in [0, {fe.SIZE}], got {getattr(self, name)}; correct it")
        if not self.mixup_beta >= 1.0:
            raise UsageError(f"augmentation: mixup_beta must be at least 1, got {self.mixup_beta}; correct it")


#: by the names that recipes use: the pictures as they are; crop and flip
AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {"none": Augmentation(padding=0, flip=0.0), "standard": Augmentation()}
)


class Augment(nn.Module):
    """Row numbers of a training set (B,) -> features (B, 3, 32, 32) and soft targets (B, K).

    pixels  (N, 3, 32, 32) uint8, the whole training set; it lives on the device
    labels  (N,) int64

    All randomness is torch's default generator of the device. Mixed labels add up, so two pictures of one class give 1.0.
    The buffers move with `.to(device)` and stay out of the state dict.
    """

    pixels: Tensor
    labels: Tensor
    weights: Tensor
    classes: Tensor
    place: Tensor

    def __init__(self, recipe: Augmentation, pixels: Tensor, labels: Tensor, classes: int) -> None:
        super().__init__()
        self.recipe = recipe
        for name, value in (
            ("pixels", pixels),
            ("labels", labels),
            ("weights", beta_table(recipe.mixup_beta)),
            ("classes", torch.arange(classes)),
            ("place", torch.arange(fe.SIZE)),
        ):
            self.register_buffer(name, value, persistent=False)

    @torch.no_grad()
    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        pixels, targets = self._pictures(rows), self._targets(rows)
        if self.recipe.mixup > 0:
            device, n = pixels.device, len(rows)
            others = integers(device, n, 0, len(self.pixels))
            weight = self.weights[integers(device, n, 0, len(self.weights))].unsqueeze(1)
            weight = torch.where(chosen(device, n, self.recipe.mixup), weight, 1.0)
            targets = weight * targets + (1 - weight) * self._targets(others)
            weight = weight[..., None, None]
            pixels = weight * pixels + (1 - weight) * self._pictures(others)
        return self.cut_out(normalise(pixels)), targets

    def cut_out(self, features: Tensor) -> Tensor:
        """A square of each picture set to the mean, which is zero in features (B, 3, 32, 32)."""
        if self.recipe.cutout == 0:
            return features
        first = [integers(features.device, len(features), 0, fe.SIZE) - self.recipe.cutout // 2 for _ in range(2)]
        row, column = ((self.place >= at[:, None]) & (self.place < at[:, None] + self.recipe.cutout) for at in first)
        return features.masked_fill((row[:, :, None] & column[:, None, :]).unsqueeze(1), 0.0)

    def _pictures(self, rows: Tensor) -> Tensor:
        """Pixels as float32 of 0 to 255, cropped and mirrored."""
        pixels, device, n = self.pixels.index_select(0, rows).float(), rows.device, len(rows)
        row = column = self.place.expand(n, -1)
        if self.recipe.flip > 0:
            column = torch.where(chosen(device, n, self.recipe.flip), fe.SIZE - 1 - column, column)
        if self.recipe.padding > 0:
            row, column = (
                at + integers(device, n, -self.recipe.padding, self.recipe.padding + 1).unsqueeze(1) for at in (row, column)
            )
        inside = ((row >= 0) & (row < fe.SIZE))[:, :, None] & ((column >= 0) & (column < fe.SIZE))[:, None, :]
        near = row.clamp(0, fe.SIZE - 1)[:, :, None] * fe.SIZE + column.clamp(0, fe.SIZE - 1)[:, None, :]
        taken = pixels.flatten(2).gather(2, near.flatten(1).unsqueeze(1).expand(-1, fe.CHANNELS, -1))
        return torch.where(inside.unsqueeze(1), taken.view_as(pixels), 0.0)

    def _targets(self, rows: Tensor) -> Tensor:
        hard = (self.labels.index_select(0, rows).unsqueeze(1) == self.classes).float()
        return (1 - self.recipe.smoothing) * hard + self.recipe.smoothing / len(self.classes)


__all__ = ["AUGMENTATIONS", "Augment", "Augmentation"]
