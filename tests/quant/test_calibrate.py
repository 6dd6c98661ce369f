"""Ranges of what layers read: nearly all of it, zero included, however many calls it came in."""

from __future__ import annotations

import pytest
import torch
from quant_models import Noise, adder

from edgetk.quant._calibrate import KEPT, OUTLIERS, Range, calibrate


def test_range_skips_the_rarest_values_however_they_came() -> None:
    values = torch.randn(500_000, generator=torch.Generator().manual_seed(0))
    whole, parts = Range(), Range()
    whole.add(values)
    for part in values.split(777):
        parts.add(part)
    ordered = values.sort().values
    skipped = int(OUTLIERS * len(values))
    assert skipped == 5
    assert whole.ends() == parts.ends() == (float(ordered[skipped]), float(ordered[-1 - skipped]))
    assert len(whole._high) == KEPT


def test_range_always_holds_zero() -> None:
    above, below = Range(), Range()
    above.add(torch.tensor([2.0, 3.0]))
    below.add(torch.tensor([[-2.0], [-3.0]]))
    assert above.ends() == (0.0, 3.0)
    assert below.ends() == (-3.0, 0.0)


def test_a_few_inputs_make_one_stream() -> None:
    data = Noise(n=3, shape=(4, 6))
    data.features.abs_()
    scales = calibrate(adder(data), ["read"], data.calibration(3), "uint8", 8)["read"]
    longest = float(data.features.sum((0, 2)).max())
    assert (255 - scales.zero_point) * scales.scale == pytest.approx(longest, rel=0.01)
