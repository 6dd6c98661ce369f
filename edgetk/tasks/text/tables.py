"""GLUE's tables: tab-separated files as published, with or without a header line, as texts and class numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgetk.core.errors import InputError

#: (sentence,) or (first, second)
Text = tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Where a task's files keep what it needs.

    files    part -> file names that hold it together, and alternatives to them, the first that is there is read
    texts    columns of the sentences
    label    column of the class, one of `labels` in order of their numbers
    columns  how many columns a line has
    header   True: the first line names the columns
    """

    files: Mapping[str, Sequence[tuple[str, ...]]]
    texts: tuple[int, ...]
    label: int
    columns: int
    labels: tuple[str, ...]
    header: bool = True

    def paths(self, folder: Path, part: str) -> list[Path]:
        """The files of a part that are there; empty where they are not."""
        for names in self.files[part]:
            found = [folder / name for name in names]
            if all(path.is_file() for path in found):
                return found
        return []


def read(layout: Layout, folder: Path, part: str, who: str) -> tuple[list[Text], list[int]]:
    """Texts and class numbers of a part ("train" or "dev"). Raises InputError for missing or damaged files."""
    paths = layout.paths(folder, part)
    if not paths:
        wanted = " or ".join(" with ".join(names) for names in layout.files[part])
        raise InputError(f"{folder}: must hold {wanted}, got neither; run: edgetk data --task {who}")
    texts: list[Text] = []
    numbers: list[int] = []
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8-sig").split("\n")  # other separators occur in sentences
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: must be a text file in UTF-8, got: {error}; get it again") from error
        for number, line in enumerate((line.rstrip("\r") for line in lines), 1):
            if (number == 1 and layout.header) or not line:
                continue
            fields = line.split("\t")
            if len(fields) != layout.columns or fields[layout.label] not in layout.labels:
                got = f"{len(fields)} columns" if len(fields) != layout.columns else f"the class {fields[layout.label]!r}"
                raise InputError(
                    f"{path}: line {number} must have {layout.columns} columns and a class of "
                    f"{', '.join(layout.labels)}, got {got}; get the file again"
                )
            texts.append(tuple(fields[column].strip() for column in layout.texts))
            numbers.append(layout.labels.index(fields[layout.label]))
    return texts, numbers


__all__ = ["Layout", "Text", "read"]
