"""Every mixer against a plain reference that looks at each pair of tokens: real tokens only, heads in turn, work, export."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import UnknownName, UsageError
from edgetk.core.signature import Signature, TensorSpec
from edgetk.export.lower import lower
from edgetk.models.layers import mixers
from edgetk.models.layers.mixers import Mixer
from edgetk.targets import board
from edgetk.targets.count import count

HEADS, WIDTH, LENGTH = 3, 4, 23
#: small enough for several blocks in 23 tokens
SETTINGS: dict[str, dict[str, Any]] = {
    "bigbird": {"block": 4, "random": 1},
    "hard": {"keep": 6},
    "linformer": {"rank": 5},
    "local": {"block": 5},
    "longformer": {"window": 6, "globals_": 2},
    "performer": {"features": 10},
    "sinkhorn": {"block": 6, "iterations": 4},
    "sparse": {"block": 7, "summary": 2},
    "synthesizer": {"rank": 3},
}


def mixer(name: str, length: int = LENGTH) -> Mixer:
    torch.manual_seed(0)
    return mixers.make(name, HEADS, WIDTH, length, **SETTINGS.get(name, {})).eval()


def draw(tokens: int = LENGTH, seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    made = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(batch, HEADS, tokens, WIDTH, generator=made) for _ in range(3))
    return q, k, v


def seen(name: str, made: Any, head: int, tokens: int) -> Tensor:
    """(N, N): what token i sees of token j, pair by pair, for mixers that are softmax attention on some pairs."""
    allowed = torch.zeros(tokens, tokens, dtype=torch.bool)
    blocks = made.seen(-(-tokens // 4)) if name == "bigbird" else []
    for i in range(tokens):
        for j in range(tokens):
            if name == "softmax":
                allowed[i, j] = True
            elif name == "local":
                allowed[i, j] = i // 5 == j // 5
            elif name == "longformer":
                allowed[i, j] = abs(i - j) <= 3 or i < 2 or j < 2
            elif name == "sparse":
                allowed[i, j] = i // 7 == j // 7 if head % 2 == 0 else j % 7 >= 5
            elif name == "bigbird":
                allowed[i, j] = j // 4 in blocks[i // 4] or i // 4 in (0, -(-tokens // 4) - 1)
    return allowed


def reference(name: str, made: Any, q: Tensor, k: Tensor, v: Tensor, real: Tensor) -> Tensor:
    """By loops over samples, heads and tokens, in float64."""
    q, k, v = q.double(), k.double(), v.double()
    y = torch.zeros_like(v)
    tokens = q.shape[2]
    for b in range(q.shape[0]):
        for h in range(HEADS):
            shown, pairs = real[b].double(), seen(name, made, h, tokens)
            if name == "linformer":
                rows = made.projection[:, :tokens].double()
                keys, values = rows @ (k[b, h] * shown[:, None]), rows @ (v[b, h] * shown[:, None])
                y[b, h] = torch.softmax(q[b, h] @ keys.T / math.sqrt(WIDTH), -1) @ values
                continue
            for i in range(tokens):
                if name == "linear":
                    phi = [torch.where(x > 0, x + 1, torch.exp(x)) for x in (q[b, h, i], k[b, h])]
                    weights = (phi[1] @ phi[0]) * shown
                elif name == "performer":
                    x, z = (t * WIDTH**-0.25 for t in (q[b, h, i], k[b, h]))
                    w = made.directions.double()
                    weights = torch.exp(z @ w.T - z.square().sum(-1, keepdim=True) / 2) @ torch.exp(w @ x) * shown
                elif name == "synthesizer":
                    weights = torch.exp(made.right[h, :tokens].double() @ made.left[h, i].double()) * shown
                elif name == "hard":
                    weights = torch.exp(k[b, h] @ q[b, h, i] / math.sqrt(WIDTH)) * shown
                    largest = sorted(range(tokens), key=lambda j: -float(weights[j]))[:6]
                    y[b, h, i] = sum(weights[j] * v[b, h, j] for j in largest) / weights.sum()
                    continue
                else:
                    weights = torch.exp(k[b, h] @ q[b, h, i] / math.sqrt(WIDTH)) * shown * pairs[i]
                y[b, h, i] = (weights / weights.sum()) @ v[b, h]
    return y


@pytest.mark.parametrize("name", [n for n in mixers.names() if n != "sinkhorn"])
@pytest.mark.parametrize("tokens", [LENGTH, 16])
@torch.no_grad()
def test_equals_a_plain_reference(name: str, tokens: int) -> None:
    made = mixer(name)
    q, k, v = draw(tokens)
    real = torch.ones(2, tokens, dtype=torch.bool)
    expected = reference(name, made, q, k, v, real)
    assert torch.allclose(made(q, k, v).double(), expected, atol=1e-5)
    assert torch.allclose(made(q, k, v, real).double(), expected, atol=1e-5)
    real[1, tokens - 2 :] = False
    expected = reference(name, made, q, k, v, real)
    shown = real[:, None, :, None].expand_as(expected)  # what the others give means nothing
    assert torch.allclose(made(q, k, v, real).double()[shown], expected[shown], atol=1e-5)


@torch.no_grad()
def test_sinkhorn_by_hand() -> None:
    """Where the permutation is known, a block sees itself and the block that was brought to it."""
    torch.manual_seed(0)
    made: Any = mixers.make("sinkhorn", 1, 2, 6, block=2, iterations=20, temperature=0.02)
    made.sort.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]]))
    k = torch.tensor([[[[0.0, 1.0], [0.0, 1.0], [2.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-2.0, 0.0]]]])
    moves = made.permutation(k.view(1, 1, 3, 2, 2))[0, 0]
    assert torch.allclose(moves, torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), atol=1e-4)
    q, v = torch.randn(1, 1, 6, 2), torch.randn(1, 1, 6, 2)
    partner = [4, 5, 0, 1, 2, 3]
    for i in range(6):
        own = [i // 2 * 2, i // 2 * 2 + 1]
        pairs = own + [partner[j] for j in own]
        weights = torch.softmax(k[0, 0, pairs] @ q[0, 0, i] / math.sqrt(2), 0)
        assert torch.allclose(made(q, k, v)[0, 0, i], weights @ v[0, 0, pairs], atol=1e-3)
    rows = mixers.make("sinkhorn", 1, 2, 6, block=2).permutation(torch.randn(2, 1, 3, 2, 2))  # type: ignore[operator]
    assert torch.allclose(rows.sum(-2), torch.ones(2, 1, 3), atol=1e-5)


@pytest.mark.parametrize("name", mixers.names())
@torch.no_grad()
def test_tokens_that_are_none_change_nothing(name: str) -> None:
    made = mixer(name)
    q, k, v = draw()
    real = torch.arange(LENGTH).expand(2, -1) < torch.tensor([[LENGTH - 3], [LENGTH - 1]])
    other = [torch.where(real[:, None, :, None], x, 7.0) for x in (q, k, v)]
    shown = real[:, None, :, None]
    assert torch.allclose(made(q, k, v, real) * shown, made(*other, real) * shown, atol=1e-6)


@pytest.mark.parametrize("name", mixers.names())
@torch.no_grad()
def test_heads_may_take_turns(name: str) -> None:
    made = mixer(name)
    q, k, v = draw()
    real = torch.arange(LENGTH).expand(2, -1) < LENGTH - 2
    turns = [made(q[:, h : h + 1], k[:, h : h + 1], v[:, h : h + 1], real, first=h) for h in range(HEADS)]
    assert torch.allclose(torch.cat(turns, 1), made(q, k, v, real), atol=1e-6)


@given(st.integers(1, LENGTH), st.sampled_from(mixers.names()))
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_any_number_of_tokens_gives_finite_outputs(tokens: int, name: str) -> None:
    y = mixer(name)(*draw(tokens))
    assert y.shape == (2, HEADS, tokens, WIDTH)
    assert bool(torch.isfinite(y).all())


@pytest.mark.parametrize("name", [n for n in mixers.names() if n not in ("synthesizer",)])
def test_gradients_reach_queries_keys_and_values(name: str) -> None:
    made = mixer(name)
    inputs = [x.requires_grad_() for x in draw()]
    made(*inputs).square().sum().backward()
    assert all(x.grad is not None and float(x.grad.abs().max()) > 0 for x in inputs)


class Layer(nn.Module):
    """A mixer on three thirds of its input, as a graph."""

    def __init__(self, mixing: Mixer) -> None:
        super().__init__()
        self.mixing = mixing

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = x.view(*x.shape[:2], 3, HEADS, WIDTH).permute(2, 0, 3, 1, 4).unbind(0)
        y: Tensor = self.mixing(q, k, v, x.sum(-1) > -4.0).transpose(1, 2).flatten(2)
        return y


@pytest.mark.parametrize("name", mixers.names())
@torch.no_grad()
def test_the_exported_graph_computes_the_same_with_the_work_that_is_told(name: str) -> None:
    made = mixer(name)
    net = Layer(made).eval()
    shape = (LENGTH, 3 * HEADS * WIDTH)
    signature = Signature((TensorSpec("x", ("batch", *shape)),), (TensorSpec("y", ("batch", LENGTH, HEADS * WIDTH)),))
    low = lower(Bundle("layer", net, signature), board.load("host"))[0]
    x = torch.randn(2, *shape)
    session = ort.InferenceSession(low.graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x.numpy()})
    np.testing.assert_allclose(y, net(x).numpy(), atol=1e-5)
    assert count(low.graph, low.signature).macs == made.macs(LENGTH)


def test_each_says_what_it_is() -> None:
    assert mixers.names() == (
        "bigbird", "hard", "linear", "linformer", "local", "longformer", "performer", "sinkhorn", "softmax", "sparse",
        "synthesizer",
    )  # fmt: skip
    for name in mixers.names():
        kind = mixers.find(name)
        assert "N" in kind.complexity
        assert kind.streams
        assert "arXiv" in str(__import__(kind.__module__, fromlist=["x"]).__doc__)


@pytest.mark.parametrize("name", mixers.names())
def test_settings_out_of_range_are_refused(name: str) -> None:
    kind = mixers.find(name)
    for key in kind.settings():
        least = 0 if key in kind.may_be_zero else 1
        assert mixers.make(name, 4, 8, 60, **{key: least})(*draw_wide())[0].isfinite().all()
        for value in (least - 1, "3", float("nan")):
            with pytest.raises(UsageError, match=rf"mixer {name}: {key} must be a .*number .* 0, got .*; correct it"):
                mixers.make(name, 4, 8, 60, **{key: value})
    if name == "local":
        with pytest.raises(UsageError, match=r"mixer local: block must be a whole number above 0, got 1\.5; correct it"):
            mixers.make(name, 4, 8, 60, block=1.5)


def draw_wide() -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = torch.randn(3, 2, 4, 60, 8, generator=torch.Generator().manual_seed(5))
    return q, k, v


def test_errors() -> None:
    with pytest.raises(UnknownName, match=r"mixer 'softmx': no such mixer; .*softmax"):
        mixers.find("softmx")
    with pytest.raises(UsageError, match=r"mixer local: a setting must be one of its own, got 'blocks'; .*block"):
        mixers.make("local", 1, 2, 3, blocks=4)
    with pytest.raises(UsageError, match=r"mixer sinkhorn: at most 24 tokens were planned for, got 30; make it with a larger"):
        mixer("sinkhorn")(*draw(30))
