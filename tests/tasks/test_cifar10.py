"""CIFAR-10: both layouts, splits, labels, augmentation by hand, refused files, and the real data where they are."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from edgetk.core import registry
from edgetk.core.contracts import Split, TrainingData
from edgetk.core.errors import InputError, MissingExtra, PostconditionError, UsageError
from edgetk.tasks.cifar10 import TASK
from edgetk.tasks.images import front_end as fe
from edgetk.tasks.images.augment import AUGMENTATIONS, Augment, Augmentation
from edgetk.tasks.images.pictures import normalise

PER_CLASS = 4  # 40 training pictures, so 4 are held out
NOTHING = {"padding": 0, "flip": 0.0}


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def write_parquet(folder: Path, part: str, rows: list[tuple[str, bytes]]) -> None:
    columns = {
        "class": [kind for kind, _ in rows],
        "file": [f"{i:04}.png" for i in range(len(rows))],
        "jpeg": [content for _, content in rows],
    }
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{part}.parquet")


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """PNG files, which keep every pixel, sorted by class as in the published folders."""
    for start, part in ((0, "train"), (1000, "test")):
        rows = [
            (name, encode(picture(start + PER_CLASS * k + i))) for k, name in enumerate(fe.CLASSES) for i in range(PER_CLASS)
        ]
        write_parquet(tmp_path, part, rows)
    return tmp_path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """The same pictures in the binary layout, eight a file."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for start, names in ((0, [f"data_batch_{n}.bin" for n in range(1, 6)]), (1000, ["test_batch.bin"])):
        records = b"".join(
            bytes([n // PER_CLASS]) + picture(start + n).transpose(2, 0, 1).tobytes() for n in range(10 * PER_CLASS)
        )
        size = len(records) // len(names)
        for i, name in enumerate(names):
            (folder / name).write_bytes(records[i * size : (i + 1) * size])
    return folder


def test_both_layouts_give_the_same_pictures(parquet: Path, archive: Path) -> None:
    first, second, parent = TASK.open(parquet), TASK.open(archive), TASK.open(archive.parent / "cifar-10-batches-bin")
    assert isinstance(first, TrainingData)
    for name, n in (("train", 36), ("validation", 4), ("test", 40)):
        a, b = first.split(name), second.split(name)
        assert a.features.shape == (n, 3, 32, 32)
        assert torch.equal(a.features, b.features)
        assert torch.equal(a.labels, b.labels)
    assert parent.origin == "CIFAR-10, binary archive cifar-10-batches-bin, test n=40"
    assert first.split("test") is first.split("test")


def test_the_archives_folder_is_found_inside_the_one_it_was_unpacked_in(archive: Path) -> None:
    assert len(TASK.open(archive.parent).split("test").labels) == 40


def test_features_by_hand(parquet: Path) -> None:
    first = TASK.open(parquet).split("test").features[0]
    red, blue = picture(1000)[3, 5, 0], picture(1000)[3, 5, 2]
    assert first[0, 3, 5].item() == pytest.approx((red / 255 - 0.49140) / 0.24703, abs=1e-5)
    assert first[2, 3, 5].item() == pytest.approx((blue / 255 - 0.44653) / 0.26159, abs=1e-5)
    assert (TASK.front_end["mean"][1], TASK.front_end["std"][1]) == (0.48216, 0.24349)


def test_every_tenth_picture_is_held_out_and_never_trained_on(parquet: Path) -> None:
    data = TASK.open(parquet)
    held = data.split("validation")
    assert held.labels.tolist() == [0, 2, 5, 7]  # rows 0, 10, 20 and 30 of four pictures a class
    step, rows = data.batches("cpu")
    trained, targets = step(torch.arange(rows))
    assert rows == 36
    assert torch.equal(targets.argmax(1), data.split("train").labels)
    assert {x.numpy().tobytes() for x in trained}.isdisjoint({x.numpy().tobytes() for x in held.features})


def test_labels_choose_and_order_the_classes(parquet: Path) -> None:
    data = TASK.open(parquet, ["ship", "cat"])
    split = data.split("test")
    assert split.labels.tolist() == [1] * 4 + [0] * 4  # cat stands before ship in the file
    assert data.origin.endswith("test n=8")
    with pytest.raises(UsageError, match=r"labels must be classes of the data, got 'shop'; did you mean ship\?"):
        TASK.open(parquet, ["shop", "cat"])
    with pytest.raises(UsageError, match=r"labels must be different classes, got 'cat' twice; remove one"):
        TASK.open(parquet, ["cat", "cat"])
    with pytest.raises(UsageError, match=r"there must be at least 2 labels, got 1; add classes"):
        TASK.open(parquet, ["cat"])
    with pytest.raises(UsageError, match=r"a split must be one of train, validation, test, got 'dev'; correct it"):
        data.split("dev")


def test_calibration_takes_turns_among_the_training_pictures(parquet: Path) -> None:
    data = TASK.open(parquet)
    train = data.split("train")
    inputs = data.calibration(20)
    order = [train.features.flatten(1).eq(x.flatten()).all(1).nonzero().item() for x in inputs]
    assert train.labels[torch.tensor(order)].tolist() == [*range(10), *range(10)]
    with pytest.raises(InputError, match=r"at most 36 calibration pictures are there, got a wish for 37; ask for fewer"):
        data.calibration(37)


def test_without_a_folder_there_is_one_clear_sentence() -> None:
    with pytest.raises(
        InputError, match=r"^cifar10: the data must be handed in, .*got no folder; add --data FOLDER, edgetk data"
    ):
        TASK.open(None)
    assert dict(TASK.describe(None))["sample"].startswith("none: the publisher states no licence")
    with pytest.raises(InputError, match="got no folder"):
        TASK.verify(None)


def test_refused_folders(tmp_path: Path, archive: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere: must be a folder with CIFAR-10, got no such folder; check the path"):
        TASK.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"must hold train.parquet .* got neither; run: edgetk data --task cifar10"):
        TASK.open(tmp_path / "empty")
    (tmp_path / "empty" / "data_batch_1").write_bytes(b"\x80\x02.")
    with pytest.raises(InputError, match=r"got the Python version, whose pickles are never opened; run"):
        TASK.open(tmp_path / "empty")
    (archive / "data_batch_3.bin").unlink()
    data = TASK.open(archive)
    assert len(data.split("test").labels) == 40
    with pytest.raises(InputError, match=r"must hold all files of the part train, got train: no data_batch_3.bin; edgetk data"):
        data.batches("cpu")


def test_refused_records(archive: Path) -> None:
    path = archive / "test_batch.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=r"test_batch.bin: must hold whole records of 3073 bytes, got 122919 bytes; fetch"):
        TASK.open(archive)
    path.write_bytes(bytes([10]) + whole[1:])
    with pytest.raises(InputError, match=r"test_batch.bin: labels must be 0 to 9, got 10; fetch it again"):
        TASK.open(archive)


def test_refused_classes_and_columns(parquet: Path) -> None:
    write_parquet(parquet, "test", [("cart", encode(picture(0)))])
    with pytest.raises(InputError, match=r"classes of test must be those of CIFAR-10, got 'cart'; did you mean cat"):
        TASK.open(parquet)
    write_parquet(parquet, "train", [("cat", encode(picture(0))), ("cat", encode(picture(1)))])
    write_parquet(parquet, "test", [("cat", encode(picture(2)))])
    with pytest.raises(InputError, match=r"every label needs training pictures, got none of airplane, .*; leave it out"):
        TASK.open(parquet).batches("cpu")
    with pytest.raises(InputError, match=r"the split test must hold pictures of dog, ship, got none; add some"):
        TASK.open(parquet, ["dog", "ship"])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (lambda: encode(picture(0)[:16]), r"must be 32 x 32 pixels, got 32 x 16; scale it first"),
        (lambda: encode(np.dstack([picture(0), picture(0)[..., 0]])), r"must be an RGB or grey picture, got the mode RGBA"),
        (lambda: b"not a picture", r"must be a JPEG or PNG picture, got something else; convert it"),
        (lambda: encode(picture(0), "GIF"), r"must be a JPEG or PNG picture, got something else; convert it"),
        (lambda: encode(picture(0), "JPEG")[:400], r"must be a whole picture, got: .*; fetch it again"),
        (lambda: encode(picture(0))[:400], r"must be a whole picture, got: .*; fetch it again"),
    ],
)
def test_refused_pictures(tmp_path: Path, content: Callable[[], bytes], match: str) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(content())
    with pytest.raises(InputError, match=match):
        TASK.read(path)


