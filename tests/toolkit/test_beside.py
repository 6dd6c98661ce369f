"""Spiking models in reports: rates from named clips, energy beside the same network without spikes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from edgetk.core.bundle import Bundle
from edgetk.core.contracts import Lowered
from edgetk.core.figures import Score
from edgetk.core.workload import Op
from edgetk.export.lower import lower
from edgetk.models.lmuformer_spiking import SpikingLMUFormer
from edgetk.targets import board
from edgetk.tasks.speech_commands import TASK
from edgetk.testing import tiny_bundle
from edgetk.toolkit import activity, beside, cost, report
from edgetk.toolkit.source import open_model


def streamed(bundle: Bundle) -> dict[str, Lowered]:
    """The step form alone: two are twice the time."""
    return {"stream": lower(bundle, board.load("raspberry-pi-4"), ("stream",))[0]}


@pytest.fixture(scope="module")
def small() -> Bundle:
    bundle = open_model("lmuformer-spiking-s", labels=TASK.open(None).labels)
    return replace(bundle, data=TASK.open(None))


def test_models_without_spikes_have_no_rates() -> None:
    bundle = tiny_bundle()
    assert not activity.is_spiking(bundle)
    assert activity.firings(streamed(bundle), bundle) == {}


def test_rates_come_from_named_validation_clips_and_reach_the_operators(small: Bundle) -> None:
    lowered = streamed(small)
    found = activity.firings(lowered, small)
    assert list(found) == ["stream"]
    assert (found["stream"].inputs, found["stream"].steps) == (activity.STREAMS, 128)
    assert "every 32. example" in found["stream"].origin
    assert "validation" in found["stream"].origin

    def driven(ops: tuple[Op, ...]) -> list[Op]:
        return [op for op in ops if op.spike_rate is not None]

    # four convolutions, the memory and the readers behind it, both mixers; the head multiplies counts, the first conv features
    assert len(driven(cost.count(lowered["stream"], found["stream"]).ops)) == 11
    assert not driven(cost.count(lowered["stream"]).ops)


def test_without_data_nothing_is_recorded(small: Bundle) -> None:
    assert activity.firings({}, replace(small, data=None)) == {}


def test_the_counterpart_is_the_same_network_without_spikes_in_both_precisions(small: Bundle) -> None:
    rows = beside.counterpart(small, streamed, lambda bundle: Score(3, 4))
    assert [(r["model"], r["precision"]) for r in rows] == [("lmuformer-s", "float32"), ("lmuformer-s", "int8")]
    energies = [r["forms"]["stream"] for r in rows]
    assert [e["multiply_accumulates"] for e in energies] == [259_776, 259_776]
    assert energies[1]["joules"] < energies[0]["joules"]
    assert all(e["accumulates"] == 0 and e["neuron_updates"] == 0 and not e["rates_from"] for e in energies)
    assert rows[0]["accuracy"]["top1"] == 0.75


def test_no_counterpart_where_none_is_named_or_the_classes_differ(small: Bundle) -> None:
    def never(bundle: Bundle) -> Any:
        raise AssertionError("nothing to look at")

    assert beside.counterpart(tiny_bundle(), never, never) == []
    assert beside.counterpart(replace(small, labels=small.labels[::-1]), never, never) == []


def energy(joules: float, **changes: Any) -> dict[str, Any]:
    return {
        "joules": joules, "joules_dense_reads": 2 * joules, "arithmetic_joules": joules / 4, "memory_joules": joules * 3 / 4,
        "accumulates": 0.0, "multiply_accumulates": 1000, "neuron_updates": 0, "rates_from": "", **changes,
    }  # fmt: skip


def test_the_table_says_where_spiking_does_not_win() -> None:
    spiking = energy(4e-6, accumulates=500.0, neuron_updates=70, rates_from="clips (n=2)")
    data = {
        "beside": [
            beside.row("net", "int8", Score(9, 10), {"clip": spiking, "stream": energy(1e-6, rates_from="clips (n=2)")}),
            beside.row("plain", "int8", Score(8, 10), {"clip": energy(2e-6), "stream": energy(3e-6)}),
        ]
    }
    columns, rows = report.beside_table(data)
    assert rows[0] == ("net", "int8", "90.00 %", "clip", "500", "1,000", "70", "1 µJ", "3 µJ", "4 µJ", "8 µJ")
    assert rows[1][:4] == ("", "", "", "stream")
    assert len(columns) == len(rows[0])
    assert report.beside_notes(data) == [
        "clip: spike rates from clips (n=2)",
        "stream: spike rates from clips (n=2)",
        "clip: spiking does not win, plain in int8 needs 2× less",
    ]
    assert report.beside_table({}) == (columns, [])
    assert report.beside_notes({}) == []


def test_cards_say_how_often_each_group_of_neurons_fires(small: Bundle) -> None:
    found = activity.rates(small)
    assert found["n"] == activity.CLIPS
    assert list(found["rates"])[:2] == ["embed.neurons.0", "embed.neurons.1"]
    assert len(found["rates"]) == 11
    net = small.module
    assert isinstance(net, SpikingLMUFormer)
    examples = small.data.split("validation").features[:: 256 // activity.CLIPS]  # type: ignore[union-attr]
    with torch.no_grad():
        assert found["rates"]["output"] == round(float(net.spikes(examples).mean()), 4)
    assert activity.rates(tiny_bundle()) == {}
    assert activity.rates(replace(small, data=None)) == {}
