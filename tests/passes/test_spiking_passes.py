"""Passes on a spiking model: what comes out is exact again, its stream equals its clip, and layers of spikes stay whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from pass_models import applied, around, gap, outputs
from spiking_nets import clips, last_decision, spikes
from torch import Tensor, nn

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import PassResult
from edgetk.core.errors import PostconditionError, PreconditionError
from edgetk.models.layers.exact import settle
from edgetk.models.layers.groups import delete
from edgetk.models.layers.lif import NormedLIF
from edgetk.models.layers.norm import Sign
from edgetk.models.layers.observe import changed_share
from edgetk.models.lmuformer_spiking import SpikingLMUFormer
from edgetk.passes._search import Search
from edgetk.passes.factorize import Factorize
from edgetk.passes.finetune import Finetune
from edgetk.passes.fold import Fold
from edgetk.passes.prune import Prune
from edgetk.toolkit import calling, checkpoint
from edgetk.toolkit.recipe import Goals
from edgetk.toolkit.steps import Candidate, State, Steps

KEEP = {"embed.conv0": 12, "embed.conv2": 8, "mixer.memory": 8, "mixer.hidden": 9, "channels.ffn": 20}


def is_settled(net: nn.Module) -> bool:
    before = {k: v.clone() for k, v in net.state_dict().items()}
    settle(net)
    return all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_folding_keeps_its_promise_and_the_stream_its_clip(spiking: Bundle) -> None:
    after = applied(Fold(), spiking)
    assert after.lineage[-1].notes == {"norms_folded": 12}
    calling.check_lossless(spiking, after, clips(spiking)[:16], "fold")
    assert torch.equal(last_decision(after, clips(spiking)[:4]), outputs(after, clips(spiking)[:4]))


def _loses_shift(net: SpikingLMUFormer) -> None:
    neuron = net.mixer.encoded.neuron
    neuron.threshold.fill_(1.0)
    neuron.rest.zero_()


def _loses_sign(net: SpikingLMUFormer) -> None:
    assert isinstance(net.channels.input.norm, Sign)
    net.channels.input.norm.sign.fill_(1.0)


def _loses_scale(net: SpikingLMUFormer) -> None:
    net.mixer.proj.weight.data.mul_(2.0)


@pytest.mark.parametrize("mistake", [_loses_shift, _loses_sign, _loses_scale])
def test_a_norm_that_is_folded_wrongly_is_found(spiking: Bundle, mistake: Callable[[SpikingLMUFormer], None]) -> None:
    after = applied(Fold(), spiking)
    mistake(spikes(after))
    after = replace(after, signature=spikes(after).stream_signature())
    text = (
        r"pass fold: is lossless, so no more than 1e-03 of the variance of its spiking outputs may change, "
        r"got \d\.\de[-+]\d\d in the \w+ form; mend the pass, or leave it out"
    )
    with pytest.raises(PostconditionError, match=text):
        calling.check_lossless(spiking, after, clips(spiking)[:16], "pass fold")


def test_a_spike_that_a_rounding_flips_is_forgiven(spiking: Bundle) -> None:
    after = applied(Fold(), spiking)
    flipped = copy.deepcopy(spikes(after))
    fire = flipped.output.neuron.fire
    calls: list[int] = []

    def once(h: Tensor) -> Tensor:
        """One spike more, in one frame of one clip."""
        s = fire(h)
        if not calls:
            silent = int((s[0] == 0).nonzero()[0])
            s[0, silent] = 1
        calls.append(1)
        return s

    flipped.output.neuron.fire = once  # type: ignore[method-assign]
    x, changed = clips(spiking), replace(after, body=flipped)
    before, later = outputs(after, x), outputs(changed, x)
    assert gap(later, before) > calling.LOSSLESS
    assert changed_share(before, later) > 0
    calls.clear()
    calling.check_lossless(after, changed, x, "pass fold")


@pytest.mark.parametrize("folded", [False, True])
def test_a_pruned_stream_equals_its_clip_bit_for_bit(spiking: Bundle, folded: bool, tmp_path: Path) -> None:
    bundle = applied(Fold(), spiking) if folded else spiking
    after = applied(Prune(keep=KEEP), bundle)
    net, x = spikes(after), clips(spiking)[:4]
    assert after.lineage[-1].notes["widths"] == KEEP
    assert is_settled(net)
    assert torch.equal(last_decision(after, x), outputs(after, x))
    membranes = {s.name: s.spec.shape[1] for s in after.signature.state if s.name.endswith("_membrane")}
    assert [membranes[f"state_{name}_membrane"] for name in ("embed_neuron0", "embed_neuron1", "embed_neuron2")] == [12, 12, 8]
    assert [membranes[f"state_mixer_{name}_membrane"] for name in ("encoded", "remembered", "hidden")] == [1, 8, 9]
    assert after.signature == net.stream_signature()
    units = [unit for unit in net.modules() if isinstance(unit, NormedLIF)]
    assert (
        [u.neuron.threshold.numel() for u in units]
        == [u.rest.numel() for u in units]
        == [12, 12, 8, 16, 16, 1, 8, 9, 16, 20, 16]
    )
    file = tmp_path / "pruned.safetensors"
    file.write_bytes(checkpoint.save_model(after))
    loaded = checkpoint.load_model(file)
    assert torch.equal(outputs(loaded, x), outputs(after, x))
    assert loaded.signature.to_json() == after.signature.to_json()


def test_work_of_the_frozen_memory_counts(spiking: Bundle) -> None:
    assert spiking.data is not None
    search = Search(spiking, spiking.data.calibration(16))
    # 16 coefficients of 24 spikes, read by 12 neurons
    assert search._work("mixer.memory", 16) == 16 * 24 + 16 * 12
    assert search._work("mixer.memory", 4) == 4 * (24 + 12)
    # made from 16 coefficients and 16 inputs, read by 16 outputs
    assert search._work("mixer.hidden", 12) == 12 * (16 + 16 + 16)


def test_the_search_lowers_the_order_too(spiking: Bundle) -> None:
    after = applied(Prune(max_drop=1.0), spiking)
    assert spikes(after).macs() != spikes(spiking).macs()
    assert after.lineage[-1].notes["widths"]["mixer.memory"] == 8 == spikes(after).mixer.read_memory.in_features


@pytest.mark.parametrize(("group", "width"), [("mixer.memory", 8), ("channels.ffn", 12)])
def test_refitting_on_spikes_beats_plain_deletion(spiking: Bundle, group: str, width: int) -> None:
    bundle = applied(Fold(), spiking)
    after = applied(Prune(keep={group: width}), bundle)
    plain = copy.deepcopy(spikes(bundle))
    structure = after.lineage[-1].structure
    assert structure is not None
    (declared,) = (g for g in plain.groups() if g.name == group)
    delete(plain, declared, structure["keep"][group])
    settle(plain)
    reference = outputs(bundle, clips(spiking))
    refitted = changed_share(reference, outputs(after, clips(spiking)))
    assert refitted < changed_share(reference, outputs(replace(bundle, body=plain), clips(spiking)))


def test_nothing_of_a_spiking_model_is_factorized_and_the_notes_say_why(spiking: Bundle) -> None:
    made = Factorize(min_weights=256)
    made.check(spiking)
    result = made(spiking)
    assert (result.modified, result.body) == (False, spiking.body)
    assert result.notes["why"] == ("no layer may be split: 1 whose sums are exact, 7 whose products are additions of spikes")
    with pytest.raises(
        PreconditionError,
        match=r"factorize: ranks must name layers that may be split, got mixer\.proj, whose products are additions of spikes",
    ):
        Factorize(ranks={"mixer.proj": 4}).check(spiking)
    with pytest.raises(PreconditionError, match=r"got embed\.convs\.0\.taps, whose sums are exact; leave it out"):
        Factorize(ranks={"embed.convs.0.taps": 4}).check(spiking)


class Mixed(nn.Module):
    """One layer that reads numbers and one that reads spikes."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.decide = nn.Linear(16, 32), nn.Linear(32, 3)

    def spike_driven(self) -> tuple[str, ...]:
        return ("decide",)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.decide((self.read(x).mean(1) > 0).float())
        return y


