"""Folding norms changes no output: clips, streams, factorized layers, users' modules, and models read from files."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from pass_models import FEATURES, applied, around, gap, learned, outputs, stir, streamed
from torch import Tensor, nn

from edgetk.core.errors import PreconditionError
from edgetk.models import ds_cnn
from edgetk.models.layers.norm import BatchNorm, Sign
from edgetk.passes.factorize import Factorize
from edgetk.passes.fold import Fold
from edgetk.quant.quantize import Quantize
from edgetk.toolkit import checkpoint

CLIPS = torch.randn(3, 16, FEATURES, generator=torch.Generator().manual_seed(5))
TAPS = "embed.convs.1.taps"


@pytest.mark.parametrize("seed", range(4))
def test_lmuformer_computes_the_same_in_both_forms(seed: int) -> None:
    bundle = learned()
    stir(bundle.module, seed)
    assert any(bool((m.weight < 0).any()) for m in bundle.module.modules() if isinstance(m, BatchNorm))
    after = applied(Fold(), bundle)
    assert not any(isinstance(m, BatchNorm) for m in after.module.modules())
    assert gap(outputs(after, CLIPS), outputs(bundle, CLIPS)) < 1e-5
    assert gap(streamed(after, CLIPS), streamed(bundle, CLIPS)) < 1e-5
    assert gap(streamed(after, CLIPS)[:, -1], outputs(bundle, CLIPS)) < 1e-5
    assert after.lineage[-1].notes == {"norms_folded": 7}


def test_the_declared_stream_starts_beyond_the_folded_edge() -> None:
    after = applied(Fold(), learned())
    assert after.signature == after.module.stream_signature()
    assert after.signature != learned().signature


def test_a_norm_of_zeros_folds_too() -> None:
    bundle = learned()
    for module in bundle.module.modules():
        if isinstance(module, BatchNorm):
            module.weight.data[:2] = 0.0
    after = applied(Fold(), bundle)
    assert gap(outputs(after, CLIPS), outputs(bundle, CLIPS)) < 1e-5
    assert gap(streamed(after, CLIPS), streamed(bundle, CLIPS)) < 1e-5


@pytest.mark.parametrize("negative", [False, True])
def test_a_folded_model_is_read_from_its_file(negative: bool, tmp_path: Path) -> None:
    """Which norms leave a sign depends on trained weights, which a freshly built body does not have."""
    bundle = learned()
    if not negative:
        for module in bundle.module.modules():
            if isinstance(module, BatchNorm):
                module.weight.data.abs_()
    after = applied(Fold(), bundle)
    assert any(isinstance(m, Sign) for m in after.module.modules()) == negative
    file = tmp_path / "folded.safetensors"
    file.write_bytes(checkpoint.save_model(after))
    loaded = checkpoint.load_model(file)
    assert torch.equal(outputs(loaded, CLIPS), outputs(after, CLIPS))
    assert torch.equal(streamed(loaded, CLIPS), streamed(after, CLIPS))
    for read, made in zip(loaded.signature.state, after.signature.state, strict=True):
        assert read.spec == made.spec
        assert torch.equal(torch.tensor(read.init), torch.tensor(made.init))


@pytest.mark.parametrize("layer", [TAPS, "embed.convs.0.taps", "embed.position.taps", "mixer.proj", "channels.reduce"])
def test_factorized_layers_take_norms_in(layer: str, tmp_path: Path) -> None:
    split = applied(Factorize(ranks={layer: 6}), learned())
    after = applied(Fold(), split)
    assert gap(outputs(after, CLIPS), outputs(split, CLIPS)) < 1e-5
    assert gap(streamed(after, CLIPS), streamed(split, CLIPS)) < 1e-5
    file = tmp_path / "both.safetensors"
    file.write_bytes(checkpoint.save_model(after))
    assert torch.equal(outputs(checkpoint.load_model(file), CLIPS), outputs(after, CLIPS))


@pytest.mark.parametrize("half", ["down", "up"])
def test_pairs_inside_pairs_take_norms_in(half: str) -> None:
    split = applied(Factorize(ranks={f"{TAPS}.{half}": 3}), applied(Factorize(ranks={TAPS: 6}), learned()))
    after = applied(Fold(), split)
    assert gap(outputs(after, CLIPS), outputs(split, CLIPS)) < 1e-5
    assert gap(streamed(after, CLIPS), streamed(split, CLIPS)) < 1e-5


def test_folding_twice_does_nothing_more() -> None:
    after = applied(Fold(), learned())
    result = Fold()(replace(after, body=copy.deepcopy(after.body)))
    assert not result.modified
    assert result.structure is None


def test_integer_weights_cannot_take_norms_in() -> None:
    quantized = applied(Quantize(min_weights=64, max_drop=1.0), learned())
    with pytest.raises(PreconditionError, match=r"fold: must come before quantize, got integer weights; change the order"):
        Fold().check(quantized)
    Fold().check(applied(Quantize(min_weights=64, max_drop=1.0), applied(Fold(), learned())))


def test_convolutions_in_sequences() -> None:
    bundle = ds_cnn.build(width=8, blocks=2, classes=3, features=16, frames=20)
    stir(bundle.module)
    after = applied(Fold(), bundle)
    x = torch.randn(2, 20, 16)
    assert gap(outputs(after, x), outputs(bundle, x)) < 1e-5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in after.module.modules())
    structure = after.lineage[-1].structure
    assert structure is not None
    assert structure["folded"] == ["stem.1", "blocks.0.1", "blocks.1.1", "blocks.2.1", "blocks.3.1"]
    fresh = Fold().rebuild(ds_cnn.build(**bundle.source["config"]).body, structure)
    fresh.load_state_dict(after.module.state_dict(), strict=True)
    assert torch.equal(outputs(replace(after, body=fresh), x), outputs(after, x))


class Odd(nn.Sequential):
    """A sequence that is not run in sequence."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self[0](x) + self[1](x)
        return y


@pytest.mark.parametrize(
    ("net", "folded"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4)), 1),
        (nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Conv1d(2, 3, 1, bias=False), nn.BatchNorm1d(3), nn.Flatten()), 1),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=False)), 0),
        (Odd(nn.Linear(4, 4), nn.BatchNorm1d(4)), 0),
        (nn.Sequential(nn.Linear(4, 4), nn.ReLU()), 0),
    ],
)
def test_users_sequences_are_folded_where_a_norm_follows_its_layer(net: nn.Module, folded: int) -> None:
    if folded:
        stir(net)
    x = torch.randn(6, 4)
    bundle = around(net, 4)
    after = applied(Fold(), bundle)
    assert after.lineage[-1].notes == {"norms_folded": folded}
    assert gap(outputs(after, x), outputs(bundle, x)) < 1e-5