def test_single_pictures_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encode(picture(7)))
    assert torch.equal(TASK.read(path), normalise(torch.from_numpy(picture(7).transpose(2, 0, 1).copy()))[None])
    path.write_bytes(encode(picture(7)[..., 0]))  # grey
    grey = TASK.read(path) * torch.tensor(fe.STD).view(3, 1, 1) + torch.tensor(fe.MEAN).view(3, 1, 1)
    torch.testing.assert_close(grey[:, 0], grey[:, 2])
    with pytest.raises(InputError, match=r"y.png: must be a picture, got no such file; check the path"):
        TASK.read(tmp_path / "y.png")


def test_missing_packages_name_their_extra(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra, match=r"cifar10: needs the package pillow, .*pip install 'edgetk\[images\]'"):
        TASK.open(parquet).split("test")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"cifar10: needs the package pyarrow, .*pip install 'edgetk\[parquet\]'"):
        TASK.open(parquet)


def test_verify_and_describe(parquet: Path) -> None:
    assert TASK.verify(parquet) == []
    facts = dict(TASK.describe(parquet))
    assert (facts["train"], facts["validation"], facts["test"]) == ("36 pictures", "4 pictures", "40 pictures")
    assert facts["licence"].startswith("none stated by the publisher")
    write_parquet(parquet, "test", [("cat", encode(picture(0))), ("dog", encode(picture(1001)))])  # picture 0 is in train, too
    problems = TASK.verify(parquet)
    assert "test: 1 pictures are also in train" in problems
    assert "test: no picture of ship" in problems
    (parquet / "train.parquet").unlink()
    write_parquet(parquet, "test", [("cat", b"")])
    assert TASK.verify(parquet) == [
        "train: no train.parquet or train_<n>.parquet",
        "cat/0000.png: must be a JPEG or PNG picture, got something else; convert it",
    ]


