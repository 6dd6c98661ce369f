"""DS-CNN: MLPerf Tiny's shape, whole clips only."""

from __future__ import annotations

import torch
from torch import nn

from edgetk.models.ds_cnn import DSCNN, build


def test_layers_are_those_of_the_reference() -> None:
    net = build().module
    assert isinstance(net, DSCNN)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.kernel_size, c.stride, c.groups) for c in convs] == [
        ((10, 4), (2, 2), 1), *[((3, 3), (1, 1), 64), ((1, 1), (1, 1), 1)] * 4,
    ]  # fmt: skip
    convolutions = 64 * 10 * 4 + 4 * (64 * 3 * 3 + 64 * 64)
    assert sum(p.numel() for p in net.parameters()) == convolutions + 9 * 2 * 64 + 64 * 35 + 35


def test_it_needs_whole_clips() -> None:
    bundle = build()
    assert [form.name for form in bundle.forms()] == ["clip"]
    assert bundle.signature.inputs[0].shape == ("batch", 128, 128)
    assert bundle.predict()(torch.zeros(3, 128, 128)).shape == (3, 35)


def test_bands_are_averages_of_neighbouring_bins() -> None:
    net = build(width=8, blocks=1, classes=2, features=16, frames=20).module
    x = torch.randn(2, 20, 16)
    averaged = x.unflatten(2, (2, 8)).mean(3, keepdim=True).expand(-1, -1, -1, 8).flatten(2)
    with torch.no_grad():
        assert torch.allclose(net(x), net(averaged), atol=1e-6)
        assert not torch.allclose(net(x), net(x.flip(2)), atol=1e-3)


def test_config_is_recorded() -> None:
    bundle = build(width=8, blocks=2, classes=5)
    assert bundle.source["config"] == {"features": 128, "frames": 128, "classes": 5, "width": 8, "blocks": 2, "bands": 8}
    assert build(bundle.source["variant"], **bundle.source["config"]).source == bundle.source
