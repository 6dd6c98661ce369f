"""Linear attention on binary codes: the authors' recorded outputs, its quadratic form, and its integers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgetk.core.errors import UsageError
from edgetk.models.layers.binary_attention import NUMERATORS, binary_linear_attention

DATA = Path(__file__).parent.parent / "data"


def quadratic(codes: Tensor, v: Tensor, numerator: str) -> Tensor:
    """The definition with all N x N weights, in float64."""
    codes, v = codes.double(), v.double()
    beta = codes.shape[-1] + 1
    similarity = codes @ codes.transpose(-2, -1)
    own = v if numerator == "own_token" else v.sum(-2, keepdim=True)
    return (similarity @ v + beta * own) / (similarity + beta).sum(-1, keepdim=True)


@pytest.mark.parametrize(("numerator", "name"), [("own_token", "out_official"), ("sum", "out_sumbias")])
def test_recorded_outputs(numerator: str, name: str) -> None:
    with np.load(DATA / "eco_linear_attention_bias.npz") as file:
        q, k, v, expected = (torch.from_numpy(file[key]) for key in ("q", "k", "v", name))
    got = binary_linear_attention(q, v, numerator, keys=k)
    assert float((got - expected).abs().max()) <= 1e-6


def test_two_tokens_by_hand() -> None:
    codes = torch.tensor([[1.0, 1.0], [1.0, -1.0]])  # k.k = 2, k_1.k_2 = 0, beta = 3: every denominator is 2 + 0 + 2 * 3 = 8
    v = torch.tensor([[8.0], [16.0]])
    assert binary_linear_attention(codes, v).tolist() == [[(2 * 8 + 3 * 8) / 8], [(2 * 16 + 3 * 16) / 8]]
    assert binary_linear_attention(codes, v, "sum").tolist() == [[(5 * 8 + 3 * 16) / 8], [(3 * 8 + 5 * 16) / 8]]


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**31),
    tokens=st.integers(1, 70),
    bits=st.integers(1, 20),
    dim=st.integers(1, 9),
    numerator=st.sampled_from(NUMERATORS),
)
def test_linear_form_equals_the_quadratic_one(seed: int, tokens: int, bits: int, dim: int, numerator: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 2, (2, 3, tokens, bits), generator=generator) * 2.0 - 1.0
    v = torch.randn(2, 3, tokens, dim, generator=generator)
    got = binary_linear_attention(codes, v, numerator)
    assert got.dtype == torch.float32
    assert float((got - quadratic(codes, v, numerator)).abs().max()) <= 1e-5


def test_weights_are_positive_integers() -> None:
    with np.load(DATA / "eco_self_attention.npz") as file:
        codes = torch.from_numpy(file["codes"]).long()
    tokens, bits = codes.shape[-2:]
    weights = codes @ codes.transpose(-2, -1) + bits + 1
    assert int(weights.min()) >= 1
    assert int(weights.max()) == 2 * bits + 1
    hamming = (codes[..., :, None, :] != codes[..., None, :, :]).sum(-1)
    assert torch.equal(weights, 2 * bits + 1 - 2 * hamming)
    # with v = 1 the numerator "sum" is the denominator, so that every row of weights adds up to 1
    ones = binary_linear_attention(codes.float(), torch.ones(*codes.shape[:-1], 1), "sum")
    assert torch.equal(ones, torch.ones_like(ones))
    denominators = weights.sum(-1)
    assert int(denominators.min()) >= tokens
    own = binary_linear_attention(codes.float(), torch.ones(*codes.shape[:-1], 1))
    assert torch.equal(own[..., 0], (denominators - tokens * (bits + 1) + bits + 1).float() / denominators.float())


def test_sums_are_not_rounded_to_16_bits() -> None:
    """Under autocast: sums of 3000 codes, which bfloat16 cannot hold."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 2, (1, 1, 3000, 16), generator=generator) * 2.0 - 1.0
    v = torch.randn(1, 1, 3000, 4, generator=generator).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        got = binary_linear_attention(codes, v)
    assert got.dtype == torch.float32
    assert float((got - quadratic(codes, v, "own_token")).abs().max()) <= 1e-5


def test_an_unknown_numerator_is_refused() -> None:
    with pytest.raises(UsageError, match=r"binary attention: numerator must be one of own_token, sum, got 'all'; correct it"):
        binary_linear_attention(torch.ones(2, 2), torch.ones(2, 2), "all")  # type: ignore[arg-type]
