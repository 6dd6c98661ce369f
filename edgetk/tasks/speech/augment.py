"""Augmentation of speech clips, whole batches on the device, every operation fit for capture in a CUDA graph.

The defaults are the recipe of LMUFormer's published code (arXiv:2402.04882): waveform mixup (Tokozume et al. 2018), one
frequency and one time mask (SpecAugment, Park et al. 2019), a noise field and a roll. The rest is off by default.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgetk.core.errors import UsageError
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.log_mel import LogMel
from edgetk.tasks.training.draws import beta_table, chosen, integers, uniform

INT16_SCALE = 32768.0


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training clip. Probabilities are per clip, in [0, 1]; ranges are drawn uniformly."""

    #: mix with a clip drawn from the whole training set; weight ~ Beta(mixup_beta, mixup_beta)
    mixup: float = 0.6
    mixup_beta: float = 10.0
    #: widest frequency mask (of 128 bands) and time mask (of 128 frames), one of each per clip
    frequency_mask: int = 48
    time_mask: int = 48
    #: scale of the noise field that is added to normalised features
    feature_noise: float = 0.1
    #: circular roll of the frames, by an integer in [-roll, roll)
    roll: int = 10
    #: background noise at a signal-to-noise ratio within `noise_snr_db`
    noise: float = 0.0
    noise_snr_db: tuple[float, float] = (0.0, 30.0)
    #: change of level within `level_db`, clipped at full scale as a recorder does
    level: float = 0.0
    level_db: tuple[float, float] = (-20.0, 6.0)
    #: move the clip by at most `shift_samples` either way; what becomes free is zero
    shift: float = 0.0
    shift_samples: int = 1600
    #: play faster or slower by a factor within `speed_range` (linear interpolation, around the middle)
    speed: float = 0.0
    speed_range: tuple[float, float] = (0.9, 1.1)

    def __post_init__(self) -> None:
        for name in ("mixup", "noise", "level", "shift", "speed"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"augmentation: {name} must be a probability in [0, 1], got {getattr(self, name)}; correct it")
        for name, size in (("frequency_mask", fe.N_MELS), ("time_mask", fe.FRAMES), ("roll", fe.FRAMES)):
            if not 0 <= getattr(self, name) <= size:
                raise UsageError(f"augmentation: {name} must be in [0, {size}], got {getattr(self, name)}; correct it")
        if not self.mixup_beta >= 1.0:
            raise UsageError(f"augmentation: mixup_beta must be at least 1, got {self.mixup_beta}; correct it")


#: no change at all: the features of the clips as they are
NO_AUGMENTATION = Augmentation(mixup=0.0, frequency_mask=0, time_mask=0, feature_noise=0.0, roll=0)

#: the recipe with disturbed recordings as well: background noise, level, place in the clip
ROBUST = Augmentation(noise=0.5, noise_snr_db=(5.0, 30.0), level=0.5, level_db=(-15.0, 6.0), shift=0.5)

#: by the names that recipes use
AUGMENTATIONS = {"none": NO_AUGMENTATION, "paper": Augmentation(), "robust": ROBUST}


