"""The texts of one folder as inputs of a model: token numbers and labels per split, batches for training, calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from edgetk.core.contracts import Split
from edgetk.core.errors import InputError, UsageError
from edgetk.tasks.text.tables import Layout, read
from edgetk.tasks.text.wordpiece import MASK, SEP, encode

SPLITS: Final = ("train", "validation", "test")
#: every so many-th example of the training part is held out, from the first one on, in the stored order
HELD_OUT: Final = 20


@dataclass(frozen=True)
class Augmentation:
    """What training may do to token numbers."""

    #: share of the tokens that become [MASK], in [0, 1)
    mask: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.mask < 1.0:
            raise UsageError(f"text augmentation: mask must be in [0, 1), got {self.mask}; correct it")


AUGMENTATIONS: Final[Mapping[str, Augmentation]] = {"none": Augmentation(), "mask": Augmentation(0.1)}


class TextData:
    """An opened data set. A split's features are token numbers (N, T) as float32, which holds them exactly.

    The published test sets have no labels: "test" is the published dev part, and every twentieth example of the training
    part is "validation", fixed, never trained on.
    """

    augmentations: Mapping[str, Augmentation] = AUGMENTATIONS

    def __init__(self, who: str, layout: Layout, folder: Path, length: int, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self._who, self._layout, self._folder, self._length = who, layout, folder, length
        self._read: dict[str, tuple[Tensor, Tensor]] = {}
        dev = len(read(layout, folder, "dev", who)[1]) if layout.paths(folder, "dev") else 0
        self.origin = f"{who} in {folder.name}" + (f", dev n={dev}" if dev else "")

    def split(self, name: str) -> Split:
        """Features (N, T) float32 and labels. Raises InputError where its part is not there."""
        tokens, labels = self.tokens(name)
        origin = f"{self._who}, {name} n={len(labels)}"
        return Split(name, tokens.float(), labels, origin + (" (the published dev part)" if name == "test" else ""))

    def tokens(self, split: str) -> tuple[Tensor, Tensor]:
        """Token numbers (N, T) int32 and labels (N,) of a split."""
        if split not in SPLITS:
            raise UsageError(f"{self._who}: a split must be one of {', '.join(SPLITS)}, got {split!r}; correct it")
        part = "dev" if split == "test" else "train"
        if part not in self._read:
            texts, numbers = read(self._layout, self._folder, part, self._who)
            self._read[part] = encode(texts, self._length), torch.tensor(numbers)
        tokens, labels = self._read[part]
        if part == "dev":
            return tokens, labels
        kept = (torch.arange(len(labels)) % HELD_OUT == 0) == (split == "validation")
        return tokens[kept], labels[kept]

    def calibration(self, n: int) -> Tensor:
        """`n` inputs (n, T) of the training split, classes taking turns, each in the stored order."""
        tokens, labels = self.tokens("train")
        if n > len(labels):
            raise InputError(
                f"{self._who}: at most {len(labels)} calibration texts are there, got a wish for {n}; ask for fewer"
            )
        return tokens[taking_turns(labels, len(self.labels))[:n]].float()

    def require_training(self) -> None:
        """Raise InputError where there is no training part; reads nothing."""
        if not self._layout.paths(self._folder, "train"):
            read(self._layout, self._folder, "train", self._who)

    def batches(
        self, device: torch.device | str, augmentation: Augmentation | None = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        """Rows of the training split (B,) -> token numbers (B, T) float32 and soft targets (B, K), on `device`."""
        tokens, labels = (t.to(device) for t in self.tokens("train"))
        share = 0.0 if augmentation is None else augmentation.mask
        return drawing(tokens, labels, len(self.labels), share, MASK, SEP), len(labels)


def taking_turns(labels: Tensor, classes: int) -> Tensor:
    """Indices (N,) of labels (N,), one of each class after the other, each class in the stored order."""
    turns = torch.empty_like(labels)
    for label in range(classes):
        of_it = labels == label
        turns[of_it] = torch.arange(int(of_it.sum()))
    return (turns * classes + labels).argsort()


def drawing(
    tokens: Tensor, labels: Tensor, classes: int, share: float, hidden: int, structure: int
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Rows (B,) of tokens (N, T) and labels (N,) -> token numbers (B, T) float32 and targets (B, classes).

    A `share` of the tokens becomes `hidden`, but never one that stands for structure: those are numbered up to `structure`.
    """
    targets = F.one_hot(labels, classes).float()

    def draw(rows: Tensor) -> tuple[Tensor, Tensor]:
        x = tokens[rows]
        if share > 0.0:
            x = torch.where((x > structure) & (torch.rand_like(x, dtype=torch.float32) < share), hidden, x)
        return x.float(), targets[rows]

    return draw


__all__ = ["AUGMENTATIONS", "HELD_OUT", "SPLITS", "Augmentation", "TextData", "drawing", "taking_turns"]