def test_scores_count_right_answers_and_name_what_they_count() -> None:
    split = Split("test", torch.eye(10), torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 8]), "made up")
    score = TASK.score(lambda x: x, split)
    assert (score.correct, score.n, score.note) == (9, 10, "all 10 pictures")
    with pytest.raises(PostconditionError, match=r"cifar10: predict must return one row of class scores per picture, got \(5,"):
        TASK.score(lambda x: x[:5], split)


# augmentation

PIXELS = torch.from_numpy(np.stack([picture(n).transpose(2, 0, 1) for n in range(6)]))
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
ROWS = torch.arange(6)


def augment(**changes: object) -> Augment:
    return Augment(Augmentation(**{**NOTHING, **changes}), PIXELS, LABELS, 3)  # type: ignore[arg-type]


def test_none_changes_nothing() -> None:
    x, targets = Augment(AUGMENTATIONS["none"], PIXELS, LABELS, 3)(ROWS)
    assert torch.equal(x, normalise(PIXELS))
    assert torch.equal(targets, torch.nn.functional.one_hot(LABELS).float())


def test_flip_mirrors_left_for_right() -> None:
    assert torch.equal(augment(flip=1.0)(ROWS)[0], normalise(PIXELS).flip(3))
    torch.manual_seed(0)
    x = augment(flip=0.5)(ROWS.repeat(200))[0]
    mirrored = (x == normalise(PIXELS).flip(3).repeat(200, 1, 1, 1)).flatten(1).all(1).float().mean()
    assert 0.45 < mirrored < 0.55


