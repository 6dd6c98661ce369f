"""Fine-tuning: learns again what compression lost, from labels and from the model before, and keeps the structure."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from pass_models import Frozen, Words, applied, learned, right

from edgetk.core.bundle import Bundle
from edgetk.core.errors import InputError, PreconditionError, UsageError
from edgetk.passes.finetune import Finetune
from edgetk.quant.quantize import Quantize

QUICK: dict[str, Any] = {"epochs": 2, "batch": 8, "augment": "none", "device": "cpu", "lr": 2e-2, "average": 0.5}


def damaged() -> Bundle:
    """The learned model with a head that has forgotten everything."""
    bundle = learned()
    with torch.no_grad():
        bundle.module.get_parameter("head.weight").normal_(0, 0.01, generator=torch.Generator().manual_seed(0))
    return bundle


def test_two_epochs_bring_accuracy_back() -> None:
    bundle = damaged()
    after = applied(Finetune(**QUICK), bundle)
    assert right(bundle) < 30
    assert right(after) > 40
    notes = after.lineage[-1].notes
    assert [h[0] for h in notes["history"]] == [1, 2]
    assert notes["validation_correct"] == right(after) == max(h[2] for h in notes["history"])
    assert (notes["validation_n"], notes["device"]) == (48, "cpu")
    assert after.lineage[-1].structure is None
    assert not after.module.training


def test_the_teacher_is_the_model_before_compression() -> None:
    """With nothing but the teacher's outputs as targets, a teacher that knows nothing teaches nothing."""
    taught = applied(Finetune(**QUICK, distill=1.0), damaged())
    assert right(taught) > 40
    blank = copy.deepcopy(damaged().original)
    with torch.no_grad():
        blank.head.weight.zero_()
        blank.head.bias.zero_()
    untaught = applied(Finetune(**QUICK, distill=1.0), replace(damaged(), original=blank))
    assert right(untaught) < 40


def test_the_teacher_stays_as_it_was() -> None:
    bundle = damaged()
    before = copy.deepcopy(bundle.original.state_dict())
    applied(Finetune(**QUICK), bundle)
    assert all(torch.equal(v, before[k]) for k, v in bundle.original.state_dict().items())


def test_one_seed_gives_one_result_and_augmentation_another() -> None:
    def head(**settings: Any) -> torch.Tensor:
        return applied(Finetune(**{**QUICK, **settings}), damaged()).module.get_parameter("head.weight")

    assert torch.equal(head(), head())
    assert not torch.equal(head(), head(seed=1))
    assert not torch.equal(head(), head(augment="louder"))


def test_without_distillation_no_teacher_is_needed() -> None:
    bundle = replace(damaged(), original=None)
    assert right(applied(Finetune(**QUICK, distill=0.0), bundle)) > 40
    with pytest.raises(
        PreconditionError, match=r"distill=0\.5 needs the model before compression as teacher, got none; set di"
    ):
        Finetune(**QUICK).check(bundle)


def test_what_cannot_be_fine_tuned_is_refused() -> None:
    bundle = learned()
    for data in (None, Frozen()):
        with pytest.raises(PreconditionError, match=r"finetune: needs training data, got none for lmuformer-xs; give the data"):
            Finetune(**QUICK).check(replace(bundle, data=data))
    with pytest.raises(PreconditionError, match=r"augment must be one of the task's, got 'loud'; did you mean louder\?"):
        Finetune(**{**QUICK, "augment": "loud"}).check(bundle)
    with pytest.raises(InputError, match=r"needs at least one batch of 128 clips, got 96; use a smaller batch"):
        applied(Finetune(**{**QUICK, "batch": 128}), bundle)
    quantized = applied(Quantize(min_weights=64, max_drop=1.0), bundle)
    with pytest.raises(PreconditionError, match=r"finetune: must come before quantize, got integer weights; change the order"):
        Finetune(**QUICK).check(quantized)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"epochs": 0}, r"epochs must be >= 1 and batch >= 2, got 0 and 128; correct them"),
        ({"distill": 1.5}, r"distill in \[0, 1\] and lr > 0, got 0\.998, 1\.5 and 0\.001; correct them"),
        ({"lr": 0.0}, r"distill in \[0, 1\] and lr > 0, got 0\.998, 0\.5 and 0\.0; correct them"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Finetune(**settings)


def test_rebuilding_changes_nothing_but_weights() -> None:
    net = learned().module
    assert Finetune().rebuild(net, {}) is net
    assert Words().split("train").origin == "made up"
