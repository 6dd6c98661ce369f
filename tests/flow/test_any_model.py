"""Every kind of model a user may hand in goes through `edgetk compress`, and says no before any work where it cannot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgetk.core import registry
from edgetk.core.errors import PostconditionError
from edgetk.testing import tiny_bundle
from edgetk.toolkit import checkpoint
from edgetk.toolkit.calling import seeded
from edgetk.toolkit.evaluate import ranked

BOARD = ("-t", "raspberry-pi-4")
NET = """
import torch

def make():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    net.example = torch.zeros(1, 4)
    net.labels = ("a", "b", "c")
    return net
"""
FOLD = 'schema_version = 1\nname = "folding"\n\n[[passes]]\nname = "fold"\n'


def report(folder: Path) -> tuple[Path, dict]:
    """The one run below `folder` and what it reports."""
    (run,) = folder.iterdir()
    return run, json.loads((run / "report.json").read_text())


@pytest.fixture
def here(here: Path) -> Path:
    (here / "users_net.py").write_text(NET)
    (here / "fold.toml").write_text(FOLD)
    return here


def test_a_users_module_and_then_the_graph_it_became(edgetk, here):
    done = edgetk("compress", "--model", "users_net:make", "--recipe", "fold.toml", *BOARD, "-o", "runs")
    assert done.exit_code == 0, done.stderr
    run, found = report(here / "runs")
    assert [(row["name"], row["kept"], row["notes"]) for row in found["passes"]] == [("fold", True, {"norms_folded": 1})]
    assert found["labels"] == ["a", "b", "c"]
    assert found["artifacts"][0]["parity"]["passed"]
    assert any("no data: accuracy was not checked" in text for text in found["warnings"])

    done = edgetk("compress", "--model", run / "model.onnx", "--recipe", "export", *BOARD, "-o", "again")
    assert done.exit_code == 0, done.stderr
    _, again = report(here / "again")
    assert again["labels"] == found["labels"]
    assert again["workloads"] == found["workloads"]
    assert again["artifacts"][0]["parity"]["passed"]


UNPRUNABLE = "prune: the module must declare what can be removed by a method groups(), got Sequential without one"


def test_the_default_recipe_leaves_out_what_a_users_module_does_not_offer(edgetk, here):
    done = edgetk("compress", "--model", "users_net:make", *BOARD, "-o", "runs")
    assert done.exit_code == 0, done.stderr
    _, found = report(here / "runs")
    rows = {row["name"]: row for row in found["passes"]}
    assert rows["fold"]["kept"]
    assert rows["prune"]["reason"].startswith(f"cannot work on this model: {UNPRUNABLE}")
    assert rows["quantize"]["reason"].startswith("cannot work on this model: quantize: needs calibration data, got a model")
    assert not any(rows[name]["kept"] or rows[name]["file"] for name in ("prune", "quantize"))
    assert f"prune: left out, cannot work on this model: {UNPRUNABLE}" in done.stderr.replace("\n", " ")
    assert found["artifacts"][0]["parity"]["passed"]


def test_a_users_module_that_passes_cannot_work_on(edgetk, here):
    (here / "prune.toml").write_text(FOLD.replace('"fold"', '"prune"'))
    done = edgetk("compress", "--model", "users_net:make", "--recipe", "prune.toml", *BOARD, "-o", "runs")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith(UNPRUNABLE)
    assert not (here / "runs").exists()


def test_finetuning_on_the_sample_says_at_once_that_it_has_no_training_split(edgetk, here):
    done = edgetk("compress", "--model", "lmuformer-xs", "--finetune", *BOARD, "-o", "runs")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("speech-commands: training needs a train split, got only validation")
    assert not (here / "runs").exists()


def test_a_graph_that_passes_cannot_work_on(edgetk, here, tiny_graphs):
    done = edgetk("compress", "--model", tiny_graphs / "model.onnx", *BOARD, "-o", "as-it-is")
    assert done.exit_code == 0, done.stderr
    _, found = report(here / "as-it-is")
    assert not any(row["kept"] for row in found["passes"])
    assert any(text.startswith("nothing was compressed: no pass of the recipe can work on") for text in found["warnings"])

    done = edgetk("compress", "--model", tiny_graphs / "model.onnx", "--recipe", "fold.toml", *BOARD, "-o", "runs")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("pass fold: the model must be torch, got onnx (model); passes that accept")
    assert not (here / "runs").exists()


def test_a_stored_model_of_the_zoo(edgetk, here):
    with seeded(0):
        bundle = replace(registry.load("model", "ds-cnn")("base", width=8, blocks=1, frames=32, classes=3), task="")
    Path("small.safetensors").write_bytes(checkpoint.save_model(bundle))
    done = edgetk("compress", "--model", "small.safetensors", "--recipe", "fold.toml", *BOARD, "-o", "runs")
    assert done.exit_code == 0, done.stderr
    _, found = report(here / "runs")
    assert [(row["name"], row["kept"], row["notes"]) for row in found["passes"]] == [("fold", True, {"norms_folded": 3})]
    assert found["artifacts"][0]["parity"]["passed"]

    (here / "quantize.toml").write_text(FOLD.replace('"fold"', '"quantize"'))
    done = edgetk("compress", "--model", "small.safetensors", "--recipe", "quantize.toml", *BOARD, "-o", "no")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].startswith("quantize: needs calibration data, got a model without a task; name one")
    assert not (here / "no").exists()


@pytest.fixture(scope="module")
def tiny_graphs(edgetk, tiny_task, tmp_path_factory) -> Path:
    """A run folder with both forms of the tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    done = edgetk("compress", "--model", "edgetk.testing:tiny_bundle", "--recipe", "export", *BOARD, "-o", folder)
    assert done.exit_code == 0, done.stderr
    return report(folder)[0]


