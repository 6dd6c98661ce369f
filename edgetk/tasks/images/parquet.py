"""CIFAR-10 as Parquet files: train.parquet and test.parquet with the columns class, file and jpeg (an encoded picture)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from edgetk.core.errors import InputError, closest
from edgetk.tasks._tables import files, table
from edgetk.tasks.images import front_end as fe
from edgetk.tasks.images.pictures import decode_all

PARTS = ("train", "test")


def is_parquet(folder: Path) -> bool:
    """Whether `folder` has this layout."""
    return any(files(folder, part) for part in PARTS)


class Parquet:
    """A folder of Parquet files; the files say what belongs to which part."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.title = f"CIFAR-10, encoded pictures (JPEG loses detail), Parquet folder {folder.name}"

    def stored(self) -> tuple[str, ...]:
        return tuple(part for part in PARTS if files(self.folder, part))

    def classes(self, part: str) -> Tensor:
        return self._numbers(part, table(self.folder, part, ["class"], "cifar10")["class"])

    def read(self, part: str) -> tuple[Tensor, Tensor]:
        rows = table(self.folder, part, ("class", "file", "jpeg"), "cifar10")
        names = [f"{kind}/{file}" for kind, file in zip(rows["class"], rows["file"], strict=True)]
        return decode_all(rows["jpeg"], names), self._numbers(part, rows["class"])

    def missing(self) -> list[str]:
        return [f"{part}: no {part}.parquet or {part}_<n>.parquet" for part in PARTS if part not in self.stored()]

    def _numbers(self, part: str, names: Sequence[str]) -> Tensor:
        number = {name: index for index, name in enumerate(fe.CLASSES)}
        for name in set(names) - number.keys():
            raise InputError(
                f"{self.folder}: classes of {part} must be those of CIFAR-10, got {name!r}; {closest(str(name), fe.CLASSES)}"
            )
        return torch.tensor([number[name] for name in names], dtype=torch.long)


__all__ = ["Parquet", "is_parquet"]
