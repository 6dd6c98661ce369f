"""Structured pruning: channels are gone for good, what stays is refitted, and the search stops where accuracy suffers."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pass_models import Words, applied, around, gap, learned, outputs, right, streamed
from torch import nn

from edgetk.core.errors import PreconditionError, RecipeError
from edgetk.models import ecoformer, wide
from edgetk.models.layers.groups import delete
from edgetk.models.lmuformer import LMUFormer
from edgetk.passes import _statistics
from edgetk.passes._search import Search
from edgetk.passes.factorize import Factorize
from edgetk.passes.finetune import Finetune
from edgetk.passes.fold import Fold
from edgetk.passes.prune import Prune
from edgetk.quant.quantize import Quantize
from edgetk.toolkit import checkpoint

KEEP = {"embed.conv0": 12, "embed.conv1": 4, "embed.conv2": 16, "mixer.hidden": 9, "channels.ffn": 20, "mixer.memory": 10}
CLIPS = Words().split("validation").features


def lmuformer(bundle: Any) -> LMUFormer:
    assert isinstance(bundle.module, LMUFormer)
    return bundle.module


def test_fixed_widths_are_kept_exactly() -> None:
    bundle = learned()
    after = applied(Prune(keep=KEEP), bundle)
    net = lmuformer(after)
    assert [tuple(c.taps.weight.shape) for c in net.embed.layers()] == [(12, 24), (4, 36), (16, 12), (16, 48), (16, 48)]
    assert [norm.num_features for norm in net.embed.norms] == [12, 4, 16, 16]
    assert [c.pad.numel() for c in net.embed.layers()] == [8, 12, 4, 16, 16]
    assert (net.mixer.memory.order, tuple(net.mixer.hidden.weight.shape)) == (10, (9, 26))
    assert tuple(net.mixer.proj.weight.shape) == (16, 9)
    assert (tuple(net.channels.expand.weight.shape), tuple(net.channels.reduce.weight.shape)) == ((20, 16), (16, 20))
    assert net.channels.norm1.running_mean.shape == (20,)
    assert after.lineage[-1].notes["widths"] == {k: v for k, v in KEEP.items() if k != "embed.conv2"}


def test_work_and_bytes_are_those_of_the_widths() -> None:
    before, after = lmuformer(learned()), lmuformer(applied(Prune(keep=KEEP), learned()))
    assert before.macs() == {
        "embed": 16 * 24 + 4 * 16 * 48,
        "mixer": 16 + 16 * 17 + 16 * 32 + 16 * 16,
        "channels": 2 * 16 * 32,
        "head": 48,
    }
    assert after.macs() == {
        "embed": 12 * 24 + 4 * 36 + 16 * 12 + 2 * 16 * 48,
        "mixer": 16 + 10 * 11 + 9 * 26 + 16 * 9,
        "channels": 2 * 16 * 20,
        "head": 48,
    }
    weights = sum(after.macs().values()) - 10 * 11
    norms, biases = 2 * (12 + 4 + 16 + 16 + 16 + 20 + 16), 1 + 9 + 16 + 20 + 16 + 3
    assert sum(p.numel() for p in after.parameters()) == weights + norms + biases


def test_clip_and_stream_still_agree_and_the_stream_declares_smaller_states() -> None:
    after = applied(Prune(keep=KEEP), learned())
    assert gap(streamed(after, CLIPS[:4])[:, -1], outputs(after, CLIPS[:4])) < 1e-5
    assert [s.spec.shape[1] for s in after.signature.state] == [6, 16, 24, 8, 32, 32, 10, 3, 1]
    assert after.signature == after.module.stream_signature()


def test_channels_that_do_nothing_go_first_and_nothing_changes() -> None:
    bundle = learned()
    net = lmuformer(bundle)
    dead = [1, 5, 30]
    with torch.no_grad():
        net.channels.norm1.weight[dead] = net.channels.norm1.bias[dead] = 0.0
        net.channels.reduce.weight[:, dead] = 0.0
    after = applied(Prune(keep={"channels.ffn": 29}), bundle)
    structure = after.lineage[-1].structure
    assert structure == {"keep": {"channels.ffn": [c for c in range(32) if c not in dead]}}
    assert gap(outputs(after, CLIPS), outputs(bundle, CLIPS)) < 1e-2


@pytest.mark.parametrize("group", ["embed.conv0", "embed.conv2", "mixer.hidden", "channels.ffn"])
def test_refitting_the_reader_beats_plain_deletion(group: str) -> None:
    bundle = applied(Fold(), learned())
    inputs = Words().calibration(96)
    after = applied(Prune(keep={group: 8}), bundle)
    plain = copy.deepcopy(bundle.module)
    structure = after.lineage[-1].structure
    assert structure is not None
    (declared,) = (g for g in lmuformer(bundle).groups() if g.name == group)
    delete(plain, declared, structure["keep"][group])
    reference = outputs(bundle, inputs)
    refitted = (outputs(after, inputs) - reference).square().sum()
    assert refitted < 0.8 * (outputs(replace(bundle, body=plain), inputs) - reference).square().sum()


def test_a_lower_order_is_refitted() -> None:
    bundle = learned()
    after = applied(Prune(keep={"mixer.memory": 4}), bundle)
    assert lmuformer(after).mixer.memory.order == 4
    assert after.lineage[-1].structure == {"keep": {"mixer.memory": 4}}
    inputs = Words().calibration(96)
    cut = copy.deepcopy(bundle.module)
    lmuformer(bundle).memory_groups()[0].resize(cut, 4)
    reference = outputs(bundle, inputs)
    refitted = (outputs(after, inputs) - reference).square().sum()
    assert refitted < 0.5 * (outputs(replace(bundle, body=cut), inputs) - reference).square().sum()


@pytest.mark.parametrize("folded", [False, True])
def test_structure_and_weights_survive_a_file(folded: bool, tmp_path: Path) -> None:
    bundle = applied(Fold(), learned()) if folded else learned()
    after = applied(Prune(keep=KEEP), bundle)
    file = tmp_path / "pruned.safetensors"
    file.write_bytes(checkpoint.save_model(after))
    loaded = checkpoint.load_model(file)
    assert torch.equal(outputs(loaded, CLIPS), outputs(after, CLIPS))
    assert torch.equal(streamed(loaded, CLIPS), streamed(after, CLIPS))
    assert lmuformer(loaded).macs() == lmuformer(after).macs()


def test_widths_as_they_are_leave_the_model_alone() -> None:
    bundle = learned()
    result = Prune(keep={"mixer.hidden": 16})(bundle)
    assert (result.modified, result.body) == (False, bundle.body)


def test_search_loses_no_more_than_it_may() -> None:
    bundle = learned()
    assert right(bundle) >= 44
    after = applied(Prune(max_drop=0.05), bundle)
    assert lmuformer(after).macs() != lmuformer(bundle).macs()
    *tried, examples = after.lineage[-1].notes["tried"]
    assert examples == {"examples": 48}
    assert all(t["accuracy_drop"] <= 0.05 for t in tried[:-1])
    assert (right(bundle) - right(after)) / 48 <= 0.1
    for before, later in itertools.pairwise(tried):
        assert later["macs_share"] < before["macs_share"]


def test_search_takes_the_last_candidate_before_accuracy_fell(monkeypatch: pytest.MonkeyPatch) -> None:
    drops = iter([0.0, 0.01, 0.2])
    monkeypatch.setattr(_statistics.Guide, "drop", lambda self, bundle: next(drops))
    after = applied(Prune(max_drop=0.1), learned())
    first, second, third, _ = after.lineage[-1].notes["tried"]
    assert [t["accuracy_drop"] for t in (first, second, third)] == [0.0, 0.01, 0.2]
    assert after.lineage[-1].notes["widths"] == second["widths"] != third["widths"]


def test_search_that_finds_nothing_leaves_the_model_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_statistics.Guide, "drop", lambda self, bundle: 0.5)
    bundle = learned()
    result = Prune(max_drop=0.1)(bundle)
    assert (result.modified, result.body) == (False, bundle.body)
    assert [t.get("accuracy_drop") for t in result.notes["tried"]] == [0.5, None]


def test_damage_grows_as_widths_shrink_and_plans_meet_their_share() -> None:
    search = Search(learned(), Words().calibration(48))
    table = search.damage()
    assert table.keys() == search.sizes.keys()
    for name, size in search.sizes.items():
        assert set(table[name]) == {size, *range(8, size, 8)}
        assert table[name][size] == 0.0 <= min(table[name].values())
    plan = search.plan(table, 0.7)
    assert plan is not None
    sizes = search.sizes | {name: len(k) if isinstance(k, list) else k for name, k in plan.items()}
    whole = sum(search._work(name, size) for name, size in search.sizes.items())
    assert sum(search._work(name, size) for name, size in sizes.items()) <= 0.7 * whole
    assert search.plan(table, 0.01) is None


class Undeclared(nn.Linear):
    """A module without groups."""


def test_what_cannot_be_pruned_is_refused() -> None:
    bundle = learned()
    Prune().check(bundle)
    with pytest.raises(PreconditionError, match=r"prune: needs calibration data, got a model without a task; name one with"):
        Prune().check(replace(bundle, data=None))
    with pytest.raises(PreconditionError, match=r"prune: the module must declare .* groups\(\), got Undeclared without one"):
        Prune().check(around(Undeclared(4, 3), 4, data=Words()))
    with pytest.raises(PreconditionError, match=r"prune: keep must name groups .*embed\.conv0.*, got 'conv0'; correct it"):
        Prune(keep={"conv0": 4}).check(bundle)
    for width in (0, 17):
        with pytest.raises(
            PreconditionError, match=rf"prune: keep mixer\.hidden must be in \[1, 16\], got {width}; correct it"
        ):
            Prune(keep={"mixer.hidden": width}).check(bundle)


@pytest.mark.parametrize("layer", ["embed.convs.0.taps", "embed.convs.1.taps", "mixer.hidden", "mixer.proj", "channels.expand"])
def test_factorized_layers_are_refused(layer: str) -> None:
    split = applied(Factorize(ranks={layer: 6}), learned())
    with pytest.raises(PreconditionError, match=rf"prune: {layer} must be a plain linear layer, got LowRank; prune before"):
        Prune().check(split)


def test_integer_layers_are_refused() -> None:
    quantized = applied(Quantize(min_weights=256, max_drop=1.0), learned())
    with pytest.raises(PreconditionError, match=r"must be a plain linear layer, got QuantLinear; prune before factorize and"):
        Prune().check(quantized)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max_drop": 1.5}, r"prune: max_drop must be in \[0, 1\], got 1\.5; correct the recipe"),
        ({"calibration": 0}, r"prune: calibration and examples must be at least 1, got 0 and 1000; correct the recipe"),
        ({"examples": 0}, r"prune: calibration and examples must be at least 1, got 96 and 0; correct the recipe"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        Prune(**settings)


def test_a_pruned_model_can_be_fine_tuned() -> None:
    after = applied(Prune(keep=KEEP), learned())
    tuned = applied(Finetune(epochs=1, batch=32, augment="none", device="cpu"), after)
    assert [v.shape for v in tuned.module.state_dict().values()] == [v.shape for v in after.module.state_dict().values()]


def test_depthwise_convolutions_go_with_their_channels() -> None:
    """EcoFormer's MLPs: expand, depthwise convolution, reduce; the work of a stage counts its tokens."""
    shape = {"dims": [8, 8], "depths": [1, 1], "heads": [1, 1], "mlp_ratios": [3, 2], "reductions": [1, 1], "size": [16, 24]}
    torch.manual_seed(0)
    bundle = ecoformer.build("kws-msa", **shape, patch=[3, 2], classes=3)
    groups = {g.name: g for g in bundle.module.groups()}
    assert {name: (g.size, g.runs) for name, g in groups.items()} == {
        "stages.0.blocks.0.mlp": (24, 8 * 12),
        "stages.1.blocks.0.mlp": (16, 4 * 6),
    }
    silent = [3, 10, 17]  # channels that reach nothing: without them the outputs are the same
    kept = [c for c in range(24) if c not in silent]
    bundle.module.stages[0].blocks[0].mlp.reduce.weight.detach()[:, silent] = 0
    x = torch.randn(2, 16, 24)
    with torch.no_grad():
        before = bundle.module(x)
        delete(bundle.module, groups["stages.0.blocks.0.mlp"], kept)
        mix = bundle.module.stages[0].blocks[0].mlp.mix
        assert (mix.in_channels, mix.out_channels, mix.groups, tuple(mix.weight.shape)) == (21, 21, 21, (21, 1, 3, 3))
        assert torch.allclose(bundle.module(x), before, atol=1e-6)


def test_feed_forward_channels_of_wide_encoders_go() -> None:
    bundle = wide.build("kws", heads=2, dim=8, head_width=4, ffn=12, length=10, features=6)
    (group,) = bundle.module.groups()
    bundle.module.layers[0].down.weight.detach()[:, 5] = 0
    x = torch.randn(2, 10, 6)
    with torch.no_grad():
        before = bundle.module(x)
        delete(bundle.module, group, [c for c in range(12) if c != 5])
        assert torch.allclose(bundle.module(x), before, atol=1e-6)
