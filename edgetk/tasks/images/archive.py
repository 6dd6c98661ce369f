"""CIFAR-10 as published, binary version: data_batch_1.bin to data_batch_5.bin and test_batch.bin, 3,073 bytes a picture.

Source: Krizhevsky 2009. A record is one label byte, then 1,024 bytes each of red, green and blue, row by row. The archive's
Python version holds pickles, which run code when they are opened: it is never read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from edgetk.core.errors import InputError
from edgetk.tasks.images import front_end as fe

FILES: Final = {"train": tuple(f"data_batch_{n}.bin" for n in range(1, 6)), "test": ("test_batch.bin",)}
RECORD: Final = 1 + fe.CHANNELS * fe.SIZE * fe.SIZE
#: what the archive unpacks to
NAME: Final = "cifar-10-batches-bin"


def find(folder: Path) -> Path | None:
    """The folder with the binary files: `folder` itself or the archive's own folder in it. None where there are none."""
    names = [name for files in FILES.values() for name in files]
    return next((place for place in (folder, folder / NAME) if any((place / n).is_file() for n in names)), None)


def is_pickled(folder: Path) -> bool:
    """Whether `folder` holds the archive's Python version instead."""
    return any((place / "data_batch_1").is_file() for place in (folder, folder / "cifar-10-batches-py"))


class Archive:
    """A folder in the published binary layout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.title = f"CIFAR-10, binary archive {folder.name}"

    def stored(self) -> tuple[str, ...]:
        return tuple(part for part, names in FILES.items() if all((self.folder / name).is_file() for name in names))

    def classes(self, part: str) -> Tensor:
        return self._records(part)[:, 0].long()

    def read(self, part: str) -> tuple[Tensor, Tensor]:
        records = self._records(part)
        return records[:, 1:].reshape(-1, fe.CHANNELS, fe.SIZE, fe.SIZE).contiguous(), records[:, 0].long()

    def missing(self) -> list[str]:
        return [f"{part}: no {n}" for part, names in FILES.items() for n in names if not (self.folder / n).is_file()]

    def _records(self, part: str) -> Tensor:
        """All files of a part as (N, 3073) uint8. Raises InputError where one is cut off or has labels that do not exist."""
        read = []
        for name in FILES[part]:
            path = self.folder / name
            content = np.fromfile(path, dtype=np.uint8)
            if len(content) == 0 or len(content) % RECORD:
                raise InputError(f"{path}: must hold whole records of {RECORD} bytes, got {len(content)} bytes; fetch it again")
            records = content.reshape(-1, RECORD)
            if (highest := int(records[:, 0].max())) >= len(fe.CLASSES):
                raise InputError(f"{path}: labels must be 0 to {len(fe.CLASSES) - 1}, got {highest}; fetch it again")
            read.append(records)
        return torch.from_numpy(np.concatenate(read))


__all__ = ["Archive", "find", "is_pickled"]
