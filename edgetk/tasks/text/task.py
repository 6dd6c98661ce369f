"""A GLUE task of one or two sentences: opens the published tables, reads single texts, scores as GLUE does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetk.core.errors import InputError, UsageError
from edgetk.tasks.text import wordpiece
from edgetk.tasks.text.tables import Layout, read

if TYPE_CHECKING:
    import torch

    from edgetk.core.contracts import Predict, Split
    from edgetk.core.figures import Score
    from edgetk.tasks.text.data import TextData


@dataclass(frozen=True)
class TextTask:
    """`length` tokens of an input, `classes` by the names that reports print, `metrics` printed beside accuracy."""

    name: str
    layout: Layout
    length: int
    classes: tuple[str, ...]
    how_to_get: str
    metrics: tuple[str, ...] = ()
    has_sample = False

    @property
    def front_end(self) -> Mapping[str, Any]:
        """What another runtime needs to make the same token numbers."""
        return wordpiece.front_end(self.length, len(self.layout.texts))

    @property
    def augmentations(self) -> Mapping[str, Any]:
        """What training may do to texts, by the names that recipes use."""
        from edgetk.tasks.text.data import AUGMENTATIONS

        return AUGMENTATIONS

    def open(self, folder: Path | None, labels: Sequence[str] | None = None) -> TextData:
        """The data in `folder`, as published. Raises InputError where nothing is found, UsageError for other labels."""
        from edgetk.tasks.text.data import TextData

        if labels is not None and tuple(labels) != self.classes:
            raise UsageError(f"{self.name}: labels must be {', '.join(self.classes)}, got {', '.join(labels)}; leave them out")
        return TextData(self.name, self.layout, self._folder(folder), self.length, self.classes)

    def score(self, predict: Predict, split: Split, official_only: bool = True) -> Score:
        """Right answers by the largest class score; the task's other metrics are in the note.

        Raises PostconditionError where `predict` does not return one finite row of scores per text.
        """
        import torch

        from edgetk.tasks._top1 import top1
        from edgetk.tasks.text.metrics import METRICS

        seen: list[torch.Tensor] = []

        def keep(x: torch.Tensor) -> torch.Tensor:
            seen.append(predict(x))
            return seen[-1]

        score = top1(self.name, keep, split, official_only, noun="text")
        predicted = torch.cat(seen).argmax(1).cpu()
        more = "".join(f"; {name} {METRICS[name](predicted, split.labels):.4f}" for name in self.metrics)
        return replace(score, note=score.note + more)

    def read(self, path: Path) -> torch.Tensor:
        """A text file of one sentence a line as features (1, T). Raises InputError."""
        try:
            lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: must be a text file in UTF-8, got: {error}; check the path") from error
        wanted = len(self.layout.texts)
        if len(lines) != wanted:
            raise InputError(
                f"{path}: must hold {wanted} sentence{'s' * (wanted > 1)}, one a line, got {len(lines)} lines; correct it"
            )
        return wordpiece.encode([tuple(lines)], self.length).float()

    def describe(self, folder: Path | None) -> list[tuple[str, str]]:
        """What is in `folder`: names and texts, for printing as a table."""
        if folder is None:
            return [("sample", "none: these texts may not be passed on; hand in the data with --data FOLDER")]
        folder = self._folder(folder)
        found = []
        for part in self.layout.files:
            have = self.layout.paths(folder, part)
            number = f"{len(read(self.layout, folder, part, self.name)[1]):,} texts" if have else "missing"
            found.append((part, number))
        return [*found, ("labels", ", ".join(self.classes))]

    def verify(self, folder: Path | None) -> list[str]:
        """What is wrong with the data in `folder`, one sentence each; an empty list is good news."""
        problems = []
        for part in self.layout.files:
            try:
                read(self.layout, self._folder(folder), part, self.name)
            except InputError as error:
                problems.append(str(error))
        return problems

    def _folder(self, folder: Path | None) -> Path:
        if folder is None:
            raise InputError(
                f"{self.name}: the data must be handed in, since no sample ships (the licence forbids it), got no folder; "
                f"add --data FOLDER, edgetk data --task {self.name} says where to get it"
            )
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: must be a folder with {self.name}, got no such folder; check the path")
        return Path(folder)


def glue(name: str, url: str) -> str:
    """How to get a task's files, for printing."""
    return f"Download and unpack {url}\nand hand in the folder {name} with --data FOLDER: train.tsv and dev.tsv as published."


__all__ = ["TextTask", "glue"]