def test_layers_that_read_no_spikes_are_factorized_as_ever(spiking: Bundle) -> None:
    class Flat:
        labels = ("one", "two", "three")
        origin = "made up"

        def split(self, name: str) -> Any:
            return replace(split, labels=split.labels % 3)

        def calibration(self, n: int) -> Tensor:
            return split.features[:n]

    assert spiking.data is not None
    whole = spiking.data.split("validation")
    split = replace(whole, features=whole.features.repeat(1, 1, 3)[..., :16])
    torch.manual_seed(0)
    after = applied(Factorize(max_drop=1.0, ranks={"read": 8}), around(Mixed(), 24, 16, data=Flat()))
    assert {name for name, _ in after.module.named_modules()} == {"", "read", "read.down", "read.up", "decide"}


def test_finetuned_weights_are_put_back_on_their_grids(spiking: Bundle) -> None:
    after = applied(Finetune(epochs=1, batch=16, augment="none", device="cpu"), spiking)
    x = clips(spiking)[:4]
    assert not torch.equal(spikes(after).channels.expand.weight, spikes(spiking).channels.expand.weight)
    assert is_settled(spikes(after))
    assert torch.equal(last_decision(after, x), outputs(after, x))


@dataclass(frozen=True)
class Stir:
    """Moves a weight off its grid, as a pass that knows nothing of grids would."""

    accepts: ClassVar[tuple[str, ...]] = ("torch",)
    lossless: ClassVar[bool] = False

    def check(self, bundle: Bundle) -> None:
        pass

    def __call__(self, bundle: Bundle) -> PassResult:
        return PassResult(bundle.body, False, {"why": "it did not want to"})

    def rebuild(self, body: Any, structure: Mapping[str, Any]) -> Any:
        return body


def _steps() -> Any:
    costs = SimpleNamespace(workspace=None)
    return Steps(costs, lambda bundle: None, Goals(), 0)  # type: ignore[arg-type]


def test_the_runner_settles_what_a_pass_has_changed(spiking: Bundle) -> None:
    with torch.no_grad():
        changed = copy.deepcopy(spikes(spiking))
        changed.channels.expand.weight.mul_(1.0 / 3.0)
    made = PassResult(copy.deepcopy(changed), True)
    after = _steps()._candidate(1, "stir", {}, Stir(), made, Candidate(spiking, None))  # type: ignore[arg-type]
    assert is_settled(after.bundle.module)
    assert not is_settled(changed)


def test_the_report_says_why_a_pass_did_nothing(spiking: Bundle) -> None:
    before = State(None, (), Candidate(spiking, None), {})  # type: ignore[arg-type]
    row = _steps().apply(1, "stir", Stir(), {}, before).rows[-1]
    assert (row.kept, row.reason) == (False, "nothing worth changing: it did not want to")
