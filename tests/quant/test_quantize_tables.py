"""Quantizing memory layers: int8 tables beside integer linear layers, what stays float, and how a result is rebuilt."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from quant_models import CLASSES, FEATURES, FRAMES, Noise, labelled
from torch import nn

from edgetk.core.bundle import Bundle
from edgetk.models.layers.memory_layer import MemoryLayer, QuantMemoryLayer
from edgetk.models.layers.quantized import QuantLinear
from edgetk.models.memoryformer import build
from edgetk.quant.quantize import Quantize

SETTINGS = {"max_drop": 1.0, "max_change": 1.0, "min_weights": 64, "calibration": 16, "activation": "uint8"}


@pytest.fixture
def bundle() -> Bundle:
    torch.manual_seed(0)
    made = build(
        "base", features=FEATURES, length=FRAMES, patch=1, classes=CLASSES, layers=1, dim=16, heads=2, bits=4, std=None
    )
    return labelled(made, Noise())


def test_tables_become_int8_and_linear_layers_integer(bundle: Bundle) -> None:
    result = Quantize(**SETTINGS)(replace(bundle, body=copy.deepcopy(bundle.body)))
    kinds = {name: type(m) for name, m in result.body.named_modules() if type(m) in (QuantMemoryLayer, QuantLinear, nn.Linear)}
    assert kinds == {
        "embed": QuantLinear,
        "blocks.0.qkv": QuantMemoryLayer,
        "blocks.0.expand": QuantMemoryLayer,
        "blocks.0.reduce": QuantMemoryLayer,
        "head": nn.Linear,
    }
    for name in ("qkv", "expand", "reduce"):
        before, after = (m.get_submodule(f"blocks.0.{name}") for m in (bundle.module, result.body))
        assert isinstance(before, MemoryLayer)
        error = (after.weight * after.scale - before.tables).abs() / after.scale
        assert float(error.detach().max()) <= 0.5 + 1e-4
    assert result.notes["layers"] == 4
    change = result.notes["output_change"]["blocks.0.reduce"]
    assert 0 < change < 0.02


def test_a_layer_that_changes_too_much_stays_float(bundle: Bundle) -> None:
    result = Quantize(**{**SETTINGS, "max_change": 1e-12})(replace(bundle, body=copy.deepcopy(bundle.body)))
    assert not result.modified
    assert "blocks.0.qkv" in result.notes["kept_float"]


def test_rebuilt_from_its_structure(bundle: Bundle) -> None:
    made = Quantize(**SETTINGS)
    result = made(replace(bundle, body=copy.deepcopy(bundle.body)))
    assert result.structure is not None
    fresh = made.rebuild(copy.deepcopy(bundle.body), result.structure)
    fresh.load_state_dict(result.body.state_dict())
    x = torch.randn(3, FRAMES, FEATURES)
    assert torch.equal(fresh(x), result.body(x))