def test_crops_are_windows_of_the_padded_picture_and_all_of_them_come() -> None:
    torch.manual_seed(0)
    x = augment(padding=2)(ROWS[:1].repeat(400))[0]
    padded = torch.nn.functional.pad(PIXELS[:1], (2, 2, 2, 2))
    windows = {normalise(padded[0, :, i : i + 32, j : j + 32]).numpy().tobytes() for i in range(5) for j in range(5)}
    assert {crop.numpy().tobytes() for crop in x} == windows


def test_cutout_sets_one_square_to_the_mean() -> None:
    torch.manual_seed(0)
    hidden = (augment(cutout=8)(ROWS.repeat(50))[0] == 0).all(1)
    for one in hidden:
        rows, columns = one.any(1).nonzero().flatten(), one.any(0).nonzero().flatten()
        assert 4 <= len(rows) <= 8  # less at the border
        assert 4 <= len(columns) <= 8
        assert int(one.sum()) == len(rows) * len(columns)


def test_mixup_mixes_pixels_and_targets_alike() -> None:
    torch.manual_seed(0)
    single = Augment(Augmentation(mixup=1.0, padding=0, flip=0.0), PIXELS[:2], LABELS[:2], 2)
    x, targets = single(torch.zeros(50, dtype=torch.long))
    share = targets[:, 1].view(-1, 1, 1, 1)
    first, second = normalise(PIXELS[:2])
    torch.testing.assert_close(x, (1 - share) * first + share * second)
    assert torch.equal(targets.sum(1).round(decimals=5), torch.ones(50))
    assert share.unique().numel() > 10


def test_smoothing_spreads_a_share_evenly() -> None:
    targets = augment(smoothing=0.3)(ROWS[:1])[1]
    torch.testing.assert_close(targets, torch.tensor([[0.8, 0.1, 0.1]]))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"flip": 1.5}, r"augmentation: flip must be in \[0, 1\], got 1.5; correct it"),
        ({"padding": 33}, r"augmentation: padding must be in \[0, 32\], got 33; correct it"),
        ({"mixup_beta": 0.2}, r"augmentation: mixup_beta must be at least 1, got 0.2; correct it"),
    ],
)
def test_refused_augmentations(settings: dict[str, float], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        Augmentation(**settings)  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
def test_everything_is_captured_in_a_cuda_graph() -> None:
    recipe = Augmentation(mixup=0.5, cutout=8, smoothing=0.1)
    step = Augment(recipe, PIXELS, LABELS, 3).cuda()
    rows = ROWS.cuda()
    step(rows)  # lets libraries allocate outside the capture
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        x, targets = step(rows)
    graph.replay()
    first = x.clone()
    graph.replay()
    assert x.isfinite().all()
    assert not torch.equal(x, first)  # random numbers go on from one replay to the next
    torch.testing.assert_close(targets.sum(1), torch.ones(6, device="cuda"))


# the real data


def test_the_real_data() -> None:
    folder = Path(os.environ.get("EDGETK_DATA", "")) / "cifar10"
    if "EDGETK_DATA" not in os.environ or not folder.is_dir():
        pytest.skip("EDGETK_DATA is not set to a folder that holds cifar10/")
    facts = dict(registry.load("task", "cifar10").describe(folder))
    assert (facts["train"], facts["validation"], facts["test"]) == ("45000 pictures", "5000 pictures", "10000 pictures")
    test = TASK.open(folder).split("test")
    assert test.labels.bincount().tolist() == [1000] * 10
    assert test.features.mean((0, 2, 3)).abs().max() < 0.05
    assert test.features.std() == pytest.approx(1.0, abs=0.02)
