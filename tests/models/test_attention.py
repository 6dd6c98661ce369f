"""Attention layers: softmax against torch's own, reduced against its definition, hashed against recorded outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgetk.core.errors import InputError
from edgetk.models.layers.attention import ReducedAttention, SoftmaxAttention, merge_heads, split_heads
from edgetk.models.layers.hashed_attention import HashedAttention, freeze_sigma, learn_hashes

DATA = Path(__file__).parent.parent / "data"


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Two(nn.Module):
    """Two hashed attentions, the second on what the first gives."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = HashedAttention(8, 2, bits=4), HashedAttention(8, 2, bits=4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


@torch.no_grad()
def test_softmax_attention_is_torchs() -> None:
    torch.manual_seed(0)
    layer, x = SoftmaxAttention(12, 3), tokens(2, 7, 12)
    q, k, v = (split_heads(part, 3) for part in layer.qkv(x).split(12, dim=-1))
    wanted = layer.proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
    assert torch.allclose(layer(x), wanted, atol=1e-6)


@torch.no_grad()
def test_reduced_attention_attends_to_patches_of_the_grid() -> None:
    torch.manual_seed(0)
    layer, x = ReducedAttention(8, 2, reduction=2), tokens(1, 24, 8)
    assert layer.reduce is not None
    assert layer.norm is not None
    patches = x.view(1, 2, 2, 3, 2, 8).permute(0, 1, 3, 2, 4, 5).reshape(1, 6, 4, 8)  # a grid of 4 x 6 in patches of 2 x 2
    weight = layer.reduce.weight.flatten(2)  # (out, in, 4)
    coarse = layer.norm(torch.einsum("bnpi,oip->bno", patches, weight) + layer.reduce.bias)
    k, v = (split_heads(part, 2) for part in layer.kv(coarse).split(8, dim=-1))
    wanted = layer.proj(merge_heads(F.scaled_dot_product_attention(split_heads(layer.q(x), 2), k, v)))
    assert torch.allclose(layer(x, (4, 6)), wanted, atol=1e-6)


@torch.no_grad()
def test_reduction_by_one_is_softmax_attention() -> None:
    torch.manual_seed(0)
    reduced, full, x = ReducedAttention(8, 2, reduction=1), SoftmaxAttention(8, 2), tokens(2, 6, 8)
    full.proj.load_state_dict(reduced.proj.state_dict())
    full.qkv.weight.copy_(torch.cat([reduced.q.weight, reduced.kv.weight]))
    full.qkv.bias.copy_(torch.cat([reduced.q.bias, reduced.kv.bias]))
    assert torch.allclose(reduced(x, (2, 3)), full(x), atol=1e-6)


def test_hashed_attention_gives_the_recorded_outputs_and_gradient() -> None:
    with np.load(DATA / "eco_self_attention.npz") as file:
        recorded = {key: torch.from_numpy(file[key]) for key in file.files}
    layer = HashedAttention(24, 3)
    here = {key.removeprefix("w.").replace("fast_attention.ksh", "hash"): recorded[key] for key in recorded if key[:2] == "w."}
    layer.load_state_dict({**here, "hash.learned": torch.tensor(2, dtype=torch.uint8)})
    x = recorded["x"].requires_grad_()
    assert float(recorded["pre_sign"].abs().min()) > 5e-5  # far enough from 0 for the codes to be compared
    assert torch.equal(layer.codes(x), recorded["codes"].float())
    y = layer(x)
    assert float((y.detach() - recorded["y"]).abs().max()) <= 1e-6
    (y * recorded["w"]).sum().backward()
    assert x.grad is not None
    assert float((x.grad - recorded["grad_x"]).abs().max()) <= 1e-6
    assert {name for name, p in layer.named_parameters() if p.grad is None} == set()


def test_hashes_are_learned_in_the_order_of_the_layers_and_once() -> None:
    net, x = Two(), tokens(2, 30, 8)
    net.train()
    net.first.eval()
    assert learn_hashes(net, x, torch.Generator().manual_seed(0)) == ("first", "second")
    assert (net.training, net.first.training, net.second.training) == (True, False, True)
    generator = torch.Generator().manual_seed(0)
    by_hand = Two()
    by_hand.first.learn(x, generator)
    by_hand.second.learn(by_hand.first(x), generator)
    for a, b in zip(net.state_dict().values(), by_hand.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    before = [value.clone() for value in net.state_dict().values()]
    assert learn_hashes(net, tokens(2, 30, 8, seed=1)) == ()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), before, strict=True))


def test_a_failed_learning_leaves_no_trace_of_itself() -> None:
    net = Two()
    with pytest.raises(InputError, match=r"hashed attention: learning needs \(B, 2, N, 4\) with N >= 25, got \(1, 2, 9, 4\)"):
        learn_hashes(net, tokens(1, 9, 8))
    assert not net.first._forward_pre_hooks
    assert learn_hashes(net, tokens(1, 30, 8)) == ("first", "second")


def test_frozen_sigmas_are_those_of_the_batch() -> None:
    net, x = Two(), tokens(2, 30, 8)
    learn_hashes(net, x)
    z = split_heads(net.first.to_qk(x), 2)
    _, sigma = net.first.hash.kernel(z / z.norm(dim=-1, keepdim=True))
    freeze_sigma(net, x)
    assert net.first.hash.sigma is not None
    assert torch.allclose(net.first.hash.sigma, sigma.mean(0, keepdim=True), atol=1e-6)
    assert net.second.hash.sigma is not None
