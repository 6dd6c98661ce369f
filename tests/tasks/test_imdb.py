"""IMDb: two layouts, splits, windows of bytes, bits per byte by hand, and what is refused."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from edgetk.core.contracts import Split
from edgetk.core.errors import InputError, PostconditionError, UsageError
from edgetk.tasks.imdb import reviews
from edgetk.tasks.imdb.windows import AUGMENTATIONS, LENGTH, NAMES, ByteWindows
from edgetk.tasks.imdb_bytes_lm import TASK

MOODS = ("bad", "good")
TEXTS = {part: [f"{part} review {i}: {MOODS[i % 2]} film, no. {i * i}. " * 3 for i in range(40)] for part in reviews.PARTS}


def archive(folder: Path) -> Path:
    for part, texts in TEXTS.items():
        for i, text in enumerate(texts):
            place = folder / part / ("pos" if i % 2 else "neg")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{i:02}_7.txt").write_text(text)
    return folder


def parquet(folder: Path) -> Path:
    pyarrow = pytest.importorskip("pyarrow", reason="the Parquet layout needs pyarrow")
    from pyarrow import parquet as files

    for part, texts in TEXTS.items():
        files.write_table(pyarrow.table({"text": texts, "label": [i % 2 for i in range(40)]}), folder / f"{part}.parquet")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> ByteWindows:
    return TASK.open(archive(tmp_path))


@pytest.mark.parametrize("make", [archive, parquet])
def test_both_layouts_hold_the_same_reviews(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = reviews.layout(make(tmp_path), "imdb")
    assert source.stored() == ("train", "test")
    texts, labels = source.read("test")
    pairs = sorted(zip((t.decode() for t in texts), labels, strict=True))
    assert pairs == sorted((text, i % 2) for i, text in enumerate(TEXTS["test"]))
    assert reviews.verify(source) == []


def test_the_archive_may_lie_one_folder_down(tmp_path: Path) -> None:
    (tmp_path / "aclImdb").mkdir()
    archive(tmp_path / "aclImdb")
    assert reviews.layout(tmp_path, "imdb").stored() == ("train", "test")


def test_every_tenth_review_of_the_training_part_is_held_out(tmp_path: Path) -> None:
    source = reviews.layout(archive(tmp_path), "imdb")
    stored, _ = source.read("train")
    held_out, labels = reviews.split_of(source, "validation", "imdb")
    assert held_out == stored[::10]
    assert labels == [0, 0, 1, 1]  # the archive has 20 negative reviews first
    kept, _ = reviews.split_of(source, "train", "imdb")
    assert sorted(kept + held_out) == sorted(stored)


def test_reviews_are_joined_with_a_zero_between() -> None:
    assert reviews.joined([b"ab", b"c"]) == b"ab\0c\0"


def test_windows_and_the_byte_behind_each(data: ByteWindows) -> None:
    text, split = data.text("test"), data.split("test")
    assert split.features.shape == (len(split.labels), LENGTH)
    for i in (0, 17, len(split.labels) - 1):
        found = bytes(split.features[i].byte().tolist())
        at = bytes(text.tolist()).find(found)
        assert text[at + LENGTH] == split.labels[i]
    assert len({tuple(x.tolist()) for x in split.features}) == len(split.labels)


def test_training_windows_hold_the_byte_behind_each_byte(data: ByteWindows) -> None:
    text = data.text("train").long()
    draw, rows = data.batches("cpu")
    x, targets = draw(torch.arange(rows))
    assert x.shape == (rows, LENGTH)
    assert torch.equal(x.long().flatten(), text[: rows * LENGTH])
    assert torch.equal(targets.argmax(-1).flatten(), text[1 : rows * LENGTH + 1])
    assert torch.equal(targets.sum(-1), torch.ones(rows, LENGTH))
    assert rows == (len(text) - LENGTH - 1) // LENGTH + 1


def test_shifted_windows_start_anywhere_and_stay_inside(data: ByteWindows) -> None:
    text = bytes(data.text("train").tolist())
    draw, rows = data.batches("cpu", AUGMENTATIONS["shift"])
    starts = set()
    for _ in range(20):
        x, targets = draw(torch.tensor([1, rows - 1]))
        for window, target in zip(x, targets, strict=True):
            at = text.find(bytes(window.byte().tolist()))
            assert text[at + 1 : at + LENGTH + 1] == bytes(target.argmax(-1).tolist())
            starts.add(at % LENGTH)
    assert len(starts) > 5


def test_calibration_comes_from_training(data: ByteWindows) -> None:
    text = bytes(data.text("train").tolist())
    assert all(bytes(x.byte().tolist()) in text for x in data.calibration(5))
    with pytest.raises(InputError, match=r"at most \d+ calibration windows are there, got a wish for 99999999; ask for fewer"):
        data.calibration(99_999_999)


def test_score_by_hand() -> None:
    split = Split("test", torch.zeros(4, LENGTH), torch.tensor([7, 7, 7, 9]), "made up")

    def predict(features: Tensor) -> Tensor:
        """7 with probability 1/2, all others alike."""
        scores = torch.full((len(features), 256), math.log(0.5 / 255))
        scores[:, 7] = math.log(0.5)
        return scores

    score = TASK.score(predict, split)
    assert (score.correct, score.n) == (3, 4)
    assert score.note == f"all 4 windows, {(3 * 1 + math.log2(510)) / 4:.4f} bits per byte"
    with pytest.raises(PostconditionError, match="imdb-bytes-lm: predict must return one row of class scores per window"):
        TASK.score(lambda x: torch.zeros(len(x), 5, 3), split)


def test_one_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("abc")
    x = TASK.read(tmp_path / "a.txt")
    assert x.shape == (1, LENGTH)
    assert x[0, -4:].tolist() == [0, 97, 98, 99]
    (tmp_path / "long.txt").write_text("x" * 300 + "y")
    assert TASK.read(tmp_path / "long.txt")[0, -2:].tolist() == [120, 121]
    (tmp_path / "none.txt").write_text("")
    with pytest.raises(InputError, match=r"none\.txt: must hold at least one byte, got none; write some text"):
        TASK.read(tmp_path / "none.txt")
    with pytest.raises(InputError, match=r"missing\.txt: must be a readable file, got: .*; check the path"):
        TASK.read(tmp_path / "missing.txt")


def test_description_and_names(tmp_path: Path) -> None:
    facts = dict(TASK.describe(archive(tmp_path)))
    assert facts["validation"].startswith("4 reviews, 2 positive, ")
    assert "none: the publisher states no licence" in dict(TASK.describe(None))["sample"]
    assert TASK.front_end["length"] == LENGTH
    assert len(set(NAMES)) == 256
    assert (NAMES[97], NAMES[32], NAMES[10]) == ("a", "0x20", "0x0a")
    assert "aclImdb_v1.tar.gz" in TASK.how_to_get
    assert set(TASK.augmentations) == {"none", "shift"}


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="imdb-bytes-lm: the data must be handed in, since no sample ships"):
        TASK.open(None)
    with pytest.raises(InputError, match="must be a folder with IMDb reviews, got no such folder; check the path"):
        TASK.open(tmp_path / "none")
    with pytest.raises(
        InputError, match=r"must hold train\.parquet and test\.parquet, or train and test with folders neg and pos"
    ):
        TASK.open(tmp_path)
    data = TASK.open(archive(tmp_path))
    with pytest.raises(UsageError, match="a split must be one of train, validation, test, got 'dev'; correct it"):
        data.split("dev")
    with pytest.raises(UsageError, match="labels must be all 256 bytes, got 2 labels; leave --labels out"):
        TASK.open(tmp_path, ["a", "b"])


def test_parts_that_are_missing_or_empty(tmp_path: Path) -> None:
    for name in ("neg", "pos"):
        (tmp_path / "train" / name).mkdir(parents=True)
    data = TASK.open(tmp_path)
    with pytest.raises(InputError, match="must hold the part test, got train; add it"):
        data.split("test")
    with pytest.raises(InputError, match=r"the split train of .* must hold reviews, got none; add some"):
        data.calibration(1)
    (tmp_path / "train" / "neg" / "0.txt").write_text("short")
    with pytest.raises(InputError, match="the split validation must have more than 256 bytes, got 6; add reviews"):
        data.split("validation")
    assert reviews.verify(data.layout) == ["test: no reviews of it"]


def test_verify_names_what_is_wrong(tmp_path: Path) -> None:
    archive(tmp_path)
    (tmp_path / "train" / "neg" / "00_7.txt").write_bytes(b"\xff")
    (tmp_path / "test" / "neg" / "00_7.txt").write_bytes(b"")
    (tmp_path / "test" / "neg" / "02_7.txt").write_text(TEXTS["train"][2])
    assert TASK.verify(tmp_path) == [
        "train: review 0 is not UTF-8",
        "test: review 0 is empty",
        "1 reviews are in train and in test",
    ]


def test_labels_of_parquet_files(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="the Parquet layout needs pyarrow")
    from pyarrow import parquet as files

    files.write_table(pyarrow.table({"text": ["a"], "label": [2]}), tmp_path / "train.parquet")
    with pytest.raises(InputError, match="labels of train must be 0 or 1, got 2; correct the file"):
        reviews.layout(tmp_path, "imdb").read("train")


def test_real_reviews() -> None:
    folder = Path(os.environ.get("EDGETK_DATA", "")) / "imdb"
    if "EDGETK_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("EDGETK_DATA is not set to a folder that holds imdb/")
    split = TASK.open(folder).split("test")
    assert split.features.shape == (4096, LENGTH)
    assert 0.1 < float((split.labels == 32).float().mean()) < 0.25  # spaces
