"""MemoryFormer: the paper's shapes and counts to the digit, the block by hand, causality, gradients, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgetk.core.errors import UsageError
from edgetk.models import _memoryformer_costs as costs
from edgetk.models._memoryformer_parts import DenseBlock, MemoryBlock, Rotary, attend
from edgetk.models.layers.memory_layer import MemoryLayer
from edgetk.models.memoryformer import PUBLISHED, VARIANTS, MemoryFormer, build

SMALL: dict[str, Any] = {"vocabulary": 50, "length": 12, "classes": 50, "layers": 2, "dim": 16, "heads": 2, "causal": True}


def made(**changes: Any) -> MemoryFormer:
    torch.manual_seed(0)
    net: MemoryFormer = build("lm", **{**SMALL, "std": None, **changes}).body
    return net


# --- counts


@pytest.mark.parametrize(
    ("name", "layers", "dim", "tables", "dense", "dense_total", "total"),
    [
        ("paper-tiny", 6, 512, 64, 6.4e9, 10.7e9, 4.7e9),
        ("paper-small", 12, 768, 96, 14.5e9, 20.9e9, 7.3e9),  # printed as 7.4, of 1.0 where its formula gives 0.906
        ("paper-base", 24, 1024, 128, 25.8e9, 34.4e9, 10.2e9),
    ],
)
def test_the_paper_s_table_of_sizes(
    name: str, layers: int, dim: int, tables: int, dense: float, dense_total: float, total: float
) -> None:
    c = PUBLISHED[name]
    assert (c.layers, c.dim, c.dim // c.bits, c.bits, c.extra) == (layers, dim, tables, 8, 2)
    attention = costs.attention_macs(2048, dim)
    for got, printed in (
        (costs.dense_macs(2048, dim), dense),
        (costs.dense_macs(2048, dim) + attention, dense_total),
        (costs.rounded_memory_macs(2048, dim, tables) + attention, total),
    ):
        assert round(got / 1e9, 1) == round(printed / 1e9, 1)


def test_counts_of_the_tiny_block_to_the_digit() -> None:
    assert costs.dense_macs(2048, 512) == 6_442_450_944
    assert costs.rounded_memory_macs(2048, 512, 64) == 402_653_184
    assert costs.attention_macs(2048, 512) == 4_294_967_296
    assert costs.memory_macs(2048, 512, 8, 2) == 2048 * 64 * (3 * 520 + 8 + 640 + 10 + 512)
    assert costs.table_entries(512, 8, 2) == 69_206_016
    assert costs.table_entries(512, 8, 2) / (12 * 512**2) == 22.0
    assert 2 * costs.table_entries(512, 8, 2) * 6 == 830_472_192  # bytes of six blocks in half precision
    assert costs.bytes_read(512, 8, 2, entry_bytes=2) == 344_064
    assert round(12 * 512**2 * 2 / costs.bytes_read(512, 8, 2, 2)) == 18


@pytest.mark.parametrize(("extra", "half_bytes"), [(0, 33_554_432), (1, 52_428_800), (2, 88_080_384), (3, 157_286_400)])
def test_bytes_of_the_two_feed_forward_layers(extra: int, half_bytes: int) -> None:
    assert 2 * costs.feed_forward_entries(512, 8, extra) == half_bytes


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_hold_what_the_formulas_say(name: str) -> None:
    c = PUBLISHED[name]
    with torch.device("meta"):
        net = build(name).module
    layers = [m for m in net.modules() if isinstance(m, MemoryLayer)]
    block = net.get_submodule("blocks.0")
    assert sum(m.tables.numel() for m in layers) == c.layers * costs.table_entries(c.dim, c.bits, c.extra)
    hashed_once = 2 * c.dim  # queries, keys and values share a hash, which the paper counts three times
    tables = [m for m in block.modules() if isinstance(m, MemoryLayer)]
    assert sum(m.macs() for m in tables) == costs.memory_macs(1, c.dim, c.bits, c.extra) - hashed_once
    assert {name: p.numel() for name, p in net.named_parameters() if name.startswith(("head", "embed"))} == {
        "embed.weight": 50304 * c.dim,
        "head.weight": 50304 * c.dim,
        "head.bias": 50304,
    }


def test_one_token_of_a_block_moves_as_many_rows_as_there_are_tables() -> None:
    net = made()
    net.running(torch.full((1, 12), 7.0))[0, 0].sum().backward()  # only the first token matters, and sees only itself
    for name, layer in net.named_modules():
        if isinstance(layer, MemoryLayer):
            assert layer.tables.grad is not None
            touched = (layer.tables.grad.abs().sum(-1) > 0).sum(1)
            assert touched.max() == 1, name


# --- what it computes


def test_block_by_its_equation() -> None:
    block = made().get_submodule("blocks.0")
    assert isinstance(block, MemoryBlock)
    rotary, x = Rotary(12, 8), torch.randn(2, 12, 16)
    z = x + attend(block.qkv(block.norm1(x)), 2, rotary, True)
    expected = z + block.reduce(block.norm3(block.expand(block.norm2(z))))
    torch.testing.assert_close(block(x, rotary), expected)
    assert (block.expand.out_features, block.reduce.bits, block.reduce.count) == (4 * 6, 6, 4)


def test_attention_is_softmax_of_turned_queries_and_keys() -> None:
    rotary, qkv = Rotary(5, 8), torch.randn(1, 5, 24)
    q, k, v = qkv[0].split(8, dim=-1)
    q, k = rotary(q[None, None])[0, 0], rotary(k[None, None])[0, 0]
    scores = (q @ k.T / 8**0.5).masked_fill(torch.ones(5, 5).triu(1) > 0, -torch.inf)
    torch.testing.assert_close(attend(qkv, 1, rotary, causal=True)[0], torch.softmax(scores, -1) @ v)


def test_turned_products_depend_on_the_distance_only() -> None:
    rotary = Rotary(9, 16)
    q, k = (rotary(torch.randn(1, 1, 1, 16).expand(1, 1, 9, 16))[0, 0] for _ in range(2))
    products = q @ k.T
    for distance in range(-3, 4):
        line = torch.diagonal(products, distance)
        torch.testing.assert_close(line, line[:1].expand_as(line))
    assert float((torch.diagonal(products, 0)[0] - torch.diagonal(products, 3)[0]).abs()) > 1e-3


@pytest.mark.parametrize("blocks", ["memory", "dense"])
def test_a_causal_model_decides_by_what_came_before(blocks: str) -> None:
    net = made(blocks=blocks)
    x = torch.randint(0, 50, (3, 12)).float()
    later = x.clone()
    later[:, 7:] = 1.0
    running = net.running(x)
    torch.testing.assert_close(net.running(later)[:, :7], running[:, :7])
    assert not torch.equal(net.running(later)[:, 7:], running[:, 7:])
    torch.testing.assert_close(net(x), running[:, -1])


def test_others_decide_by_the_mean_over_all_tokens() -> None:
    net = made(causal=False, classes=3)
    x = torch.randint(0, 50, (2, 12)).float()
    torch.testing.assert_close(net(x), net.head(net.tokens(x).mean(1)))
    turned = x.flip(1)
    assert not torch.allclose(net(turned), net(x))  # places count


def test_several_bytes_or_frames_make_a_token() -> None:
    net = made(causal=False, patch=4)
    x = torch.randint(0, 50, (2, 12)).float()
    assert net.tokens(x).shape == (2, 3, 16)
    frames: MemoryFormer = build("base", layers=1).body
    assert frames.tokens(torch.randn(2, 128, 128)).shape == (2, 32, 96)


def test_what_is_no_token_number_counts_as_the_nearest() -> None:
    net = made()
    odd = torch.tensor([[-3.0, 0.4, 48.6, 999.0] * 3])
    torch.testing.assert_close(net(odd), net(torch.tensor([[0.0, 0.0, 49.0, 49.0] * 3])))


def test_gradients_reach_every_parameter() -> None:
    for blocks in ("memory", "dense"):
        net = made(blocks=blocks)
        net.running(torch.randint(0, 50, (8, 12)).float()).square().sum().backward()
        assert all(p.grad is not None and bool((p.grad != 0).any()) for p in net.parameters())


def entropy(x: Tensor) -> float:
    """Of how often the rows of tables of 256 are named by tokens x (N, C): 1 is even."""
    index, _ = MemoryLayer(x.shape[1], 1, 8).rows(x)
    counts = torch.stack([index[:, k].bincount(minlength=256) for k in range(index.shape[1])]).double()
    share = counts / counts.sum(1, keepdim=True)
    return float(torch.special.entr(share).sum(1).mean() / torch.tensor(256.0).log())


def test_norms_fill_the_buckets() -> None:
    """With norms the rows of a table are used evenly; without them the mean of the coordinates leaves most of them alone."""
    x = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(0)) + 1.0
    assert entropy(nn.LayerNorm(64)(x).detach()) > 0.9
    assert entropy(x) < 0.75


def test_norms_spread_real_features_too_though_neighbouring_bands_are_alike() -> None:
    from edgetk.tasks.speech_commands import TASK

    frames = TASK.open(None).calibration(64).flatten(0, 1)
    raw, normed = entropy(frames), entropy(nn.functional.layer_norm(frames, (128,)))
    assert normed > raw + 0.1
    assert (raw, normed) == pytest.approx((0.31, 0.50), abs=0.03)  # far below the 0.9 of uncorrelated coordinates


# --- variants


def test_every_table_size_has_a_dense_twin() -> None:
    assert set(VARIANTS) == {"base", "dense", "text", "text-dense", "lm", "lm-dense"}
    assert build("base").name == "memoryformer"
    assert build("lm-dense").task == "imdb-bytes-lm"
    dense = build("dense").module
    assert any(isinstance(m, DenseBlock) for m in dense.modules())
    assert not any(isinstance(m, MemoryLayer) for m in dense.modules())


def test_shipped_sizes_stay_below_three_megabytes_with_int8_tables() -> None:
    for variant in ("base", "text", "lm"):
        net = build(variant).module
        tables = sum(m.tables.numel() for m in net.modules() if isinstance(m, MemoryLayer))
        rest = sum(p.numel() for p in net.parameters()) - tables
        assert tables + 4 * rest < 3_000_000


def test_pruning_may_take_what_dense_blocks_offer() -> None:
    net: MemoryFormer = build("dense", layers=2).body
    assert [(g.name, g.size, g.reader) for g in net.groups()] == [
        (f"blocks.{i}.ffn", 384, f"blocks.{i}.reduce") for i in range(2)
    ]
    assert build("base", layers=1).body.groups() == ()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"blocks": "half"}, "memoryformer: blocks must be one of memory, dense, got 'half'; correct it"),
        ({"heads": 3}, "memoryformer: heads must divide 16, got 3; change one of them"),
        ({"patch": 5}, "memoryformer: patch must divide 12, got 5; change one of them"),
        ({"patch": 3}, "memoryformer: patch of tokens must divide 16, got 3; change one of them"),
        ({"extra": -1}, "memoryformer: extra must be at least 0, got -1; correct it"),
        ({"bits": 5}, "memoryformer: blocks.0.qkv: inputs must be a multiple of the hash's 5 bits"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        made(**changes)
