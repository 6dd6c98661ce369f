"""Low-rank factorization: lowest rank that keeps the variance, only where it saves work, refused where it cannot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pass_models import Words, applied, around, gap, learned, outputs, streamed
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.errors import PreconditionError, RecipeError
from edgetk.models.layers.quantized import LowRank
from edgetk.passes import _statistics
from edgetk.passes.factorize import Factorize
from edgetk.quant.quantize import Quantize
from edgetk.toolkit import checkpoint

CLIPS = Words().split("validation").features


class Flat(nn.Module):
    """Two layers over whole inputs (B, 16, 8); the first has rank 4 but for a little noise."""

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.wide = nn.Linear(128, 64, bias=bias)
        self.head = nn.Linear(64, 3)
        with torch.no_grad():
            low = torch.randn(64, 4, generator=generator) @ torch.randn(4, 128, generator=generator)
            self.wide.weight.copy_(low + 1e-3 * torch.randn(64, 128, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(torch.relu(self.wide(x.flatten(1))))
        return y


def flat(bias: bool = True) -> Bundle:
    torch.manual_seed(0)
    return around(Flat(bias), 16, 8, data=Words())


@pytest.mark.parametrize("bias", [True, False])
def test_search_finds_the_rank_that_is_there(bias: bool) -> None:
    bundle = flat(bias)
    after = applied(Factorize(min_weights=1024, max_drop=0.02), bundle)
    assert after.lineage[-1].structure == {"ranks": {"wide": 8}}  # four, rounded up
    pair = after.module.get_submodule("wide")
    assert isinstance(pair, LowRank)
    assert (pair.down.weight.shape, pair.up.weight.shape) == ((8, 128), (64, 8))
    assert (pair.bias is not None) == bias
    assert gap(outputs(after, CLIPS), outputs(bundle, CLIPS)) < 1e-2


def test_the_mean_of_what_is_lost_goes_into_the_bias() -> None:
    bundle = flat()
    inputs = Words().calibration(96)
    layer, x = bundle.module.get_submodule("wide"), inputs.flatten(1)
    after = applied(Factorize(ranks={"wide": 2}), bundle)
    with torch.no_grad():
        lost = after.module.get_submodule("wide")(x) - layer(x)
    assert float(lost.std()) > 0.1
    assert float(lost.mean(0).abs().max()) < 1e-3


def test_fixed_ranks_need_no_search_and_no_size() -> None:
    after = applied(Factorize(ranks={"mixer.proj": 3, "embed.position.taps": 15}), learned())
    assert after.lineage[-1].structure == {"ranks": {"mixer.proj": 3, "embed.position.taps": 15}}
    assert after.lineage[-1].notes["tried"] == []
    assert gap(streamed(after, CLIPS)[:, -1], outputs(after, CLIPS)) < 1e-5


def test_the_highest_rank_changes_little() -> None:
    bundle = learned()
    after = applied(Factorize(ranks={"embed.position.taps": 15}), bundle)
    low = applied(Factorize(ranks={"embed.position.taps": 2}), bundle)
    reference = outputs(bundle, CLIPS)
    assert gap(outputs(after, CLIPS), reference) < gap(outputs(low, CLIPS), reference)
    assert gap(outputs(after, CLIPS), reference) < 0.05


def test_structure_and_weights_survive_a_file(tmp_path: Path) -> None:
    after = applied(Factorize(ranks={"mixer.proj": 3, "embed.convs.0.taps": 5}), learned())
    file = tmp_path / "split.safetensors"
    file.write_bytes(checkpoint.save_model(after))
    loaded = checkpoint.load_model(file)
    assert torch.equal(outputs(loaded, CLIPS), outputs(after, CLIPS))
    assert torch.equal(streamed(loaded, CLIPS), streamed(after, CLIPS))


def test_pairs_that_do_not_pay_are_not_made() -> None:
    bundle = flat()
    result = Factorize(min_weights=1024, pays=0.1)(bundle)  # 8 * (128 + 64) of 128 * 64 weights is 0.19
    assert (result.modified, result.body) == (False, bundle.body)
    assert result.notes == {"tried": []}


def test_search_takes_the_last_candidate_before_accuracy_fell(monkeypatch: pytest.MonkeyPatch) -> None:
    drops = iter([0.0, 0.5])
    monkeypatch.setattr(_statistics.Guide, "drop", lambda self, bundle: next(drops))
    bundle = around(nn.Sequential(nn.Flatten(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3)), 16, 8, data=Words())
    with torch.no_grad():
        layer = bundle.module.get_submodule("1")
        u, _, v = torch.linalg.svd(layer.weight)
        layer.weight.copy_(u * 0.8 ** torch.arange(128) @ v)
    after = applied(Factorize(min_weights=1024, max_drop=0.1), bundle)
    first, second = after.lineage[-1].notes["tried"]
    assert (first["accuracy_drop"], second["accuracy_drop"]) == (0.0, 0.5)
    assert after.lineage[-1].notes["ranks"] == first["ranks"]
    assert second["ranks"]["1"] < first["ranks"]["1"]
    assert second["output_change"] > first["output_change"]


def test_what_cannot_be_factorized_is_refused() -> None:
    bundle = learned()
    Factorize(min_weights=256).check(bundle)
    with pytest.raises(PreconditionError, match=r"factorize: needs calibration data, got a model without a task; name one"):
        Factorize().check(replace(bundle, data=None))
    with pytest.raises(PreconditionError, match=r"needs a linear layer of at least 16384 weights, got none in lmuformer-xs; l"):
        Factorize().check(bundle)
    with pytest.raises(
        PreconditionError, match=r"ranks must name plain linear layers, got 'mixer\.prj'; did you mean mixer\.p"
    ):
        Factorize(ranks={"mixer.prj": 4}).check(bundle)
    for rank in (0, 16):
        with pytest.raises(PreconditionError, match=rf"the rank of mixer\.proj must be in \[1, 15\], got {rank}; correct"):
            Factorize(ranks={"mixer.proj": rank}).check(bundle)
    quantized = applied(Quantize(min_weights=64, max_drop=1.0), bundle)
    with pytest.raises(PreconditionError, match=r"ranks must name plain linear layers, got 'mixer\.proj'; "):
        Factorize(ranks={"mixer.proj": 4}).check(quantized)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_drop": -0.1}, r"factorize: max_drop must be in \[0, 1\] and pays in \(0, 1\), got -0\.1 and 0\.7; correct the"),
        ({"pays": 1.0}, r"factorize: max_drop must be in \[0, 1\] and pays in \(0, 1\), got 0\.0025 and 1\.0; correct the"),
        (
            {"calibration": 0},
            r"factorize: calibration, examples and rounds must be at least 1, got 0, 1000 and 8; correct the recipe",
        ),
        (
            {"examples": 0},
            r"factorize: calibration, examples and rounds must be at least 1, got 96, 0 and 8; correct the recipe",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Factorize(**settings)
