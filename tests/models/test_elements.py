"""Blocks and parts: masked and deleted models agree, bytes to the digit, everything comes back, modules of users."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgetk.core.errors import PreconditionError
from edgetk.models import ecoformer, lmuformer, memoryformer, wide
from edgetk.models._bert_encoder import BertEncoder, Config
from edgetk.models.layers.elements import (
    Block,
    Constant,
    Gone,
    declared,
    macs_of,
    memory_block,
    parameters_of,
)
from edgetk.models.layers.removal import Masks, delete

TINY = Config(length=12, vocabulary=60, positions=16, dim=24, layers=2, heads=3, ffn=40)


def bert() -> BertEncoder:
    torch.manual_seed(0)
    return BertEncoder(TINY).eval()


def tokens(rows: int = 5) -> Tensor:
    x = torch.randint(1, 60, (rows, 12), generator=torch.Generator().manual_seed(1)).float()
    x[0, 7:] = 0
    return x


def wide_net(**config: Any) -> nn.Module:
    torch.manual_seed(0)
    small = {"layers": 2, "heads": 3, "dim": 16, "head_width": 8, "ffn": 24, "length": 12, "vocabulary": 60}
    return wide.build("1x16", **{**small, **config}).module


def eco(variant: str) -> nn.Module:
    torch.manual_seed(0)
    shape = {"size": (16, 8), "patch": (3, 1), "dims": (8, 16), "depths": (1, 2), "heads": (2, 4), "mlp_ratios": (2, 2)}
    return ecoformer.build(variant, **shape, reductions=(2, 1), classes=3).module


def lmu() -> nn.Module:
    torch.manual_seed(0)
    shape = {"widths": (16, 16, 16, 16), "order": 8, "hidden": 16, "ffn": 32, "features": 8, "frames": 16, "classes": 3}
    return lmuformer.build("xs", **shape).module


def sound(channels: int = 8) -> Tensor:
    return torch.randn(3, 16, channels, generator=torch.Generator().manual_seed(2))


def memory(variant: str, **config: Any) -> nn.Module:
    torch.manual_seed(0)
    shape = {"vocabulary": 60, "length": 12, "classes": 3, "layers": 2, "dim": 24, "heads": 3, "patch": 1, "std": None}
    return memoryformer.build(variant, **{**shape, **config}).module


NETS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "bert": (bert, tokens),
    "wide": (wide_net, tokens),
    "wide, two heads at a time": (lambda: wide_net(turns=2), tokens),
    "wide, linear": (lambda: wide_net(mixer="linear"), tokens),
    "wide, linformer": (lambda: wide_net(mixer="linformer"), tokens),
    "ecoformer": (lambda: eco("kws"), sound),
    "ecoformer, softmax": (lambda: eco("kws-msa"), sound),
    "ecoformer, reduced": (lambda: eco("kws-sra"), sound),
    "lmuformer": (lmu, sound),
    "memoryformer": (lambda: memory("lm"), tokens),
    "memoryformer, dense": (lambda: memory("text-dense"), tokens),
}


def run(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        y: Tensor = getattr(net, "clip", net)(x)
    return y


def names_of(blocks: tuple[Block, ...], order: bool = False) -> list[str]:
    """All that may go without regard to anything else: memories need calibration data."""
    found = [b.name for b in blocks if b.whole]
    return found + [p.name for b in blocks if b.memory is None for p in (b.parts if b.whole else b.parts[1:])]


@pytest.mark.parametrize("name", NETS)
@settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(data=st.data())
def test_masked_and_deleted_models_agree(name: str, data: st.DataObject) -> None:
    build, inputs = NETS[name]
    net, x = build(), inputs()
    blocks = declared(net, neurons=8)
    removed = data.draw(st.sets(st.sampled_from(names_of(blocks))))
    before, masks = run(net, x), Masks(net, blocks)
    masks.set(removed)
    masked = run(net, x)
    masks.set(())
    assert torch.equal(run(net, x), before)  # everything is as it was
    smaller = copy.deepcopy(net)
    delete(smaller, blocks, removed)
    torch.testing.assert_close(run(smaller, x), masked, atol=1e-5, rtol=1e-5)
    gone = sum(p.numel() for p in net.parameters()) - sum(p.numel() for p in smaller.parameters())
    norms = sum(b.numel() for b in net.buffers()) - sum(b.numel() for b in smaller.buffers())  # a batch norm's are buffers
    counted = parameters_of(blocks, removed)
    assert gone + norms <= counted if name == "lmuformer" else gone == counted  # convolutions behind each other share weights
    assert declared(smaller, neurons=8) is not None  # what is left can be declared again


@pytest.mark.parametrize("name", [n for n in NETS if n != "lmuformer"])
def test_a_block_without_any_of_its_parts(name: str) -> None:
    build, inputs = NETS[name]
    net, x = build(), inputs()
    for of in declared(net, neurons=8):
        if not of.parts:
            continue
        removed = {p.name for p in of.parts}
        masks = Masks(net, declared(net, neurons=8))
        masks.set(removed)
        masked = run(net, x)
        masks.set(())
        smaller = copy.deepcopy(net)
        delete(smaller, declared(net, neurons=8), removed)
        left = smaller.get_submodule(of.paths[-1])
        assert isinstance(left, Constant if of.bias else Gone)
        torch.testing.assert_close(run(smaller, x), masked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", NETS)
def test_steps_are_the_whole_input_form(name: str) -> None:
    build, inputs = NETS[name]
    net, x = build(), inputs()
    with torch.no_grad():
        made: Any = x
        for step in net.steps():  # type: ignore[operator]
            made = step(made)
    assert torch.equal(made, run(net, x))


def test_removal_leaves_sum_and_norm() -> None:
    net, x = bert(), tokens()
    layer: Any = net.layers[1]
    delete(net, declared(net, 8), {"layers.1.attention", "layers.1.ffn"})
    seen = []
    layer.register_forward_hook(lambda module, given, y: seen.append((given[0], y)))
    run(net, x)
    before, after = seen[0]
    torch.testing.assert_close(after, layer.norm(layer.attention_norm(before)))


@pytest.mark.parametrize(
    ("config", "block_sizes", "part_sizes"),
    [
        (Config(), (591_360, 1_181_568), (49_248, 196_864)),
        (Config(dim=768, layers=12, heads=12, ffn=3072), (2_362_368, 4_722_432), (196_800, 393_472)),
    ],
)
def test_bytes_to_the_digit(config: Config, block_sizes: tuple[int, int], part_sizes: tuple[int, int]) -> None:
    with torch.device("meta"):
        net = BertEncoder(config)
    blocks = declared(net)
    assert [(b.parameters, b.parts[0].parameters, len(b.parts)) for b in blocks[:2]] == [
        (block_sizes[0], part_sizes[0], 12),
        (block_sizes[1], part_sizes[1], config.ffn // 256),
    ]
    whole = sum(p.numel() for p in net.parameters())
    for of in blocks[:2]:
        for name, size in ((of.name, of.parameters), (of.parts[0].name, of.parts[0].parameters)):
            with torch.device("meta"):
                smaller = BertEncoder(config)
            if name == of.name:
                delete(smaller, blocks, {name})
                assert 4 * (whole - sum(p.numel() for p in smaller.parameters())) == 4 * size


def test_deleted_heads_and_groups_weigh_what_was_counted() -> None:
    net = BertEncoder(Config(vocabulary=10, positions=64, layers=1))
    before = sum(p.numel() for p in net.parameters())
    delete(net, declared(net), {"layers.0.attention.3", "layers.0.ffn.5"})
    assert 4 * (before - sum(p.numel() for p in net.parameters())) == 4 * (49_248 + 196_864)
    assert net.get_submodule("layers.0.attention.query").weight.shape == (352, 384)
    assert net.get_submodule("layers.0.down").weight.shape == (384, 1280)


def test_macs_by_hand() -> None:
    blocks = {b.name: b for b in declared(bert(), 8)}
    attention, network = blocks["layers.0.attention"], blocks["layers.0.ffn"]
    assert attention.macs == 12 * 4 * 24 * 24 + 2 * 12 * 12 * 24
    assert attention.parts[0].macs == attention.macs // 3
    assert network.macs == 12 * 2 * 24 * 40
    assert macs_of(tuple(blocks.values()), {"layers.0.ffn", "layers.0.ffn.1", "layers.1.ffn.0"}) == network.macs * 6 // 5


def test_macs_of_tables_and_of_their_dense_twins_by_hand() -> None:
    blocks = {b.name: b for b in declared(memory("lm"))}
    tables = 24 // 4
    assert blocks["blocks.0.attention"].macs == 12 * tables * (4 + 3 * 24) + 2 * 12 * 12 * 24
    assert blocks["blocks.1.ffn"].macs == 12 * tables * (4 + 6 * tables + 6 + 24)
    assert blocks["blocks.1.ffn"].parameters == tables * (16 * 36 + 64 * 24) + 36 + 24 + 2 * (24 + 36)
    dense = {b.name: b for b in declared(memory("lm-dense"))}
    assert dense["blocks.0.attention"].macs == 12 * 4 * 24 * 24 + 2 * 12 * 12 * 24
    assert [p.parameters for p in dense["blocks.0.attention"].parts] == [4 * 8 * 24 + 3 * 8] * 3


def test_hard_attention_is_switched_on_and_off() -> None:
    net, x = bert(), tokens()
    before, masks = run(net, x), Masks(net, declared(net))
    masks.set((), {"layers.0.attention": 2})
    assert not torch.equal(run(net, x), before)
    masks.set((), {"layers.0.attention": 12})  # as many as there are tokens
    assert torch.equal(run(net, x), before)
    masks.set(())
    assert net.get_submodule("layers.0.attention").hard == 0
    delete(net, declared(net), (), {"layers.1.attention": 2})
    assert net.get_submodule("layers.1.attention").hard == 2


def test_a_lower_order_is_tried_and_taken() -> None:
    net, x = lmu(), sound()
    memory = next(b for b in declared(net) if b.memory is not None)
    weights = {order: torch.full((16, order + 16), 0.01 * order) for order in range(1, 9)}
    before, masks = run(net, x), Masks(net, [memory], {memory.name: weights.__getitem__})
    away = {memory.parts[0].name, memory.parts[1].name}
    masks.set(away)
    masked = run(net, x)
    masks.set(())
    assert torch.equal(run(net, x), before)
    delete(net, [memory], away, refit={memory.name: weights.__getitem__})
    assert memory.order(away) == net.get_submodule("mixer").memory.order == 6
    assert torch.equal(run(net, x), masked)
    assert memory_block(net, net.memory_groups()[0], 1, steps=3).parts[0].last == 6  # type: ignore[operator]


def users() -> nn.Module:
    """The module of docs/axformer.md."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "axformer.md").read_text(encoding="utf-8")
    (text,) = [t for t in re.findall(r"^```python\n(.*?)^```", page, re.S | re.M) if "class Residual" in t]
    known: dict[str, Any] = {}
    exec(text, known)
    torch.manual_seed(0)
    made: nn.Module = known["Residual"]().eval()
    return made


