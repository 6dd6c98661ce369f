"""Whole reviews as inputs of a model that says whether they are favourable: token numbers, labels, batches, calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from edgetk.core.contracts import Split
from edgetk.core.errors import InputError
from edgetk.tasks.imdb.reviews import LABELS, Layout, split_of
from edgetk.tasks.text.data import AUGMENTATIONS, Augmentation, drawing, taking_turns
from edgetk.tasks.text.wordpiece import encode

if TYPE_CHECKING:
    from edgetk.tasks.imdb.task import ReviewTask


def as_bytes(texts: Sequence[bytes], length: int) -> Tensor:
    """The first `length` bytes of each, zeros behind a shorter one: (N, length) uint8."""
    rows = np.zeros((len(texts), length), np.uint8)
    for row, text in zip(rows, texts, strict=True):
        start = np.frombuffer(text[:length], np.uint8)
        row[: len(start)] = start
    return torch.from_numpy(rows)


def as_units(texts: Sequence[bytes], length: int, who: str) -> Tensor:
    """The first `length` WordPiece units of each, [CLS] in front and [SEP] behind: (N, length) int32.

    Raises InputError for a text that is not UTF-8, MissingExtra without the package `tokenizers`.
    """
    decoded = []
    for i, text in enumerate(texts):
        try:
            decoded.append((text.decode(),))
        except UnicodeDecodeError as error:
            raise InputError(f"{who}: a review must be UTF-8, got number {i} with {error.reason}; correct the file") from error
    return encode(decoded, length)


class ReviewData:
    """Opened reviews. Features are token numbers (N, length) as float32, which holds them exactly.

    "test" is the published test part, and every tenth review of the training part is "validation", never trained on.
    """

    labels = LABELS
    augmentations = AUGMENTATIONS

    def __init__(self, layout: Layout, task: ReviewTask) -> None:
        self.layout, self.task, self.origin = layout, task, layout.title
        self._read: dict[str, tuple[Tensor, Tensor]] = {}

    def tokens(self, split: str) -> tuple[Tensor, Tensor]:
        """Token numbers (N, length) of some integer type, and labels (N,)."""
        if split not in self._read:
            texts, labels = split_of(self.layout, split, self.task.name)
            self._read[split] = self.task.encode(texts), torch.tensor(labels)
        return self._read[split]

    def split(self, name: str) -> Split:
        """Features and labels. Raises InputError where its part is not there."""
        tokens, labels = self.tokens(name)
        return Split(name, tokens.float(), labels, f"{self.layout.title}, {name}: {len(labels)} reviews")

    def calibration(self, n: int) -> Tensor:
        """`n` inputs (n, length) of the training split, classes taking turns, each in the stored order."""
        tokens, labels = self.tokens("train")
        if n > len(labels):
            raise InputError(
                f"{self.task.name}: at most {len(labels)} calibration reviews are there, got a wish for {n}; ask for fewer"
            )
        return tokens[taking_turns(labels, len(LABELS))[:n]].float()

    def batches(
        self, device: torch.device | str, augmentation: Augmentation | None = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        """Rows of the training split (B,) -> token numbers (B, length) float32 and soft targets (B, 2), on `device`."""
        tokens, labels = (t.to(device) for t in self.tokens("train"))
        share = 0.0 if augmentation is None else augmentation.mask
        return drawing(tokens, labels, len(LABELS), share, self.task.hidden, self.task.structure), len(labels)


__all__ = ["ReviewData", "as_bytes", "as_units"]