def test_a_step_graph_with_data_is_fed_frame_by_frame(edgetk, here, tiny_graphs):
    done = edgetk("compress", "--model", tiny_graphs / "model.stream.onnx", "--recipe", "export", *BOARD, "-o", "runs")
    assert done.exit_code == 0, done.stderr
    run, found = report(here / "runs")
    _, first = report(tiny_graphs.parent)
    assert found["accuracy"] == first["accuracy"]
    assert found["artifacts"][0]["form"] == "stream"
    assert (run / found["artifacts"][0]["path"]).is_file()


# one recording


@pytest.fixture
def rising(here: Path) -> Path:
    """An input file of the tiny task whose right answer is "rising"."""
    split = tiny_bundle().data.split("test")
    row = next(i for i, label in enumerate(split.labels) if label == 2)
    path = here / "rising.txt"
    path.write_text("\n".join(" ".join(f"{v:.6f}" for v in frame.tolist()) for frame in split.features[row]))
    return path


def test_every_kind_of_model_answers_to_one_recording_alike(edgetk, rising, tiny_graphs):
    answers = {}
    for model in ("edgetk.testing:tiny_bundle", tiny_graphs / "model.onnx", tiny_graphs / "model.stream.onnx"):
        done = edgetk("evaluate", model, "--wav", rising, "--json")
        assert (done.exit_code, done.stderr) == (0, "")
        found = json.loads(done.stdout)
        assert (found["task"], found["file"]) == ("tiny", str(rising))
        answers[found["model"].rpartition(".")[0], found["form"]] = found["scores"]
    first, *others = answers.values()
    assert first[0]["label"] == "rising"
    for other in others:
        assert [row["label"] for row in other] == [row["label"] for row in first]
        assert [row["score"] for row in other] == pytest.approx([row["score"] for row in first], abs=1e-4)
    assert {form for _, form in answers} == {"clip", "stream"}


def test_three_labels_are_printed(edgetk, tmp_path):
    import soundfile

    from edgetk.tasks.speech.audio import decode
    from edgetk.tasks.speech.sample import Sample

    clip = next(c for c in Sample().clips("test") if c.word == "yes")
    soundfile.write(tmp_path / "yes.wav", decode(clip.encoded, clip.name), 16000)
    done = edgetk("evaluate", "ds-cnn", "--wav", tmp_path / "yes.wav")
    assert (done.exit_code, done.stderr) == (0, "")
    head, *rows = done.stdout.splitlines()
    assert head == f"ds-cnn (clip form) on {tmp_path / 'yes.wav'}"
    assert len(rows) == 3
    assert rows[0].split()[0] == "yes"
    scores = [float(row.split()[1]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_scores_get_labels_or_numbers_and_must_be_whole():
    assert ranked(torch.tensor([[0.5, 2.0, -1.0]]), (), "m") == [("class 1", 2.0), ("class 0", 0.5), ("class 2", -1.0)]
    text = r"m: must give one finite score per class of one example \(1, 2\), got \(1, 2\) with NaN or infinity; correct the"
    with pytest.raises(PostconditionError, match=text):
        ranked(torch.tensor([[0.5, float("nan")]]), ("a", "b"), "m")
    with pytest.raises(PostconditionError, match=r"m: must give .* \(1, classes\), got \(2, 1\); correct the model's output"):
        ranked(torch.zeros(2, 1), (), "m")
