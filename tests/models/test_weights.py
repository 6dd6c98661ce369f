"""The trained weights that ship: whole, small enough, what their cards say, and as often right as the cards claim."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from edgetk.core.figures import Score
from edgetk.export import parity
from edgetk.export.lower import lower
from edgetk.targets import board
from edgetk.tasks.images.front_end import CLASSES
from edgetk.tasks.imdb.reviews import LABELS as MOODS
from edgetk.tasks.imdb.windows import NAMES as BYTES
from edgetk.tasks.speech.words import WORDS_16
from edgetk.tasks.speech_commands import TASK
from edgetk.toolkit import stored
from edgetk.toolkit.calling import check_interface
from edgetk.toolkit.card import macs
from edgetk.toolkit.evaluate import evaluate, predictor
from edgetk.toolkit.recipe import read
from edgetk.toolkit.source import WEIGHTS, is_untrained, open_model

#: trained from scratch, and what passes made of one of them
TRAINED = ("ds-cnn", "lmuformer", "lmuformer-s", "lmuformer-spiking", "lmuformer-spiking-s", "lmuformer-xs")
COMPRESSED = ("lmuformer-compact",)
#: trained with softmax attention, then on binary codes
HASHED = ("ecoformer-cifar", "ecoformer-kws")
#: look-up tables, one seed
TABLES = ("memoryformer", "memoryformer-lm", "memoryformer-text")
#: for other tasks than words
OTHERS = {
    "ecoformer-cifar": ("cifar10", CLASSES),
    "memoryformer-lm": ("imdb-bytes-lm", BYTES),
    "memoryformer-text": ("imdb-bytes", MOODS),
    "wide-compact": ("imdb-bytes", MOODS),
}
#: those whose matrices and tables are stored as int8; all others are float16
INT8 = {*TABLES, "wide-compact"}
NAMES = tuple(sorted({*TRAINED, *COMPRESSED, *HASHED, *TABLES, *OTHERS}))
SPEECH = tuple(name for name in NAMES if name not in OTHERS)
TASKS = {name: OTHERS.get(name, ("speech-commands", WORDS_16)) for name in NAMES}
LABELS = {name: labels for name, (_, labels) in TASKS.items()}


def read_card(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((WEIGHTS / f"{name}.json").read_text())
    return found


def test_each_file_has_a_card_and_together_they_are_small() -> None:
    assert sorted(path.stem for path in WEIGHTS.glob("*.safetensors")) == list(NAMES)
    assert sorted(path.stem for path in WEIGHTS.glob("*.json")) == list(NAMES)
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 16e6


@pytest.mark.parametrize("name", NAMES)
def test_card_describes_the_file(name: str) -> None:
    card, content = read_card(name), (WEIGHTS / f"{name}.safetensors").read_bytes()
    bundle = open_model(name)
    assert card["name"] == bundle.name == name
    assert card["weights"] == {
        "file": f"{name}.safetensors",
        "sha256": sha256(content).hexdigest(),
        "size_bytes": len(content),
    }
    assert card["parameters"] == sum(p.numel() for p in bundle.module.parameters())
    assert tuple(card["labels"]) == bundle.labels == LABELS[name]
    assert card["task"] == bundle.task == TASKS[name][0]
    assert card["macs"] == macs(bundle)
    assert not is_untrained(bundle)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_stored_in_few_bits_is_loaded_in_single_precision_exactly(name: str) -> None:
    tensors, loaded = load_file(WEIGHTS / f"{name}.safetensors"), open_model(name).module.state_dict()
    kinds = {key: value.dtype for key, value in tensors.items() if not key.endswith(stored.SCALE)}
    assert kinds.keys() == loaded.keys()
    for key, value in loaded.items():
        if not value.is_floating_point():
            assert kinds[key] == value.dtype
            continue
        few = name in INT8 and value.ndim > 1
        assert kinds[key] == (torch.int8 if few else torch.float16)
        assert value.dtype == torch.float32
        means = tensors[key].float() * (tensors[key + stored.SCALE] if few else 1)
        assert torch.equal(value, means)


@pytest.mark.parametrize("name", TRAINED + HASHED + TABLES)
def test_interface_is_that_of_the_model_as_it_is_built_today(name: str) -> None:
    bundle, fresh = open_model(name), open_model(name, labels=LABELS[name], trained=False)
    assert (bundle.signature, bundle.clip) == (fresh.signature, fresh.clip)
    check_interface(bundle, name)


@pytest.mark.parametrize("name", TRAINED)
def test_card_tells_how_it_was_made(name: str) -> None:
    card = read_card(name)
    runs, training = card["training"]["runs"], card["training"]
    best = max(runs, key=lambda run: run["validation"]["correct"])
    assert (training["seed"], training["best_epoch"]) == (best["seed"], best["best_epoch"])
    assert card["recipe"]["schedule"]["seed"] == best["seed"]
    tops = sorted(run["test"]["top1"] for run in runs)
    assert training["median"]["test"] == tops[len(tops) // 2]
    assert training["median"]["seeds"] == len(runs)
    assert card["data"]["train"] == 20240
    assert "CC BY 4.0" in card["data"]["licence"]
    assert training["licence"] == "Apache-2.0"
    for figures in card["accuracy"].values():
        score = Score(figures["correct"], figures["n"])
        assert figures["top1"] == score.top1
        assert figures["ci95"] == list(score.ci95)


@pytest.mark.parametrize("name", TRAINED)
def test_the_page_on_training_has_the_figures_of_the_cards(name: str) -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    card = read_card(name)
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}`"))
    runs, median = card["training"]["runs"], card["training"]["median"]
    for top in (*((run["test"]["top1"], run["test_all"]["top1"]) for run in runs), (median["test"], median["test_all"])):
        assert f"{100 * top[0]:.2f} / {100 * top[1]:.2f}" in row
    assert f"| {card['parameters']:,} | {card['macs']['per_frame']:,.0f} | {card['recipe']['schedule']['epochs']} |" in row
    assert f"seed {card['training']['seed']} |" in row


def test_bars() -> None:
    test = {name: read_card(name)["training"]["median"]["test"] for name in TRAINED}
    assert test["lmuformer"] >= 0.97
    assert read_card("lmuformer-s")["parameters"] <= 260_000
    assert test["lmuformer-s"] >= 0.955


def test_the_compressed_model_is_what_its_lineage_says() -> None:
    base, compact = open_model("lmuformer"), open_model("lmuformer-compact")
    assert [record.name for record in compact.lineage] == ["prune", "factorize", "finetune"]
    steps = {step.pop("name"): step for step in read_card("lmuformer-compact")["recipe"]["passes"]}
    assert steps == {record.name: dict(record.settings) for record in compact.lineage}
    recipe = {step.name: step.settings for step in read("compact").passes}
    for name, settings in steps.items():
        assert {key: recipe[name][key] for key in settings} == settings
    assert compact.signature == compact.module.stream_signature()
    assert 4 * sum(compact.module.macs().values()) <= sum(base.module.macs().values())
    cards = [read_card(bundle.name)["accuracy"]["test"] for bundle in (base, compact)]
    assert cards[1]["top1"] >= cards[0]["top1"] - 0.005


def test_spiking_is_within_two_points_of_the_same_network_without_spikes() -> None:
    for name in ("lmuformer", "lmuformer-s"):
        other = read_card(name.replace("lmuformer", "lmuformer-spiking"))
        for split in ("test", "test_all"):
            assert other["accuracy"][split]["top1"] >= read_card(name)["training"]["median"][split] - 0.02, (name, split)


def test_cards_of_spiking_models_say_how_often_each_group_of_neurons_fires() -> None:
    for name in ("lmuformer-spiking", "lmuformer-spiking-s"):
        fired, signature = read_card(name)["training"]["firing"], open_model(name).signature
        assert len(fired["rates"]) == sum(state.name.endswith("_membrane") for state in signature.state) == 11
        assert all(0.01 < rate < 0.99 for rate in fired["rates"].values()), name
        assert fired["n"] >= 64
        assert "validation" in fired["origin"]


@pytest.mark.parametrize("name", HASHED)
def test_binary_attention_is_within_a_point_of_the_softmax_attention_that_it_was_made_from(name: str) -> None:
    card, bundle = read_card(name), open_model(name)
    assert bundle.module.hash_state == "learned"
    before = card["training"]["softmax_accuracy"]
    for split, figures in before.items():
        assert card["accuracy"][split]["n"] == figures["n"]
        assert card["accuracy"][split]["top1"] >= figures["top1"] - 0.01, split
    assert sum((WEIGHTS / f"{n}.safetensors").stat().st_size for n in HASHED) <= 3e6


@pytest.mark.parametrize("name", HASHED)
def test_exported_binary_attention_is_proven_for_learned_hashes(name: str) -> None:
    bundle = open_model(name)
    (low,) = lower(bundle, board.load("raspberry-pi-5"))
    proof = parity.prove(low, low.graph.SerializeToString())
    assert proof.passed, proof
    assert proof.max_abs <= 0.01 * proof.scale  # one flipped code moves its own token, not the decision
    assert proof.agreement == 1.0


def test_the_page_on_tables_has_the_accuracy_of_the_card_and_of_the_same_network_of_matrices() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "memoryformer.md").read_text(encoding="utf-8")
    assert sum((WEIGHTS / f"{name}.safetensors").stat().st_size for name in TABLES) <= 3e6
    for name in TABLES:
        assert f"{100 * read_card(name)['accuracy']['test']['top1']:.2f}" in page
    assert f"{100 * read_card('memoryformer')['training']['dense_accuracy']['test']['top1']:.2f}" in page


def test_the_wide_layer_has_the_heads_that_its_page_says() -> None:
    card, bundle = read_card("wide-compact"), open_model("wide-compact")
    page = (Path(__file__).resolve().parents[2] / "docs" / "wide.md").read_text(encoding="utf-8")
    assert [record.name for record in bundle.lineage] == ["prune-blocks", "fold"]
    assert card["training"]["heads"] == [0, 4, 10, 12]
    assert f"{100 * card['accuracy']['test']['top1']:.2f}" in page
    assert (WEIGHTS / "wide-compact.safetensors").stat().st_size <= 3e6


@pytest.mark.parametrize("name", SPEECH)
def test_accuracy_on_the_embedded_sample_is_the_recorded_one(name: str) -> None:
    recorded, data = read_card(name)["accuracy"]["sample_test"], TASK.open(None)
    score = evaluate(predictor(open_model(name)), "speech-commands", data, "test")
    assert (score.correct, score.n) == (recorded["correct"], recorded["n"])


def test_accuracy_on_the_whole_test_is_the_recorded_one() -> None:
    folder = Path(os.environ.get("EDGETK_DATA", "")) / "speech_commands"
    if "EDGETK_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("EDGETK_DATA is not set to a folder that holds speech_commands/")
    data = TASK.open(folder, WORDS_16)
    for name in ("lmuformer-s", "lmuformer-spiking-s", "lmuformer-xs"):
        recorded, predict = read_card(name)["accuracy"], predictor(open_model(name))
        for key, official in (("test", True), ("test_all", False)):
            score = evaluate(predict, "speech-commands", data, "test", official)
            assert (score.correct, score.n) == (recorded[key]["correct"], recorded[key]["n"]), (name, key)
