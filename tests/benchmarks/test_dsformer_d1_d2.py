"""The experiment's int8 (D2) is that of the pass `quantize`."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest
import torch
from experiment_scripts import load
from torch import Tensor

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Split
from edgetk.models import dsformer
from edgetk.models.layers.dense_sparse import DenseSparseLinear
from edgetk.models.layers.dense_sparse_int8 import pair_bits
from edgetk.models.layers.qdq import dequantize_weight
from edgetk.quant.quantize import Quantize

LENGTH = 6


class Texts:
    """Token numbers that mean nothing."""

    labels = ("no", "yes")

    def split(self, name: str) -> Split:
        return Split(name, self.calibration(8), torch.arange(8) % 2, "made up")

    def calibration(self, n: int) -> Tensor:
        return torch.randint(1, 50, (n, LENGTH), generator=torch.Generator().manual_seed(3)).float()


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return load("dsformer_d1_d2")


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    made = dsformer.build("tiny", length=LENGTH, vocabulary=50, dim=32, layers=2, heads=2, ffn=64, ratio=2.0)
    return replace(made, data=Texts())


def test_factors_are_rounded_as_quantize_stores_them(script: ModuleType, bundle: Bundle) -> None:
    rounded, ratio = script.int8(bundle)
    made = Quantize("int8", 1, max_change=1.0, max_drop=1.0, calibration=8)(bundle)
    pairs = {n: m for n, m in made.body.named_modules() if isinstance(m, DenseSparseLinear)}
    assert {m.side for m in pairs.values()} == {"outputs", "inputs"}
    for name, stored in pairs.items():
        layer: Any = rounded.module.get_submodule(name)
        assert torch.equal(layer.sparse.matrix(), stored.sparse.matrix()), name
        before: Any = bundle.module.get_submodule(name)
        assert not torch.equal(layer.sparse.matrix(), before.sparse.matrix()), name
        dense: Any = stored.dictionary
        torch.testing.assert_close(
            layer.dictionary.weight.detach(), dequantize_weight(dense.weight, dense.scale), rtol=1e-6, atol=0
        )
    before_bits, after_bits = pair_bits(made.body)
    assert ratio == before_bits / after_bits


def test_the_model_it_was_made_of_is_left_as_it_is(script: ModuleType, bundle: Bundle) -> None:
    before = {k: v.clone() for k, v in bundle.module.state_dict().items()}
    script.int8(bundle)
    assert all(torch.equal(v, before[k]) for k, v in bundle.module.state_dict().items())
