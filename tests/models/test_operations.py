"""The published table of operations and energy, to the integer, and the baselines that belong to it."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from edgetk.models._ecoformer_energy import Comparison, compare
from edgetk.models.ecoformer import PUBLISHED, VARIANTS
from edgetk.models.layers.attention import SoftmaxAttention
from edgetk.models.layers.operations import Operations, count_operations, hashed_operations, softmax_operations

#: size: (base, multiplications, additions) of msa and of ecoformer for one image of 224 x 224
TABLE = {
    "b0": ((550_103_424, 2_015_865_904, 1_993_315_712), (527_223_168, 535_392_840, 564_786_176)),
    "b1": ((2_110_149_376, 5_019_124_144, 4_996_573_952), (2_018_628_352, 2_029_620_424, 2_088_843_392)),
    "b2": ((4_044_233_472, 8_640_611_832, 8_604_980_992), (3_833_895_680, 3_852_777_536, 3_965_112_192)),
    "b3": ((6_967_487_232, 11_861_205_432, 11_823_269_632), (6_516_304_640, 6_541_431_056, 6_715_070_592)),
    "b4": ((10_221_250_304, 15_972_298_376, 15_927_716_608), (9_538_053_888, 9_571_194_156, 9_823_508_288)),
    "twins-s": ((2_871_507_456, 5_957_848_896, 5_910_366_720), (2_691_676_672, 2_718_878_336, 2_808_034_816)),
}
#: mJ of msa and ecoformer, share saved
ENERGY = {
    "b0": (9.253, 2.489, 0.731), "b1": (23.068, 9.390, 0.593), "b2": (39.715, 17.824, 0.551),
    "b3": (54.527, 30.247, 0.445), "b4": (73.432, 44.255, 0.397), "twins-s": (27.363, 12.587, 0.540),
}  # fmt: skip


@cache
def comparison(size: str) -> Comparison:
    return compare({**VARIANTS, **PUBLISHED}[size])


def counts(o: Operations) -> tuple[int, int, int]:
    return o.base, o.muls, o.adds


@pytest.mark.parametrize("size", TABLE)
def test_published_operations_and_energy(size: str) -> None:
    found = comparison(size)
    assert (counts(found.msa), counts(found.ecoformer)) == TABLE[size]
    msa, eco, saved = ENERGY[size]
    assert found.msa.joules() * 1e3 == pytest.approx(msa, abs=6e-4)
    assert found.ecoformer.joules() * 1e3 == pytest.approx(eco, abs=6e-4)
    assert found.saving().softmax == pytest.approx(saved, abs=6e-4)


def test_both_baselines_of_b0() -> None:
    found = comparison("b0")
    assert found.sra is not None
    assert counts(found.sra) == (533_319_552, 572_023_672, 571_428_224)
    saving = found.saving()
    assert saving.softmax == pytest.approx(0.7310, abs=5e-5)
    assert saving.reduced == pytest.approx(0.054, abs=5e-4)
    assert str(saving) == "73.1% less than softmax attention over all tokens; reduced attention (sra): 5.4% less"


def test_multiplications_that_the_published_count_leaves_out() -> None:
    found = comparison("b0")
    assert found.ecoformer.distance_muls == 9_094_400
    assert found.ecoformer.joules(distances=True) - found.ecoformer.joules() == pytest.approx(9_094_400 * 3.7e-12)
    assert found.saving(distances=True).softmax == pytest.approx(0.727, abs=5e-4)
    assert found.msa.distance_muls == 0


def test_twins_has_no_reduced_attention_to_compare_with() -> None:
    assert str(comparison("twins-s").saving()) == (
        "54.0% less than softmax attention over all tokens; reduced attention (sra): none to compare with"
    )


def test_layers_of_b0() -> None:
    """Multiplications and additions of one attention in each stage."""
    stages = ((3136, 32, 1), (784, 64, 2), (196, 160, 5), (49, 256, 8))
    hashed = [hashed_operations(n, c, h, bits=16, anchors=25) for n, c, h in stages[:3]]
    assert [(o.muls, o.adds) for o in hashed] == [(1_564_864, 9_683_968), (782_432, 4_841_984), (489_020, 3_026_240)]
    softmax = [softmax_operations(n, n, c, h) for n, c, h in stages]
    assert [(o.muls, o.adds) for o in softmax] == [
        (639_242_240, 629_407_744), (79_905_280, 78_675_968), (12_485_200, 12_293_120), (1_248_520, 1_229_312),
    ]  # fmt: skip
    assert softmax[0].joules() == pytest.approx(2931.7e-6, abs=1e-7)
    assert hashed[0].joules() == pytest.approx(14.5e-6, abs=1e-7)


def test_layers_by_hand() -> None:
    conv, norm = nn.Conv2d(2, 6, 3, padding=1, groups=2), nn.LayerNorm(4)
    assert counts(count_operations(nn.Linear(3, 5), torch.zeros(2, 3))) == (30, 30, 30)
    assert count_operations(conv, torch.zeros(1, 2, 4, 5)).base == 6 * 20 * (9 * 1 + 1)
    assert count_operations(norm, torch.zeros(3, 4)).base == 24
    two = count_operations(SoftmaxAttention(4, 2), torch.zeros(2, 3, 4))
    linear = 2 * 3 * 4 * 16
    assert counts(two) == (linear, linear + 2 * (2 * 9 * 4 + 2 * 9), linear + 2 * 2 * 9 * 4)
