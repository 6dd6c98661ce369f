"""Selective hard attention: which weights stay, what that may cost, and how attentions are switched."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgetk.core.errors import UsageError
from edgetk.models import wide
from edgetk.models._bert_encoder import BertEncoder, Config
from edgetk.models.layers import mixers
from edgetk.models.layers.hard_attention import largest, mix, product_macs

WIDE = {"heads": 2, "dim": 8, "head_width": 4, "ffn": 12, "length": 10, "features": 6}


def test_by_hand() -> None:
    weights = torch.tensor([[0.5, 0.1, 0.25, 0.15], [0.1, 0.4, 0.4, 0.1], [0.25, 0.25, 0.25, 0.25]])
    kept = torch.tensor([[0.5, 0.0, 0.25, 0.0], [0.0, 0.4, 0.4, 0.0], [0.25, 0.25, 0.0, 0.0]])
    assert torch.equal(largest(weights, 2), kept)  # of equal weights the first ones
    values = torch.tensor([[8.0], [16.0], [32.0], [64.0]])
    assert torch.allclose(mix(weights, values, 2), torch.tensor([[12.0], [19.2], [6.0]]))


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(1, 45), st.floats(0, 8), st.integers(0, 2**31))
def test_laws(tokens: int, keep: int, sharpness: float, seed: int) -> None:
    """Rows sum up to the kept mass, at most 1; the error stays within (1 - mass) max |v|; K at least n changes nothing."""
    made = torch.Generator().manual_seed(seed)
    weights = (sharpness * torch.randn(3, 5, tokens, generator=made, dtype=torch.float64)).softmax(-1)
    values = torch.randn(3, tokens, 4, generator=made, dtype=torch.float64)
    kept = largest(weights, keep)
    mass = weights.sort(-1, descending=True).values[..., :keep].sum(-1)
    assert torch.allclose(kept.sum(-1), mass, atol=1e-12)
    assert bool((mass <= 1 + 1e-12).all())
    assert bool(((kept == 0) | (kept == weights)).all())  # nothing is rescaled
    assert bool((kept.count_nonzero(-1) == min(keep, tokens)).all())
    error = (mix(weights, values, keep) - weights @ values).norm(dim=-1)
    bound = (1 - mass) * values.norm(dim=-1).max(-1, keepdim=True).values
    assert bool((error <= bound + 1e-12).all())
    if keep >= tokens:
        assert torch.equal(mix(weights, values, keep), weights @ values)


def test_multiply_accumulates_of_a_head() -> None:
    assert product_macs(128, 32, 30) == 128 * 30 * 32
    assert product_macs(128, 32) == product_macs(128, 32, 200) == 128 * 128 * 32
    tokens = 513
    made = [mixers.make(name, 16, 64, tokens).macs(tokens) for name in ("softmax", "hard")]
    assert made[0] - made[1] == 16 * tokens * (tokens - 30) * 64


def test_gradients_reach_what_is_kept_only() -> None:
    weights = torch.tensor([[0.5, 0.1, 0.4]], requires_grad=True)
    largest(weights, 2).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [[1.0, 0.0, 1.0]]


@torch.no_grad()
def test_the_attention_of_a_bert_encoder_is_switched_layer_by_layer() -> None:
    torch.manual_seed(0)
    net = BertEncoder(Config(length=9, positions=9, vocabulary=40, dim=8, layers=2, heads=2, ffn=8)).eval()
    for layer in net.layers:
        layer.attention.query.weight.normal_()
    x = torch.randint(1, 40, (3, 9))
    soft = net(x)
    attention = net.layers[0].attention
    attention.hard = 3
    assert attention.hashed
    hard = net(x)
    assert not torch.allclose(hard, soft, atol=1e-5)
    states, padding = net._embed(x)
    q, k, v = (part(states).unflatten(-1, (2, 4)).transpose(1, 2) for part in (attention.query, attention.key, attention.value))
    weights = (q @ k.transpose(-2, -1) / 2.0).softmax(-1)
    by_hand = torch.zeros_like(v)
    for row in torch.cartesian_prod(torch.arange(3), torch.arange(2), torch.arange(9)).tolist():
        for j in weights[tuple(row)].argsort(descending=True)[:3].tolist():
            by_hand[tuple(row)] += weights[(*row, j)] * v[(*row[:2], j)]
    expected = attention.output(by_hand.transpose(1, 2).flatten(2))
    assert torch.allclose(attention(states, padding), expected, atol=1e-6)
    attention.hard = 0
    assert torch.equal(net(x), soft)
    attention.hard = 9
    assert torch.equal(net(x), soft)


def test_all_layers_from_the_start_and_padding() -> None:
    config = {"length": 9, "positions": 9, "vocabulary": 40, "dim": 8, "layers": 2, "heads": 2, "ffn": 8}
    torch.manual_seed(0)
    net = BertEncoder(Config(**config, hard=3)).eval()
    assert [layer.attention.hard for layer in net.layers] == [3, 3]
    x = torch.randint(1, 40, (1, 9))
    x[:, 5:] = 0
    with torch.no_grad():
        assert torch.allclose(net(x), net(x[:, :5]), atol=1e-6)  # padding is never among the largest
    with pytest.raises(
        UsageError, match=r"bert: hard must be at least 0, the weights a query keeps \(0: all\), got -1; correct"
    ):
        Config(hard=-1)


def wide_attention(bundle_mixer: str = "softmax", turns: int = 0) -> wide.WideEncoder:
    torch.manual_seed(0)
    net = wide.build("kws", **WIDE, mixer=bundle_mixer, turns=turns).module
    assert isinstance(net, wide.WideEncoder)
    return net


@torch.no_grad()
def test_wide_attention_is_switched_and_equals_the_mixer() -> None:
    net = wide_attention()
    x: Tensor = torch.randn(2, 10, 6)
    soft = net(x)
    attention = net.layers[0].attention
    assert attention.hard == 0
    attention.hard = 4
    assert (attention.hard, mixers.name_of(attention.mixer)) == (4, "hard")
    built = wide.build("kws", **WIDE, mixer="hard", settings={"keep": 4}).module
    built.load_state_dict(net.state_dict())
    assert torch.equal(net(x), built(x))
    assert not torch.allclose(net(x), soft, atol=1e-6)
    in_turns = wide_attention(turns=1)
    in_turns.load_state_dict(net.state_dict())
    in_turns.layers[0].attention.hard = 4
    assert torch.allclose(in_turns(x), net(x), atol=1e-6)
    again = copy.deepcopy(net)
    again.layers[0].attention.hard = 0
    assert torch.equal(again(x), soft)


def test_what_cannot_be_hard() -> None:
    attention = wide_attention("linear").layers[0].attention
    with pytest.raises(UsageError, match="wide: hard keeps weights of a softmax, got the mixer linear; build the model with"):
        attention.hard = 3
    with pytest.raises(UsageError, match=r"wide: hard must be at least 0, .*got -2; correct it"):
        wide_attention().layers[0].attention.hard = -2
    with pytest.raises(UsageError, match="mixer hard: keep must be a whole number above 0, got 0; correct it"):
        mixers.make("hard", 2, 4, 10, keep=0)
