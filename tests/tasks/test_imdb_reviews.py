"""Moods of whole IMDb reviews: bytes and units by hand, splits, what is hidden in training, what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from edgetk.core import registry
from edgetk.core.contracts import Split
from edgetk.core.errors import InputError, PostconditionError, UsageError
from edgetk.tasks.imdb.task import ReviewTask
from edgetk.tasks.imdb.texts import as_bytes, as_units
from edgetk.tasks.imdb_bytes import TASK as BYTES
from edgetk.tasks.imdb_tokens import TASK as TOKENS
from edgetk.tasks.text.data import Augmentation
from edgetk.tasks.text.wordpiece import CLS, MASK, SEP

BOTH = pytest.mark.parametrize("task", [BYTES, TOKENS], ids=lambda task: task.name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty reviews of each mood and part, the favourable ones longer."""
    for part in ("train", "test"):
        for name, words in (("neg", "a bad film"), ("pos", "a very good film indeed")):
            place = tmp_path / part / name
            place.mkdir(parents=True)
            for i in range(20):
                (place / f"{i:02}_7.txt").write_text(f"{part} {i}: {words}")
    return tmp_path


def test_bytes_by_hand() -> None:
    rows = as_bytes([b"abc", b"", "é".encode(), b"longer than five"], 5)
    assert rows.dtype == torch.uint8
    assert rows.tolist() == [[97, 98, 99, 0, 0], [0] * 5, [195, 169, 0, 0, 0], list(b"longe")]


def test_units_by_hand() -> None:
    rows = as_units([b"a film"], 6, "imdb-tokens")
    assert rows.tolist() == [[CLS, 1037, 2143, SEP, 0, 0]]  # numbers of "a" and "film" in BERT's vocabulary
    assert as_units([b"a film a film a film"], 4, "imdb-tokens").tolist() == [[CLS, 1037, 2143, SEP]]


@BOTH
def test_splits(folder: Path, task: ReviewTask) -> None:
    data = task.open(folder)
    sizes = {name: data.split(name) for name in ("train", "validation", "test")}
    assert {name: len(s.labels) for name, s in sizes.items()} == {"train": 36, "validation": 4, "test": 40}
    assert sizes["validation"].labels.tolist() == [0, 0, 1, 1]
    assert sizes["test"].features.shape == (40, task.length)
    assert sizes["test"].labels.tolist() == [0] * 20 + [1] * 20  # the archive has negative reviews first
    assert sizes["test"].origin.endswith("test: 40 reviews")
    expected = task.encode([b"test 3: a very good film indeed"]).float()
    assert torch.equal(sizes["test"].features[23:24], expected)


@BOTH
def test_calibration_takes_classes_in_turn_from_training(folder: Path, task: ReviewTask) -> None:
    data = task.open(folder)
    train = data.split("train")
    inputs = data.calibration(6)
    where = [int((train.features == x).all(1).nonzero()) for x in inputs]
    assert where == [0, 18, 1, 19, 2, 20]
    with pytest.raises(InputError, match=rf"{task.name}: at most 36 calibration reviews are there, got a wish for 37; ask for"):
        data.calibration(37)


@BOTH
def test_batches_and_what_training_hides(folder: Path, task: ReviewTask) -> None:
    data = task.open(folder)
    train = data.split("train")
    draw, rows = data.batches("cpu")
    assert rows == 36
    x, targets = draw(torch.tensor([1, 20]))
    assert torch.equal(x, train.features[[1, 20]])
    assert targets.tolist() == [[1.0, 0.0], [0.0, 1.0]]
    torch.manual_seed(0)
    hidden, _ = data.batches("cpu", Augmentation(mask=0.5))[0](torch.arange(36))
    changed = hidden != train.features
    words = train.features > task.structure
    assert not bool((changed & ~words).any())
    assert 0.4 < float(changed[words].float().mean()) < 0.6
    assert set(hidden[changed].tolist()) == {float(task.hidden)}
    assert (BYTES.hidden, TOKENS.hidden) == (0, MASK)


@BOTH
def test_score_counts_reviews(task: ReviewTask) -> None:
    split = Split("test", torch.zeros(3, task.length), torch.tensor([0, 1, 1]), "made up")
    score = task.score(lambda x: torch.tensor([[0.0, 1.0]]).expand(len(x), 2), split)
    assert (score.correct, score.n, score.note) == (2, 3, "all 3 reviews")
    with pytest.raises(PostconditionError, match=rf"{task.name}: predict must return one row of class scores per review"):
        task.score(lambda x: torch.zeros(len(x)), split)


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a film")
    assert BYTES.read(tmp_path / "a.txt").shape == (1, 1000)
    assert BYTES.read(tmp_path / "a.txt")[0, :7].tolist() == [*b"a film", 0]
    assert TOKENS.read(tmp_path / "a.txt")[0, :5].tolist() == [CLS, 1037, 2143, SEP, 0]
    with pytest.raises(InputError, match=r"missing\.txt: must be a readable file, got: .*; check the path"):
        BYTES.read(tmp_path / "missing.txt")


@BOTH
def test_description(folder: Path, task: ReviewTask) -> None:
    assert dict(task.describe(folder))["validation"].startswith("4 reviews, 2 positive")
    assert "none: the publisher states no licence" in dict(task.describe(None))["sample"]
    assert task.verify(folder) == []
    assert set(task.augmentations) == {"none", "mask"}
    assert "aclImdb_v1.tar.gz" in task.how_to_get


def test_front_ends_say_how_to_make_the_same_numbers() -> None:
    assert BYTES.front_end == {"kind": "bytes", "length": BYTES.length, "pad": 0}
    assert {k: TOKENS.front_end[k] for k in ("kind", "tokens", "sentences")} == {
        "kind": "wordpiece", "tokens": TOKENS.length, "sentences": 1,
    }  # fmt: skip


@BOTH
def test_what_is_refused(folder: Path, task: ReviewTask) -> None:
    with pytest.raises(InputError, match=f"{task.name}: the data must be handed in, since no sample ships"):
        task.open(None)
    with pytest.raises(UsageError, match=f"{task.name}: labels must be negative, positive, got good, bad; leave them out"):
        task.open(folder, ["good", "bad"])
    with pytest.raises(UsageError, match=f"{task.name}: a split must be one of train, validation, test, got 'dev'"):
        task.open(folder).split("dev")


def test_units_need_text() -> None:
    with pytest.raises(InputError, match=r"imdb-tokens: a review must be UTF-8, got number 1 with invalid .*; correct"):
        as_units([b"a", b"\xff"], 4, "imdb-tokens")


@pytest.mark.parametrize(("model", "variant"), [("memoryformer", "text"), ("wide", "1x16"), ("wide", "tokens-1x16")])
def test_models_name_a_task_whose_inputs_they_read(model: str, variant: str) -> None:
    bundle = registry.load("model", model)(variant)
    task = registry.load("task", bundle.task)
    assert bundle.signature.inputs[0].shape == ("batch", task.length)
    assert bundle.signature.outputs[0].shape == ("batch", 2)


def test_real_reviews() -> None:
    folder = Path(os.environ.get("EDGETK_DATA", "")) / "imdb"
    if "EDGETK_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("EDGETK_DATA is not set to a folder that holds imdb/")
    split = BYTES.open(folder).split("validation")
    assert split.features.shape == (2500, 1000)
    assert int(split.labels.sum()) == 1250
    assert 0.3 < float((split.features == 0).float().mean(1).gt(0).float().mean()) < 0.7  # half are shorter