def test_a_users_module() -> None:
    net, x = users(), torch.randn(3, 16)
    blocks = declared(net, neurons=200)
    assert [(p.first, p.last, p.parameters) for p in blocks[0].parts] == [(0, 200, 6600), (200, 400, 6600), (400, 512, 3696)]
    assert blocks[0].parameters == 512 * 16 + 512 + 16 * 512 + 16
    up, down, head = (net.get_submodule(name) for name in ("up", "down", "head"))
    hidden = F.relu(up(x))
    hidden[:, 200:400] = 0
    expected = head(x + down(hidden))
    delete(net, blocks, {"network.1"})
    torch.testing.assert_close(net(x), expected)
    delete(net, declared(net), {"network"})
    torch.testing.assert_close(net(x), head(x))
    assert declared(net) == ()


def test_errors_say_what_to_do() -> None:
    net = bert()
    with pytest.raises(PreconditionError, match=r"elements: a name must be one of the model's, got 'layers\.0\.ff'; .*ffn"):
        delete(net, declared(net), {"layers.0.ff"})
    with pytest.raises(PreconditionError, match=r"must declare what can be removed by a method elements\(\), got Linear"):
        declared(nn.Linear(1, 1))
    own: Any = users()
    twice = own.elements() * 2
    own.elements = lambda neurons: twice
    with pytest.raises(PreconditionError, match="a name must belong to one element, got network twice"):
        declared(own)
    late = (Block("ffn", "ffn", 3, 1, 1),)
    own.elements = lambda neurons: late
    with pytest.raises(PreconditionError, match=r"the step of ffn must be in \[0, 0\], one of the module's steps\(\), got 3"):
        declared(own)


def test_what_was_factorized_declares_nothing() -> None:
    net = bert()
    for layer in net.layers:
        layer.up = nn.Sequential(nn.Linear(24, 4), nn.Linear(4, 40))
        layer.attention.query = nn.Sequential(nn.Linear(24, 4), nn.Linear(4, 24))  # type: ignore[union-attr]
    assert declared(net) == ()
