"""Quantizing dense-sparse pairs: both factors int8, the file as large as the formula says, rebuilt, exported and refused."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from quant_models import CLASSES, Noise, user
from safetensors.torch import save
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import PreconditionError
from edgetk.export import functions, parity
from edgetk.export.lower import lower
from edgetk.models.layers.dense_sparse import DenseSparseLinear, SparseFactor, groups_of, install
from edgetk.models.layers.dense_sparse_int8 import QuantSparseFactor, line_codes, pair_bits
from edgetk.models.layers.dense_sparse_sizes import Group
from edgetk.models.layers.quantized import QuantLinear
from edgetk.passes.finetune import Finetune
from edgetk.passes.refactorize import Refactorize
from edgetk.quant.quantize import Quantize
from edgetk.targets import board

SETTINGS: dict[str, Any] = {"max_drop": 1.0, "max_change": 1.0, "min_weights": 64, "calibration": 16}
GROUPS = (Group(("one", "two"), "outputs", 32, 96, 16, 5, False), Group(("tall",), "inputs", 32, 96, 16, 4, True))


class Net(nn.Module):
    """Two matrices that share a dictionary, a tall one, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.tall = nn.Linear(32, 48), nn.Linear(32, 48), nn.Linear(96, 32)
        self.head = nn.Linear(32, CLASSES)
        install(self, GROUPS)
        for layer in (self.one, self.two, self.tall):
            layer.initialise()
            nn.init.normal_(layer.sparse.values)
        nn.init.normal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.tall(torch.relu(torch.cat([self.one(x), self.two(x)], -1)))
        logits: Tensor = self.head(y.mean(1))
        return logits


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    made = user(Net(), Noise(48, (6, 32)))
    return replace(made, target=board.load("raspberry-pi-5"))


def quantized(bundle: Bundle, **changes: Any) -> Any:
    return Quantize(**{**SETTINGS, **changes})(replace(bundle, body=copy.deepcopy(bundle.body)))


def test_codes_by_hand() -> None:
    codes, scale = line_codes(torch.tensor([[1.27, -0.634, 0.0], [0.0, 0.0, 0.0]]))
    assert codes.tolist() == [[127, -63, 0], [0, 0, 0]]
    assert float(scale[0]) == pytest.approx(0.01)


@pytest.mark.parametrize("side", ["outputs", "inputs"])
def test_a_rounded_factor_keeps_its_indices_and_is_half_a_step_off_at_most(side: Any) -> None:
    torch.manual_seed(0)
    factor = SparseFactor(20, 16, 4, side)
    with torch.no_grad():
        factor.values.normal_()
        factor.indices.copy_(torch.rand(20, 16).argsort(1)[:, :4])
    made = QuantSparseFactor.of(factor)
    assert torch.equal(made.indices, factor.indices)
    assert list(made.parameters()) == []
    steps = (made.matrix() - factor.matrix()).abs() / made.scale[:, None]
    assert 0.3 < float(steps.detach().max()) <= 0.5 + 1e-4
    z = torch.randn(3, 16 if side == "outputs" else 20)
    by_hand = z @ (made.matrix().T if side == "outputs" else made.matrix())
    torch.testing.assert_close(made(z), by_hand)


def test_both_factors_become_int8(bundle: Bundle) -> None:
    result = quantized(bundle)
    kinds = {n: type(m) for n, m in result.body.named_modules() if type(m) in (QuantLinear, QuantSparseFactor, nn.Linear)}
    pairs = {f"{name}.sparse": QuantSparseFactor for name in ("one", "two", "tall")}
    assert kinds == pairs | {"one.dense": QuantLinear, "tall.dense": QuantLinear, "head": nn.Linear}
    assert groups_of(result.body) == GROUPS
    assert result.body.two.dictionary is result.body.one.dense
    assert result.body.one.dense.bias is None
    assert 0 < max(result.notes["output_change"].values()) < 0.01
    x = torch.randn(4, 6, 32)
    before = bundle.module(x).detach()
    torch.testing.assert_close(result.body(x).detach(), before, rtol=0.1, atol=0.1 * float(before.abs().max()))


