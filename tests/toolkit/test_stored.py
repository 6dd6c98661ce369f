"""How weights are stored: by hand, exactly what is read again, tables as `quantize` codes them, and what may not be int8."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from edgetk.core.errors import InputError, UsageError
from edgetk.models import lmuformer_spiking, memoryformer
from edgetk.models.layers.memory_layer import MemoryLayer, QuantMemoryLayer
from edgetk.testing import tiny_bundle
from edgetk.toolkit import stored
from edgetk.toolkit.checkpoint import load_model, save_model


def small() -> torch.nn.Sequential:
    layer = torch.nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[127.0, -63.5, 1.0], [0.0, 0.5, -0.25]]))
        layer.bias.copy_(torch.tensor([1.0, 2.0]))
    return torch.nn.Sequential(layer)


def test_int8_by_hand() -> None:
    """A scale for each row: the largest entry gets 127; 63.5 is rounded to even."""
    found = stored.encode(small(), "int8")
    assert found["0.weight"].tolist() == [[127, -64, 1], [0, 127, -64]]
    assert found["0.weight"].dtype == torch.int8
    assert found["0.weight.scale"].flatten().tolist() == [1.0, pytest.approx(0.5 / 127)]
    assert found["0.weight.scale"].shape == (2, 1)
    assert (found["0.bias"].dtype, found["0.bias"].tolist()) == (torch.float16, [1.0, 2.0])
    assert {v.dtype for v in stored.encode(small(), "float16").values()} == {torch.float16}
    assert {v.dtype for v in stored.encode(small(), "float32").values()} == {torch.float32}


def test_tables_have_a_scale_for_each_column_and_quantize_finds_the_same_codes() -> None:
    torch.manual_seed(0)
    layer = MemoryLayer(8, 5, bits=4)
    before = QuantMemoryLayer.of(layer)
    found = stored.encode(layer, "int8")
    assert found["tables.scale"].shape == (1, 1, 5)
    assert torch.equal(found["tables"], before.weight)
    stored.rounded(layer, "int8")
    after = QuantMemoryLayer.of(layer)
    assert torch.equal(after.weight, before.weight)
    assert torch.allclose(after.scale, before.scale, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 6), st.sampled_from(["float16", "int8"]))
def test_rounding_twice_changes_nothing(seed: int, rows: int, columns: int, store: stored.Store) -> None:
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Conv1d(columns, rows, 2), torch.nn.Linear(3, rows))
    own = {k: v.clone() for k, v in net.state_dict().items()}
    stored.rounded(net, store)
    once = {k: v.clone() for k, v in net.state_dict().items()}
    stored.rounded(net, store)
    for name, value in net.state_dict().items():
        assert torch.allclose(value, once[name], rtol=1e-6, atol=0)
        largest = own[name].abs().flatten(1).amax(1) if value.ndim > 1 else own[name].abs()
        error = (value - own[name]).abs().flatten(1).amax(1) if value.ndim > 1 else (value - own[name]).abs()
        assert (error <= largest / 253).all()


@pytest.mark.parametrize("store", ["float16", "int8"])
def test_a_file_gives_the_model_that_rounding_gives(store: stored.Store, tmp_path: Path) -> None:
    bundle = memoryformer.build("base", dim=16, heads=2, layers=1, classes=4)
    file = tmp_path / "x.safetensors"
    file.write_bytes(save_model(bundle, store))
    stored.rounded(bundle.module, store)
    read = load_model(file).module.state_dict()
    assert read.keys() == bundle.module.state_dict().keys()
    for name, value in bundle.module.state_dict().items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


def test_int8_takes_about_a_quarter(tmp_path: Path) -> None:
    bundle = memoryformer.build("base", dim=48, heads=2, layers=2, classes=4)
    wide, narrow = (
        sum(v.numel() * v.element_size() for v in load(save_model(bundle, s)).values()) for s in ("float32", "int8")
    )
    assert narrow == pytest.approx(wide / 4, rel=0.05)


def test_a_scale_without_its_codes_is_not_one_of_the_models_weights(tmp_path: Path) -> None:
    bundle = tiny_bundle()
    tensors = stored.encode(bundle.module, "float32")
    name = next(iter(tensors))
    found = stored.decode({**tensors, name + stored.SCALE: torch.ones(1)}, bundle.module.state_dict())
    assert name + stored.SCALE in found  # which `load_model` refuses as unknown
    file = tmp_path / "x.safetensors"
    bundle = memoryformer.build("base", dim=16, heads=2, layers=1, classes=4)
    bundle.module.register_buffer("more", torch.ones(2))
    file.write_bytes(save_model(bundle, "int8"))
    with pytest.raises(InputError, match="must hold exactly the model's weights, got unknown more; make the file again"):
        load_model(file)


def test_what_may_not_be_stored() -> None:
    spiking = lmuformer_spiking.build("s")
    stored.check("float16", spiking.module, "train: x")
    with pytest.raises(
        UsageError, match=r"train: x: int8 storage needs weights that may take any value, got a .*; store float16"
    ):
        stored.check("int8", spiking.module, "train: x")
    with pytest.raises(UsageError, match="weights must be stored as one of float32, float16, int8, got 'int4'; correct it"):
        stored.check("int4", replace(spiking, body=small()).module, "train: x")
