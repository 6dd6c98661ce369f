"""GLUE tasks: tables as published, BERT's tokens, splits that stay apart, metrics by hand, and what is refused."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest
import torch

from edgetk.core import registry
from edgetk.core.contracts import TrainingData
from edgetk.core.errors import InputError, MissingExtra, PostconditionError, UsageError
from edgetk.tasks.text import wordpiece
from edgetk.tasks.text.data import AUGMENTATIONS, Augmentation
from edgetk.tasks.text.metrics import f1, matthews
from edgetk.tasks.text.wordpiece import CLS, MASK, PAD, SEP, UNKNOWN, encode

TASKS = ("cola", "mrpc", "rte", "sst2")


def tables(folder: Path, name: str, rows: int = 45) -> Path:
    """Files of a task with made-up texts, in its published layout."""
    task = registry.load("task", name)
    layout = task.layout
    for part, offset in (("train", 0), ("dev", 1000)):
        lines = ["\t".join(f"column {i}" for i in range(layout.columns))] if layout.header else []
        for i in range(rows):
            fields = [f"field {i}"] * layout.columns
            for column in layout.texts:
                fields[column] = f"text {offset + i} of column {column} , said twice"
            fields[layout.label] = layout.labels[i % 2]
            lines.append("\t".join(fields))
        (folder / f"{part}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_tokens_are_berts() -> None:
    got = encode([("Unaffable, isn't it?",), ("naïve ☃",)], 12)
    assert got.dtype == torch.int32
    # published example: un ##aff ##able; accents go, an unknown sign becomes [UNK]
    assert got[0].tolist() == [CLS, 14477, 20961, 3468, 1010, 3475, 1005, 1056, 2009, 1029, SEP, PAD]
    assert got[1].tolist() == [CLS, 15743, UNKNOWN, SEP, *[PAD] * 8]


def test_pairs_are_separated_and_the_longer_one_is_cut() -> None:
    got = encode([("a b", "c"), ("a " * 20, "b")], 9)
    assert got[0].tolist() == [CLS, 1037, 1038, SEP, 1039, SEP, PAD, PAD, PAD]
    assert got[1].tolist() == [CLS, *[1037] * 5, SEP, 1038, SEP]


def test_the_vocabulary_is_the_published_one() -> None:
    content = gzip.decompress(wordpiece.VOCABULARY.read_bytes())
    assert hashlib.sha256(content).hexdigest() == wordpiece.VOCABULARY_SHA256
    units = content.decode().splitlines()
    special = {units[i]: i for i in (PAD, UNKNOWN, CLS, SEP, MASK)}
    assert special == {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}


def test_without_tokenizers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    wordpiece._tokenizer.cache_clear()
    with pytest.raises(MissingExtra, match=r"text: needs the package tokenizers.*edgetk\[text\]"):
        encode([("a",)], 4)


def test_metrics_by_hand() -> None:
    predicted, truth = torch.tensor([1, 1, 1, 0, 0, 0]), torch.tensor([1, 1, 0, 1, 0, 0])
    assert f1(predicted, truth) == pytest.approx(2 / 3)  # TP 2, FP 1, FN 1
    assert matthews(predicted, truth) == pytest.approx((2 * 2 - 1 * 1) / 9)
    assert matthews(truth, truth) == 1.0
    assert matthews(1 - truth, truth) == -1.0
    assert matthews(torch.ones(6), truth) == 0.0
    assert f1(torch.zeros(6), torch.zeros(6)) == 0.0


@pytest.mark.parametrize("name", TASKS)
def test_splits(name: str, tmp_path: Path) -> None:
    task = registry.load("task", name)
    data = task.open(tables(tmp_path, name))
    assert isinstance(data, TrainingData)
    sizes = {split: len(data.split(split).labels) for split in ("train", "validation", "test")}
    assert sizes == {"train": 42, "validation": 3, "test": 45}
    assert data.split("test").features.shape == (45, task.front_end["tokens"])
    assert data.labels == task.classes
    assert dict(task.describe(tmp_path)) == {"train": "45 texts", "dev": "45 texts", "labels": ", ".join(task.classes)}
    assert task.verify(tmp_path) == []
    assert [int(row[1]) for row in data.split("test").features[:2]] == [3793, 3793]  # "text"
    assert task.front_end["sentences"] == len(task.layout.texts)


def test_training_batches(tmp_path: Path) -> None:
    data = registry.load("task", "sst2").open(tables(tmp_path, "sst2"))
    draw, rows = data.batches("cpu")
    x, targets = draw(torch.arange(4))
    assert rows == 42
    assert torch.equal(x, data.split("train").features[:4])
    assert torch.equal(targets.argmax(1), data.split("train").labels[:4])
    torch.manual_seed(0)
    masked, _ = data.batches("cpu", Augmentation(0.5))[0](torch.arange(42))
    plain = data.split("train").features
    changed = masked != plain
    assert bool((masked[changed] == MASK).all())
    assert bool((plain[changed] > SEP).all())
    assert 0.4 < float(changed[plain > SEP].float().mean()) < 0.6
    assert AUGMENTATIONS["none"] == Augmentation(0.0)


def test_scores_say_the_metric_of_the_task(tmp_path: Path) -> None:
    for name, more in (("mrpc", "F1 0.6667"), ("cola", "Matthews 0.0000"), ("sst2", "all 45 texts")):
        folder = tmp_path / name
        folder.mkdir()
        task = registry.load("task", name)
        split = task.open(tables(folder, name, 44 if name == "mrpc" else 45)).split("test")
        score = task.score(lambda x: torch.tensor([[0.0, 1.0]]).expand(len(x), 2), split)
        assert score.correct == 22
        assert score.note.endswith(more)
    with pytest.raises(PostconditionError, match="must return one row of class scores per text"):
        task.score(lambda x: torch.zeros(len(x)), split)


def test_reads_single_texts(tmp_path: Path) -> None:
    path = tmp_path / "one.txt"
    path.write_text("a good film\n")
    assert registry.load("task", "sst2").read(path)[0, :6].tolist() == [CLS, 1037, 2204, 2143, SEP, PAD]
    with pytest.raises(InputError, match=r"one\.txt: must hold 2 sentences, one a line, got 1 lines; correct it"):
        registry.load("task", "mrpc").read(path)
    with pytest.raises(InputError, match="must be a text file in UTF-8"):
        registry.load("task", "sst2").read(tmp_path / "none.txt")


def test_other_layouts(tmp_path: Path) -> None:
    folder = tables(tmp_path, "cola")
    (folder / "dev.tsv").rename(folder / "dev_in_domain.tsv")
    task = registry.load("task", "cola")
    assert dict(task.describe(folder))["dev"] == "missing"
    (folder / "dev_out_of_domain.tsv").write_text("x\t1\t\tone more\r\n")
    assert len(task.open(folder).split("test").labels) == 46


def test_refusals(tmp_path: Path) -> None:
    task = registry.load("task", "sst2")
    with pytest.raises(InputError, match="sst2: the data must be handed in, since no sample ships"):
        task.open(None)
    assert task.describe(None)[0][1].startswith("none: these texts may not be passed on")
    with pytest.raises(InputError, match="must be a folder with sst2, got no such folder"):
        task.open(tmp_path / "absent")
    with pytest.raises(UsageError, match="sst2: labels must be negative, positive, got good, bad; leave them out"):
        task.open(tmp_path, ("good", "bad"))
    with pytest.raises(InputError, match=r"must hold train\.tsv, got neither; run: edgetk data --task sst2"):
        task.open(tmp_path).require_training()
    data = task.open(tables(tmp_path, "sst2"))
    with pytest.raises(UsageError, match="sst2: a split must be one of train, validation, test, got 'dev'; correct it"):
        data.split("dev")
    with pytest.raises(InputError, match="at most 42 calibration texts are there, got a wish for 43; ask for fewer"):
        data.calibration(43)
    with pytest.raises(UsageError, match=r"text augmentation: mask must be in \[0, 1\), got 1.0"):
        Augmentation(1.0)
    (tmp_path / "train.tsv").write_text("sentence\tlabel\ngood\t2\n")
    with pytest.raises(InputError, match=r"train\.tsv: line 2 must have 2 columns and a class of 0, 1, got the class '2'"):
        task.open(tmp_path).split("train")
    (tmp_path / "train.tsv").write_text("sentence\tlabel\ngood\n")
    assert "got 1 columns; get the file again" in task.verify(tmp_path)[0]
    (tmp_path / "train.tsv").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InputError, match="must be a text file in UTF-8, got"):
        task.open(tmp_path).split("train")


@pytest.mark.parametrize(("name", "sizes"), [("sst2", (67_349, 872)), ("mrpc", (3_576, 500))])
def test_the_real_data(name: str, sizes: tuple[int, int]) -> None:
    folder = Path(os.environ.get("EDGETK_DATA", "")) / name
    if "EDGETK_DATA" not in os.environ or not folder.is_dir():
        pytest.skip(f"EDGETK_DATA is not set to a folder that holds {name}/")
    facts = dict(registry.load("task", name).describe(folder))
    assert (facts["train"], facts["dev"]) == tuple(f"{n:,} texts" for n in sizes)