def test_notes_count_the_bits_of_both_factors_and_their_scales(bundle: Bundle) -> None:
    result = quantized(bundle)
    first = 8 * 32 * 16 + 96 * 5 * (8 + 4) + 32 * (16 + 96)  # 16 atoms, 96 lines
    second = 8 * 32 * 16 + 96 * 4 * (8 + 2) + 32 * (32 + 96)  # the dense layer has 32 outputs; 4 groups of 4 atoms
    before = 32 * 32 * 16 + 96 * 5 * 36 + 32 * 32 * 16 + 96 * 4 * 34
    assert result.notes["pairs"] == {
        "bytes_float32": before / 8, "bytes": (first + second) / 8, "ratio": round(before / (first + second), 6)
    }  # fmt: skip
    assert pair_bits(bundle.module) == (before, before)
    partly = quantized(bundle, keep_float=("sparse", "head"))
    assert partly.notes["pairs"]["bytes"] == (8 * 32 * 32 + 32 * (16 + 32) + 96 * (5 * 36 + 4 * 34)) / 8
    assert "pairs" not in quantized(user(nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES)), Noise(48, (6, 32)))).notes


@pytest.mark.parametrize(("rank", "nonzeros", "grouped"), [(256, 58, False), (320, 44, False), (128, 16, True)])
def test_a_file_has_the_bits_of_the_formula(rank: int, nonzeros: int, grouped: bool) -> None:
    """Spec 6.4 with bytes for values: header, 8 n r + m s (8 + index bits), the scales, and those of what is read."""
    group = Group(("up",), "outputs", 384, 1536, rank, nonzeros, grouped)
    layer = DenseSparseLinear(384, 1536, group, bias=False)
    layer.sparse = QuantSparseFactor.of(layer.sparse)
    layer.dense = QuantLinear(384, rank, "int8", bias=False)  # type: ignore[assignment]
    content = save({k: v.clone() for k, v in layer.state_dict().items()})
    header = 8 + int.from_bytes(content[:8], "little")
    stored = {k: v["data_offsets"][1] - v["data_offsets"][0] for k, v in json.loads(content[8:header]).items()}
    read = stored.pop("dense.input.scale") + stored.pop("dense.input.zero_point")
    assert read == 5
    assert stored == {
        "dense.weight": 384 * rank,
        "dense.scale": 4 * rank,
        "sparse.values": 1536 * nonzeros,
        "sparse.scale": 4 * 1536,
        "sparse.indices": 1536 * nonzeros * group.index_bits // 8,
    }
    assert group.scales == rank + 1536
    assert 8 * (len(content) - header - read) == group.bits(8, 8) + 32 * group.scales
    assert group.bits(8, 8) == 8 * 384 * rank + 1536 * nonzeros * (8 + group.index_bits)


def test_int8_saves_almost_two_thirds_at_the_sizes_of_2_8() -> None:
    for group in (Group(("up",), "outputs", 384, 1536, 256, 58), Group(("qkv",), "outputs", 384, 1152, 256, 41)):
        assert group.bits() / (group.bits(8, 8) + 32 * group.scales) > 2.8


def test_rebuilt_from_its_structure(bundle: Bundle) -> None:
    result = quantized(bundle)
    fresh = Quantize().rebuild(copy.deepcopy(bundle.body), result.structure)
    fresh.load_state_dict(result.body.state_dict())
    x = torch.randn(3, 6, 32)
    assert torch.equal(fresh(x), result.body(x))


@pytest.mark.parametrize("target", ["raspberry-pi-5", "jetson"])
def test_an_exported_file_computes_the_same_from_bytes(bundle: Bundle, target: str) -> None:
    made = replace(bundle, body=quantized(replace(bundle, target=board.load(target))).body, target=board.load(target))
    low = lower(made, board.load(target))[0]
    content = functions.attach(low.graph)
    assert low.precision == "int8"
    assert parity.prove(low, content).passed
    stored = {t.name: t for t in low.graph.graph.initializer}
    assert [stored[f"{name}.sparse.values"].data_type for name in ("one", "two", "tall")] == [3, 3, 3]  # TensorProto.INT8
    assert len(stored["one.sparse.values"].raw_data) == 48 * 5


def test_training_comes_before(bundle: Bundle) -> None:
    made = replace(bundle, body=quantized(bundle, keep_float=("dense", "head")).body)
    assert not any(isinstance(m, QuantLinear) for m in made.module.modules())
    for after in (Finetune(), Refactorize()):
        with pytest.raises(PreconditionError, match="must come before quantize, got integer weights; change the order in the"):
            after.check(made)
