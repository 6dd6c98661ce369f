"""Augmentation: shapes, statistics and the meaning of every knob."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from edgetk.core.errors import UsageError
from edgetk.tasks.speech.augment import NO_AUGMENTATION, Augment, Augmentation
from edgetk.tasks.speech.log_mel import LogMel
from edgetk.tasks.training.draws import beta_table

CLASSES = 4
SEEDED = torch.Generator().manual_seed(0)
WAVES = torch.randint(-8000, 8000, (32, 16000), dtype=torch.int16, generator=SEEDED)
LABELS = torch.arange(32) % CLASSES
NOISE = torch.randint(-3000, 3000, (40000,), dtype=torch.int16, generator=SEEDED)
ROWS = torch.arange(32)


def augment(**changes: object) -> Augment:
    torch.manual_seed(1)
    return Augment(replace(NO_AUGMENTATION, **changes), WAVES, LABELS, CLASSES, NOISE)  # type: ignore[arg-type]


def test_none_is_the_plain_front_end() -> None:
    features, targets = augment()(ROWS)
    assert torch.equal(features, LogMel()(WAVES.float() / 32768))
    assert torch.equal(targets, torch.nn.functional.one_hot(LABELS, CLASSES).float())


def test_paper_recipe_is_the_default() -> None:
    recipe = Augmentation()
    assert (recipe.mixup, recipe.mixup_beta, recipe.frequency_mask, recipe.time_mask) == (0.6, 10.0, 48, 48)
    assert (recipe.feature_noise, recipe.roll) == (0.1, 10)
    assert recipe.noise == recipe.level == recipe.shift == recipe.speed == 0.0


def test_everything_at_once() -> None:
    torch.manual_seed(0)
    every = Augmentation(noise=0.5, level=0.5, shift=0.5, speed=0.5)
    features, targets = Augment(every, WAVES, LABELS, CLASSES, NOISE)(ROWS)
    assert features.shape == (32, 128, 128)
    assert features.isfinite().all()
    assert targets.shape == (32, CLASSES)
    assert targets.sum(1).numpy() == pytest.approx(1.0, abs=1e-6)
    again, _ = Augment(every, WAVES, LABELS, CLASSES, NOISE)(ROWS)
    assert not torch.equal(features, again)


def test_seed_repeats() -> None:
    torch.manual_seed(5)
    first = Augment(Augmentation(), WAVES, LABELS, CLASSES)(ROWS)[0]
    torch.manual_seed(5)
    assert torch.equal(first, Augment(Augmentation(), WAVES, LABELS, CLASSES)(ROWS)[0])


def test_beta_table_has_the_moments_of_beta() -> None:
    table = beta_table(10.0)
    assert len(table) >= 1024
    assert (table.diff() >= 0).all()
    assert table.mean() == pytest.approx(0.5, abs=1e-4)
    assert table.var() == pytest.approx(1 / (4 * 21), rel=1e-2)
    assert beta_table(1.0, 1000).numpy() == pytest.approx(torch.linspace(0.0005, 0.9995, 1000).numpy(), abs=1e-5)


def test_mixup_share_and_weights() -> None:
    module = augment(mixup=0.6)
    module.waves = torch.zeros(4, 1, dtype=torch.int16)
    module.labels = torch.arange(4)
    _, targets = module.mix(torch.zeros(4000, dtype=torch.long))
    mixed = targets[:, 0] < 1
    assert mixed.float().mean() == pytest.approx(0.6 * 3 / 4, abs=0.03)
    own = targets[mixed, 0]
    assert own.mean() == pytest.approx(0.5, abs=0.02)
    assert own.std() == pytest.approx((1 / 84) ** 0.5, abs=0.02)
    assert targets.sum(1).numpy() == pytest.approx(1.0, abs=1e-6)
    assert targets[mixed, 1:].gt(0).float().mean(0).numpy() == pytest.approx(1 / 3, abs=0.05)


def test_mixup_mixes_what_the_targets_say() -> None:
    module = augment(mixup=1.0)
    module.waves = torch.stack([torch.full((16000,), value, dtype=torch.int16) for value in (0, 8192)])
    module.labels = torch.tensor([0, 1])
    waves, targets = module.mix(torch.zeros(50, dtype=torch.long))
    assert waves[:, 0].numpy() == pytest.approx(0.25 * targets[:, 1].numpy(), abs=1e-6)
    assert waves[:, -1].max() > 0


def test_masks_fill_with_zero_before_normalisation() -> None:
    module = augment(frequency_mask=48, time_mask=48)
    masked = module.mask(torch.full((200, 128, 128), -5.0))
    assert set(masked.unique().tolist()) <= {-5.0, 0.0}
    bands = (masked == 0).all(1).sum(1)
    frames = (masked == 0).all(2).sum(1)
    for widths in (bands, frames):
        assert int(widths.max()) < 48
        assert widths.float().mean() == pytest.approx(23.5, abs=4)
    hidden = (masked == 0).all(1)[bands > 0][0].nonzero().flatten()
    assert torch.equal(hidden, torch.arange(int(hidden[0]), int(hidden[-1]) + 1))


def test_roll_moves_frames_in_a_circle() -> None:
    module = augment(roll=10)
    ramp = torch.arange(128.0)[None, :, None].expand(500, 128, 128)
    rolled = module.roll(ramp)
    by = (-rolled[:, 0, 0]) % 128
    by = torch.where(by > 64, by - 128, by)
    assert (int(by.min()), int(by.max())) == (-10, 9)
    for features, shift in zip(rolled[:20], by[:20], strict=True):
        assert torch.equal(features, ramp[0].roll(int(shift), 0))


def test_feature_noise_is_one_sided_and_scaled_per_clip() -> None:
    field = augment(feature_noise=0.1).roll(torch.zeros(400, 128, 128))
    peak = field.amax((1, 2))
    assert field.min() >= 0
    assert peak.max() <= 0.1
    assert peak.mean() == pytest.approx(0.05, abs=0.005)


def test_background_noise_has_the_asked_ratio() -> None:
    module = augment(noise=1.0, noise_snr_db=(10.0, 10.0))
    waves = WAVES.float() / 32768
    added = module.disturb(waves) - waves
    ratio_db = 10 * (waves.square().mean(1) / added.square().mean(1)).log10()
    assert ratio_db.numpy() == pytest.approx(10.0, abs=0.01)
    assert not torch.equal(added[0] / added[0].abs().max(), added[1] / added[1].abs().max())


def test_noise_of_silence_is_silence() -> None:
    assert torch.equal(augment(noise=1.0).disturb(torch.zeros(3, 16000)), torch.zeros(3, 16000))


def test_level_is_in_its_range_and_clips() -> None:
    gain = augment(level=1.0, level_db=(-20.0, 6.0)).disturb(torch.full((2000, 1), 0.25)) / 0.25
    assert gain.min() >= 0.0999
    assert gain.max() <= 1.996
    assert gain.log10().mean() * 20 == pytest.approx(-7.0, abs=0.6)
    assert augment(level=1.0, level_db=(20.0, 20.0)).disturb(torch.full((1, 4), 0.5)).max() == 1.0


def test_shift_fills_with_zero() -> None:
    module = augment(shift=1.0, shift_samples=1600)
    module.waves = torch.ones(32, 16000, dtype=torch.int16)
    clips, _ = module.mix(ROWS)
    zeros = (clips == 0).sum(1)
    assert 0 < int(zeros.max()) <= 1600
    assert ((clips[:, 0] == 0) != (clips[:, -1] == 0)).sum() >= 30


def test_shift_moves_by_whole_samples() -> None:
    clips, _ = augment(shift=1.0, shift_samples=5).mix(ROWS)
    waves = WAVES.float() / 32768
    for clip, wave in zip(clips, waves, strict=True):
        assert any(torch.equal(clip[8:-8], wave[8 - by : 15992 - by]) for by in range(-5, 6))


def test_speed_changes_the_pitch() -> None:
    module = augment(speed=1.0, speed_range=(1.1, 1.1))
    tone = (8000 * torch.sin(2 * torch.pi * 1000 * torch.arange(16000) / 16000)).to(torch.int16)
    module.waves = tone[None]
    clips, _ = module.mix(torch.zeros(1, dtype=torch.long))
    spectrum = torch.fft.rfft(clips[0]).abs()
    assert int(spectrum.argmax()) == pytest.approx(1100, abs=2)


@pytest.mark.parametrize("name", ["mixup", "noise", "level", "shift", "speed"])
def test_probabilities_are_checked(name: str) -> None:
    with pytest.raises(UsageError, match=rf"augmentation: {name} must be a probability in \[0, 1\], got 1.5; correct it"):
        Augmentation(**{name: 1.5})  # type: ignore[arg-type]


def test_widths_are_checked() -> None:
    with pytest.raises(UsageError, match=r"augmentation: time_mask must be in \[0, 128\], got 129; correct it"):
        Augmentation(time_mask=129)
    with pytest.raises(UsageError, match=r"augmentation: mixup_beta must be at least 1, got 0.5; correct it"):
        Augmentation(mixup_beta=0.5)


def test_noise_needs_recordings() -> None:
    with pytest.raises(UsageError, match=r"noise=0.5 needs more than one second of background noise, got 0 samples"):
        Augment(Augmentation(noise=0.5), WAVES, LABELS, CLASSES)
