"""Language modelling of IMDb reviews by bytes: which of 256 bytes follows the 256 that were seen.

Source of the text: Maas et al., ACL 2011. Accuracy counts the byte behind each window; its note has the bits per byte.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.tasks.imdb import reviews

if TYPE_CHECKING:
    import torch

    from edgetk.core.contracts import Predict, Split
    from edgetk.core.figures import Score
    from edgetk.tasks.imdb.windows import ByteWindows


class ImdbBytesLM(reviews.StoredReviews):
    """The task: opens two layouts, reads text files, scores by the right next byte. No sample is embedded."""

    name = "imdb-bytes-lm"
    front_end: Mapping[str, Any] = {"kind": "bytes", "length": 256}

    @property
    def augmentations(self) -> Mapping[str, Any]:
        """Where training windows start, by the names that recipes use."""
        from edgetk.tasks.imdb.windows import AUGMENTATIONS

        return AUGMENTATIONS

    def open(self, folder: Path | None, labels: Sequence[str] | None = None) -> ByteWindows:
        """The text in `folder`. Raises InputError where there is none, UsageError for labels that are not all bytes."""
        from edgetk.tasks.imdb.windows import ByteWindows

        return ByteWindows(reviews.layout(folder, self.name), self.name, labels)

    def score(self, predict: Predict, split: Split, official_only: bool = True) -> Score:
        """Right next bytes; the note has the mean of -log2 of what the model gave the right one.

        Raises PostconditionError where `predict` does not return one finite row of scores per window.
        """
        import torch.nn.functional as F

        from edgetk.tasks._top1 import top1
        from edgetk.tasks.imdb.windows import NAMES

        bits: list[torch.Tensor] = []

        def listened(features: torch.Tensor) -> torch.Tensor:
            scores = predict(features)
            done = sum(map(len, bits))
            if scores.ndim == 2 and scores.shape[1] == len(NAMES):
                bits.append(F.cross_entropy(scores.float(), split.labels[done : done + len(scores)], reduction="none"))
            return scores

        found = top1(self.name, listened, split, official_only, noun="window")
        total = sum(float(part.double().sum()) for part in bits)
        return replace(found, note=f"{found.note}, {total / found.n / math.log(2):.4f} bits per byte")

    def read(self, path: Path) -> torch.Tensor:
        """The end of a text file as features (1, 256), zeros in front of a shorter one. Raises InputError."""
        import torch

        from edgetk.tasks.imdb.windows import LENGTH

        content = reviews.one_file(path)[-LENGTH:]
        return torch.tensor([list(content.rjust(LENGTH, b"\0"))], dtype=torch.float32)


TASK = ImdbBytesLM()
