"""The mood of a whole review as a task: what its byte-level and its word-level form share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from edgetk.core.errors import UsageError
from edgetk.tasks.imdb import reviews

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from edgetk.core.contracts import Predict, Split
    from edgetk.core.figures import Score
    from edgetk.tasks.imdb.texts import ReviewData


class ReviewTask(reviews.StoredReviews, ABC):
    """Reviews as `length` token numbers, longer ones cut at their end, shorter ones filled up with 0; no sample is embedded.

    `hidden` is what a token becomes that training hides; numbers up to `structure` are never hidden.
    """

    front_end: ClassVar[Mapping[str, Any]]
    length: ClassVar[int]
    hidden: ClassVar[int]
    structure: ClassVar[int]

    @property
    def augmentations(self) -> Mapping[str, Any]:
        """What training may do to reviews, by the names that recipes use."""
        from edgetk.tasks.text.data import AUGMENTATIONS

        return AUGMENTATIONS

    @abstractmethod
    def encode(self, texts: Sequence[bytes]) -> Tensor:
        """Token numbers (N, length), of any integer type. Raises InputError for what is no text."""

    def open(self, folder: Path | None, labels: Sequence[str] | None = None) -> ReviewData:
        """The reviews in `folder`. Raises InputError where there are none, UsageError for other labels."""
        from edgetk.tasks.imdb.texts import ReviewData

        if labels is not None and tuple(labels) != reviews.LABELS:
            raise UsageError(
                f"{self.name}: labels must be {', '.join(reviews.LABELS)}, got {', '.join(labels)}; leave them out"
            )
        return ReviewData(reviews.layout(folder, self.name), self)

    def score(self, predict: Predict, split: Split, official_only: bool = True) -> Score:
        """Right answers by the largest class score.

        Raises PostconditionError where `predict` does not return one finite row of scores per review.
        """
        from edgetk.tasks._top1 import top1

        return top1(self.name, predict, split, official_only, noun="review")

    def read(self, path: Path) -> torch.Tensor:
        """A text file as features (1, length). Raises InputError."""
        return self.encode([reviews.one_file(path)]).float()


__all__ = ["ReviewTask"]