class Augment(nn.Module):
    """Row numbers of a training set (B,) -> features (B, 128, 128) and soft targets (B, K).

    waves   (N, 16000) int16, the whole training set; it lives on the device
    labels  (N,) int64
    noise   (S,) int16 background noise; needed where `recipe.noise` > 0

    All randomness is torch's default generator of the device. Mixed labels add up, so two clips of one word give 1.0.
    The buffers move with `.to(device)` and stay out of the state dict.
    """

    waves: Tensor
    labels: Tensor
    noise: Tensor
    weights: Tensor
    classes: Tensor
    time: Tensor
    frames: Tensor
    bands: Tensor

    def __init__(self, recipe: Augmentation, waves: Tensor, labels: Tensor, classes: int, noise: Tensor | None = None) -> None:
        super().__init__()
        if recipe.noise > 0 and (noise is None or len(noise) <= fe.CLIP_SAMPLES):
            raise UsageError(
                f"augmentation: noise={recipe.noise} needs more than one second of background noise, "
                f"got {0 if noise is None else len(noise)} samples; set noise to 0 or hand in recordings"
            )
        self.recipe = recipe
        self.log_mel = LogMel()
        for name, value in (
            ("waves", waves),
            ("labels", labels),
            ("noise", torch.empty(0, dtype=torch.int16) if noise is None else noise),
            ("weights", beta_table(recipe.mixup_beta)),
            ("classes", torch.arange(classes)),
            ("time", torch.arange(fe.CLIP_SAMPLES)),
            ("frames", torch.arange(fe.FRAMES)),
            ("bands", torch.arange(fe.N_MELS)),
        ):
            self.register_buffer(name, value, persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the training set lives; random numbers are drawn there."""
        return self.waves.device

    @torch.no_grad()
    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        waves, targets = self.mix(rows)
        frames = self.mask(self.log_mel.pad(self.log_mel.log_mel(self.disturb(waves))))
        return self.roll(self.log_mel.normalise(frames)), targets

    def mix(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Clips and targets of `rows`, some mixed with another clip of the training set."""
        waves, targets = self._clips(rows), self._targets(rows)
        if self.recipe.mixup == 0:
            return waves, targets
        others = integers(self.device, len(rows), 0, len(self.waves))
        weight = self.weights[integers(self.device, len(rows), 0, len(self.weights))].unsqueeze(1)
        weight = torch.where(chosen(self.device, len(rows), self.recipe.mixup), weight, 1.0)
        return (
            weight * waves + (1 - weight) * self._clips(others),
            weight * targets + (1 - weight) * self._targets(others),
        )

    def disturb(self, waves: Tensor) -> Tensor:
        """Background noise and change of level: (B, 16000) -> same."""
        n = len(waves)
        if self.recipe.noise > 0:
            start = integers(self.device, n, 0, len(self.noise) - fe.CLIP_SAMPLES).unsqueeze(1)
            noise = self.noise[start + self.time].float() / INT16_SCALE
            snr_db = uniform(self.device, n, *self.recipe.noise_snr_db)
            # quiet noise is not blown up beyond full scale: a recording's silence has nothing to add
            gain = (_rms(waves) / _rms(noise).clamp_min(1e-4)) * 10 ** (-snr_db / 20)
            waves = waves + torch.where(chosen(self.device, n, self.recipe.noise), gain, 0.0) * noise
        if self.recipe.level > 0:
            gain = 10 ** (uniform(self.device, n, *self.recipe.level_db) / 20)
            waves = (torch.where(chosen(self.device, n, self.recipe.level), gain, 1.0) * waves).clamp(-1.0, 1.0)
        return waves

    def mask(self, frames: Tensor) -> Tensor:
        """One band mask and one time mask over log-mel (B, 128, 128), filled with 0.0 before normalisation."""
        hidden = None
        for axis, widest in (
            (self.bands[None, None, :], self.recipe.frequency_mask),
            (self.frames[None, :, None], self.recipe.time_mask),
        ):
            if widest > 0:
                width = uniform(self.device, len(frames), 0, widest)
                start = (uniform(self.device, len(frames), 0, 1) * (axis.numel() - width)).floor()[..., None]
                inside = (axis >= start) & (axis < start + width.floor()[..., None])
                hidden = inside if hidden is None else hidden | inside
        return frames if hidden is None else torch.where(hidden, 0.0, frames)

    def roll(self, features: Tensor) -> Tensor:
        """Noise field and circular roll in time, on normalised features (B, 128, 128)."""
        n = len(features)
        if self.recipe.feature_noise > 0:
            scale = uniform(self.device, n, 0, self.recipe.feature_noise)[..., None]
            features = features + scale * torch.rand_like(features)
        if self.recipe.roll > 0:
            by = integers(self.device, n, -self.recipe.roll, self.recipe.roll)
            source = (self.frames - by.unsqueeze(1)) % fe.FRAMES
            features = features.gather(1, source.unsqueeze(-1).expand_as(features))
        return features

    def _clips(self, rows: Tensor) -> Tensor:
        """Clips as float32 in [-1, 1], some shifted or played at another speed."""
        waves = self.waves.index_select(0, rows).float() / INT16_SCALE
        recipe, n = self.recipe, len(rows)
        if recipe.shift == 0 and recipe.speed == 0:
            return waves
        at, middle = self.time.float().unsqueeze(0), fe.CLIP_SAMPLES / 2
        if recipe.speed > 0:
            speed = torch.where(chosen(self.device, n, recipe.speed), uniform(self.device, n, *recipe.speed_range), 1.0)
            at = (at - middle) * speed + middle
        if recipe.shift > 0:
            by = integers(self.device, n, -recipe.shift_samples, recipe.shift_samples + 1).unsqueeze(1)
            at = at - torch.where(chosen(self.device, n, recipe.shift), by, 0)
        left = at.floor()
        share = at - left
        inside = (left >= 0) & (left < fe.CLIP_SAMPLES - 1) | (left == fe.CLIP_SAMPLES - 1) & (share == 0)
        near = left.long().clamp(0, fe.CLIP_SAMPLES - 1)
        far = (near + 1).clamp_max(fe.CLIP_SAMPLES - 1)
        return torch.where(inside, torch.lerp(waves.gather(1, near), waves.gather(1, far), share), 0.0)

    def _targets(self, rows: Tensor) -> Tensor:
        return (self.labels.index_select(0, rows).unsqueeze(1) == self.classes).float()


def _rms(waves: Tensor) -> Tensor:
    return waves.square().mean(-1, keepdim=True).sqrt()


__all__ = ["AUGMENTATIONS", "NO_AUGMENTATION", "ROBUST", "Augment", "Augmentation"]
