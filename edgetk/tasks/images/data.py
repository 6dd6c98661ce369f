"""Pictures of one layout as inputs of a model: features and labels per split, pixels for training, pictures for calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import torch
from torch import Tensor

from edgetk.core.contracts import Split
from edgetk.core.errors import InputError, UsageError, closest
from edgetk.tasks.images.augment import AUGMENTATIONS, Augment, Augmentation
from edgetk.tasks.images.front_end import CLASSES
from edgetk.tasks.images.pictures import normalise

SPLITS: Final = ("train", "validation", "test")
#: every so many-th picture of the training part is held out, from the first one on, in the stored order
HELD_OUT: Final = 10


class Layout(Protocol):
    """A place where pictures are: `title` describes it in the report. A part is "train" or "test", as published."""

    title: str

    def stored(self) -> tuple[str, ...]:
        """The parts that are there and complete."""
        ...

    def classes(self, part: str) -> Tensor:
        """Class numbers of a part, (N,) int64, without reading more pictures than needed."""
        ...

    def read(self, part: str) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, 32, 32) uint8 and class numbers (N,) of a part, in the stored order."""
        ...

    def missing(self) -> list[str]:
        """Files that should be there and are not, one sentence each."""
        ...


class ImageData:
    """An opened data set. Pixels are kept in memory once read; `labels` chooses and orders the classes, None means all ten.

    The published data have no validation split: every tenth picture of the training part is one, fixed, and never trained on.
    """

    augmentations: Mapping[str, Augmentation] = AUGMENTATIONS

    def __init__(self, layout: Layout, labels: Sequence[str] | None = None) -> None:
        self.layout = layout
        self.labels = CLASSES if labels is None else _check(labels)
        self.origin = layout.title
        if "test" in layout.stored():
            self.origin += f", test n={len(self._rows('test'))}"
        self._read: dict[str, tuple[Tensor, Tensor]] = {}
        self._splits: dict[str, Split] = {}

    def split(self, name: str) -> Split:
        """Features (N, 3, 32, 32) and labels. Raises InputError where the part is not there."""
        if name not in self._splits:
            pixels, labels = self.pixels(name)
            split = Split(name, normalise(pixels), labels, f"{self.layout.title}, {name} n={len(labels)}")
            if name == "train":  # half a gigabyte
                return split
            self._splits[name] = split
        return self._splits[name]

    def pixels(self, split: str) -> tuple[Tensor, Tensor]:
        """Pixels (N, 3, 32, 32) uint8 and labels (N,) of a split, for training with augmentation."""
        rows = self._rows(split)
        part = _part(split)
        if part not in self._read:
            self._read[part] = self.layout.read(part)
        pixels, classes = self._read[part]
        return pixels[rows], self._numbers()[classes[rows]]

    def require_training(self) -> None:
        """Raise InputError where there is no training part, or a class has no picture in it; decodes no picture."""
        counts = self._numbers()[self._classes("train")[self._rows("train")]].bincount(minlength=len(self.labels)).tolist()
        if lacking := [label for label, count in zip(self.labels, counts, strict=True) if count == 0]:
            raise InputError(
                f"cifar10: every label needs training pictures, got none of {', '.join(lacking)}; leave it out of --labels"
            )

    def batches(
        self, device: torch.device | str, augmentation: Augmentation | None = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        """Rows of the training split (B,) -> features (B, 3, 32, 32) and soft targets (B, K), on `device`; and their number.

        None leaves pictures as they are. Raises InputError without a training part or without pictures of a label.
        """
        self.require_training()
        pixels, labels = self.pixels("train")
        recipe = AUGMENTATIONS["none"] if augmentation is None else augmentation
        return Augment(recipe, pixels, labels, len(self.labels)).to(device), len(labels)

    def calibration(self, n: int) -> Tensor:
        """`n` inputs (n, 3, 32, 32) of the training split, classes taking turns, each in the stored order."""
        pixels, labels = self.pixels("train")
        if n > len(labels):
            raise InputError(
                f"cifar10: at most {len(labels)} calibration pictures are there, got a wish for {n}; ask for fewer"
            )
        turns = torch.empty_like(labels)
        for label in range(len(self.labels)):
            of_it = labels == label
            turns[of_it] = torch.arange(int(of_it.sum()))
        return normalise(pixels[(turns * len(self.labels) + labels).argsort()[:n]])

    def _numbers(self) -> Tensor:
        """The label of every published class number; -1 where it is none."""
        return torch.tensor([self.labels.index(name) if name in self.labels else -1 for name in CLASSES])

    def _classes(self, split: str) -> Tensor:
        if split not in SPLITS:
            raise UsageError(f"cifar10: a split must be one of {', '.join(SPLITS)}, got {split!r}; correct it")
        part = _part(split)
        if part not in self.layout.stored():
            raise InputError(
                f"cifar10: {self.layout.title} must hold all files of the part {part}, got {'; '.join(self.layout.missing())}; "
                "edgetk data --task cifar10 says where to get them"
            )
        return self.layout.classes(part)

    def _rows(self, split: str) -> Tensor:
        """Which rows of its part belong to a split and have one of the labels."""
        classes = self._classes(split)
        wanted = self._numbers()[classes] >= 0
        if split != "test":
            wanted &= (torch.arange(len(classes)) % HELD_OUT == 0) == (split == "validation")
        rows = wanted.nonzero().flatten()
        if len(rows) == 0:
            raise InputError(f"cifar10: the split {split} must hold pictures of {', '.join(self.labels)}, got none; add some")
        return rows


def describe(layout: Layout) -> list[tuple[str, str]]:
    """What is there, for printing: layout, labels, pictures per split, licence."""
    data = ImageData(layout)
    facts = [("layout", layout.title), ("labels", " ".join(data.labels))]
    for split in SPLITS:
        if _part(split) in layout.stored():
            facts.append((split, f"{len(data._rows(split))} pictures"))
    facts.append(("licence", "none stated by the publisher; cite A. Krizhevsky 2009, Learning multiple layers of features"))
    return facts


def verify(layout: Layout) -> list[str]:
    """What is wrong, one sentence each: what is missing, pictures that do not decode, classes without one, shared pictures."""
    problems = layout.missing()
    seen: dict[bytes, str] = {}
    for part in layout.stored():
        try:
            pixels, classes = layout.read(part)
        except InputError as error:
            problems.append(str(error))
            continue
        counts = classes.bincount(minlength=len(CLASSES)).tolist()
        problems += [f"{part}: no picture of {name}" for name, count in zip(CLASSES, counts, strict=True) if count == 0]
        others = {bytes(picture.numpy().tobytes()) for picture in pixels}
        shared = [place for content, place in seen.items() if content in others]
        if shared:
            problems.append(f"{part}: {len(shared)} pictures are also in {shared[0]}")
        seen |= dict.fromkeys(others, part)
    return problems


def _part(split: str) -> str:
    return "test" if split == "test" else "train"


def _check(labels: Sequence[str]) -> tuple[str, ...]:
    for label in labels:
        if label not in CLASSES:
            raise UsageError(f"cifar10: labels must be classes of the data, got {label!r}; {closest(label, CLASSES)}")
        if list(labels).count(label) > 1:
            raise UsageError(f"cifar10: labels must be different classes, got {label!r} twice; remove one")
    if len(labels) < 2:
        raise UsageError(f"cifar10: there must be at least 2 labels, got {len(labels)}; add classes")
    return tuple(labels)


__all__ = ["ImageData", "Layout", "describe", "verify"]
