"""Wide encoders: the published numbers of parameters, heads in turns, silent heads, work and memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgetk.core.contracts import Lowered
from edgetk.core.errors import UsageError
from edgetk.export import parity
from edgetk.export.lower import lower
from edgetk.models.layers import mixers
from edgetk.models.layers.pooled_attention import PooledAttention
from edgetk.models.wide import VARIANTS, Config, WideAttention, WideEncoder, build, sinusoids
from edgetk.targets import board
from edgetk.targets.count import count

#: arXiv:2210.00640's shapes by its rule: 4 d A + 2 d f + f + 5 d a layer, 257 d, and f d + 2 f of the head
PARAMETERS = {
    "6x8": 20_086_272, "3x16": 13_780_992, "2x24": 11_679_232, "1x48": 9_577_472,
    "4x4": 3_484_928, "2x8": 2_431_744, "1x16": 1_905_152,
}  # fmt: skip
SMALL = Config(heads=4, dim=16, head_width=4, ffn=24, length=31)


def parameters(variant: str) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in WideEncoder(VARIANTS[variant]).parameters())


@pytest.mark.parametrize("variant", PARAMETERS)
def test_parameters_are_the_published_rules(variant: str) -> None:
    assert parameters(variant) == PARAMETERS[variant]


def test_only_feed_forward_layers_go_with_the_depth() -> None:
    for deep, wide in (("6x8", "1x48"), ("4x4", "1x16")):
        c = VARIANTS[deep]
        per_layer = 2 * c.dim * c.ffn + c.ffn + 5 * c.dim
        assert parameters(deep) - parameters(wide) == (c.layers - 1) * per_layer


@pytest.mark.parametrize("name", mixers.names())
@pytest.mark.parametrize("turns", [1, 3])
@torch.no_grad()
def test_heads_in_turns_give_the_same(name: str, turns: int) -> None:
    torch.manual_seed(0)
    whole = WideAttention(replace(SMALL, mixer=name)).eval()
    parts = WideAttention(replace(SMALL, mixer=name, turns=turns)).eval()
    parts.load_state_dict(whole.state_dict())
    x = torch.randn(2, 32, 16)
    real = torch.arange(32).expand(2, -1) < 30
    assert torch.allclose(whole(x, real)[:, :30], parts(x, real)[:, :30], atol=1e-5)


@torch.no_grad()
def test_heads_take_turns_behind_layers_that_passes_made() -> None:
    torch.manual_seed(0)
    whole, parts = WideAttention(SMALL).eval(), WideAttention(replace(SMALL, turns=3)).eval()
    for name in ("to_q", "to_k", "to_v", "proj"):
        layer = nn.Sequential(nn.Linear(16, 5, bias=False), nn.Linear(5, 16, bias=False))
        layer.in_features = 16
        for attention in (whole, parts):
            attention.set_submodule(name, layer)
    x = torch.randn(2, 20, 16)
    real = torch.arange(20).expand(2, -1) < 15
    assert torch.allclose(whole(x, real)[:, :15], parts(x, real)[:, :15], atol=1e-5)
    assert torch.allclose(whole(x, real, 1), parts(x, real, 1), atol=1e-5)


@torch.no_grad()
def test_who_listens_hears_every_layer_of_heads_in_turns() -> None:
    torch.manual_seed(0)
    attention, heard = WideAttention(replace(SMALL, turns=1)).eval(), []
    x = torch.randn(2, 20, 16)
    before = attention(x)
    for name in ("to_q", "to_k", "to_v", "proj"):
        getattr(attention, name).register_forward_pre_hook(lambda *_, name=name: heard.append(name))
    assert torch.allclose(attention(x), before, atol=1e-5)
    assert heard == ["to_q", "to_k", "to_v", "proj"]


@torch.no_grad()
def test_a_head_whose_part_of_the_output_is_zero_may_go() -> None:
    torch.manual_seed(0)
    wide = WideAttention(SMALL).eval()
    wide.proj.weight[:, 4:8] = 0
    assert wide.silent_heads() == [1]
    narrow = WideAttention(replace(SMALL, heads=3)).eval()
    kept = [i for i in range(16) if not 4 <= i < 8]
    for name in ("to_q", "to_k", "to_v"):
        getattr(narrow, name).weight.copy_(getattr(wide, name).weight[kept])
    narrow.proj.weight.copy_(wide.proj.weight[:, kept])
    x = torch.randn(2, 20, 16)
    assert torch.allclose(wide(x), narrow(x), atol=1e-6)


@torch.no_grad()
def test_padding_and_what_is_behind_it_change_nothing() -> None:
    torch.manual_seed(0)
    net = WideEncoder(SMALL).eval()
    x = torch.randint(1, 256, (2, 31)).float()
    x[:, 20:] = 0
    longer = net(x)
    with torch.no_grad():
        net.embedding.weight[0] = 9.0  # what padding is embedded as
    assert torch.allclose(net(x), longer, atol=1e-5)
    assert not torch.allclose(net(torch.where(x > 0, x - 1, x).clamp_min(1)), longer, atol=1e-3)


def macs_run(net: WideEncoder) -> int:
    """Multiply-accumulates of all products for one input, as torch counts them while it runs."""
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        net(torch.ones(1, net.config.length))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("shape", [(4, 4), (1, 16)])
def test_work_is_the_closed_form(shape: tuple[int, int]) -> None:
    layers, heads = shape
    n, inner = 32, heads * 4
    expected = layers * n * (4 * 16 * inner + 2 * 16 * 24 + 2 * n * inner) + 16 * 24 + 24 * 2
    assert macs_run(WideEncoder(replace(SMALL, layers=layers, heads=heads, last="all")).eval()) == expected


@pytest.mark.parametrize("last", ["class", "all"])
@pytest.mark.parametrize("name", ["softmax", "linear", "linformer", "performer", "local"])
def test_work_is_what_the_elements_say(name: str, last: Any) -> None:
    net = WideEncoder(replace(SMALL, layers=2, mixer=name, last=last)).eval()
    assert sum(block.macs for block in net.elements()) + 16 * 24 + 24 * 2 == macs_run(net)


def test_the_exported_graph_computes_the_class_token_alone() -> None:
    low = lower(build("1x16", heads=4, dim=16, head_width=4, ffn=24, length=31), board.load("host"))[0]
    keys_and_values, one_query, mixing = 32 * 2 * 16 * 16, 2 * 16 * 16, 2 * 32 * 16
    expected = keys_and_values + one_query + mixing + 2 * 16 * 24 + 16 * 24 + 24 * 2
    assert count(low.graph, low.signature).macs == expected


@pytest.mark.parametrize("name", mixers.names())
@torch.no_grad()
def test_a_last_layer_of_the_class_token_alone_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    config = replace(SMALL, layers=2, mixer=name)
    published, short = WideEncoder(replace(config, last="all")).eval(), WideEncoder(config).eval()
    short.load_state_dict(published.state_dict())
    x = torch.randint(1, 256, (3, 31)).float()
    x[1, 12:] = 0
    assert torch.allclose(short(x), published(x), atol=1e-5)


@pytest.mark.parametrize("variant", ["1x16", "kws"])
@torch.no_grad()
def test_a_query_that_never_changes_is_multiplied_out(variant: str) -> None:
    torch.manual_seed(0)
    net = build(variant, heads=3, dim=16, head_width=4, ffn=24, length=31, features=8, classes=2).module
    layer: Any = net.layers[0]
    layer.attention_norm.weight.uniform_(0.5, 2.0)
    layer.attention_norm.bias.normal_()
    x = torch.randint(0, 256, (3, 31)).float() if variant == "1x16" else torch.randn(3, 31, 8)
    x[1, 12:] = 0
    before, size = net(x), sum(p.numel() for p in net.parameters())
    assert net.fold_norms() == ("layers.0.attention_norm",)
    assert isinstance(layer.attention, PooledAttention)
    assert torch.allclose(net(x), before, atol=1e-5)
    # queries and keys become a vector a head, the norm a bias of the values
    assert size - sum(p.numel() for p in net.parameters()) == 2 * 16 * 12 - 3 * 16 + 2 * 16 - 12
    assert net.fold_norms() == ()


@pytest.mark.parametrize("other", [{"layers": 2}, {"mixer": "linear"}, {"last": "all"}])
def test_nothing_is_multiplied_out_of_other_encoders(other: dict[str, Any]) -> None:
    assert WideEncoder(replace(SMALL, **other)).fold_norms() == ()


def test_memory_for_scores_does_not_grow_with_the_heads_in_turns() -> None:
    def lowered(heads: int, turns: int) -> Lowered:
        torch.manual_seed(0)
        made = build("1x16", heads=heads, dim=16, head_width=4, ffn=8, length=127, turns=turns, last="all")
        return lower(made, board.load("host"))[0]

    def peak(low: Lowered) -> int:
        return count(low.graph, low.signature).peak_activation_bytes

    scores = 128 * 128 * 4
    four, together = lowered(4, 1), lowered(4, 0)
    assert peak(together) >= 4 * scores
    assert peak(four) < 3 * scores  # as many as one head needs
    x = np.random.default_rng(0).integers(1, 256, (2, 127)).astype(np.float32)
    expected, streamed = (parity.run_once(low.graph.SerializeToString(), (x,))[0] for low in (together, four))
    np.testing.assert_allclose(streamed, expected, atol=1e-5)


def test_positions_by_hand() -> None:
    rows = sinusoids(3, 4)
    assert torch.allclose(rows[0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    assert torch.allclose(rows[2], torch.tensor([0.9092974, 2e-4, -0.4161468, 1.0]), atol=1e-6)


def test_errors() -> None:
    with pytest.raises(UsageError, match=r"wide: heads must be at least 1, got 0; correct it"):
        Config(heads=0)
    with pytest.raises(UsageError, match=r"wide: dim must be even, for sines and cosines of positions, got 15; correct it"):
        Config(dim=15)
    with pytest.raises(UsageError, match=r"wide: last must be one of class, all, got 'cls'; correct it"):
        Config(last="cls")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"wide: turns must be in \[0, 16\], the number of heads, got 17; correct it"):
        Config(turns=17)
