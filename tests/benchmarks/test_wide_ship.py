"""What ships of a wide layer: the network with some heads, in a file that is small enough and opens again."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch

from edgetk.models.layers.elements import declared, delete
from edgetk.models.wide import build
from edgetk.toolkit.checkpoint import load_model

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "experiments" / "wide_ship.py"


@pytest.fixture(scope="module")
def ship() -> ModuleType:
    spec = importlib.util.spec_from_file_location("wide_ship", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@torch.no_grad()
def test_the_largest_that_fits_is_the_network_without_the_other_heads(ship: ModuleType, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build("1x16").module
    state = {k: v.half() for k, v in net.state_dict().items()}
    path = [{"heads": list(range(16))}, {"heads": [9, 3, 5]}, {"heads": [5]}, {"heads": []}]
    _, heads, content = ship.shipped(state, path, 3_000_000)
    assert heads == [3, 5, 9]
    assert len(content) < 3_000_000
    (tmp_path / "x.safetensors").write_bytes(content)
    loaded = load_model(tmp_path / "x.safetensors")
    assert (loaded.name, loaded.labels) == ("wide-pruned", ("negative", "positive"))
    net.load_state_dict({k: v.float() for k, v in state.items()})
    delete(net, declared(net), [f"layers.0.attention.{h}" for h in range(16) if h not in heads])
    x = torch.randint(1, 256, (2, 1000)).float()
    assert torch.allclose(loaded.module(x), net(x), atol=1e-3)
    with pytest.raises(SystemExit, match="some set of heads must fit into 1000 bytes, got none; allow more with --bytes"):
        ship.shipped(state, path, 1000)
