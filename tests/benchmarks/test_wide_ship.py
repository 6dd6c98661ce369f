"""What ships of a wide layer: the folded network, in a file that is small enough and opens again."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from experiment_scripts import load

from edgetk.models.wide import build
from edgetk.toolkit.checkpoint import load_model, save_model


@pytest.fixture(scope="module")
def ship() -> ModuleType:
    return load("wide_ship")


@torch.no_grad()
def test_the_file_is_small_enough_and_computes_the_same(ship: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build("1x16").module
    bundle = ship.shipped({k: v.half() for k, v in net.state_dict().items()})
    content = save_model(bundle, "float16")
    assert len(content) <= 3_000_000
    (tmp_path / "x.safetensors").write_bytes(content)
    loaded = load_model(tmp_path / "x.safetensors")
    assert (loaded.name, loaded.labels, loaded.task) == ("wide-compact", ("negative", "positive"), "imdb-bytes")
    assert sum(p.numel() for p in loaded.module.parameters()) == 1_385_472
    x = torch.randint(1, 256, (2, 1000)).float()
    assert torch.equal(loaded.module(x), bundle.module(x))
    assert torch.allclose(loaded.module(x), net(x), atol=2e-2)


@torch.no_grad()
def test_heads_that_go_are_deleted(ship: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build("1x16").module
    gone = [h for h in range(16) if h not in (0, 4, 10, 12)]
    for h in gone:
        net.layers[0].attention.proj.weight[:, 64 * h : 64 * (h + 1)] = 0.0  # type: ignore[index, union-attr]
    bundle = ship.shipped(net.state_dict(), (0, 4, 10, 12))
    (tmp_path / "x.safetensors").write_bytes(save_model(bundle, "float16"))
    loaded = load_model(tmp_path / "x.safetensors")
    x = torch.randint(1, 256, (2, 1000)).float()
    assert torch.equal(loaded.module(x), bundle.module(x))
    assert torch.allclose(loaded.module(x), net(x), atol=2e-2)
    assert sum(p.numel() for p in loaded.module.parameters()) == 988_416
