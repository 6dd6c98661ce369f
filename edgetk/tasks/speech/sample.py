"""The attributed sample of Speech Commands that ships inside the package: two zip files and an index, original bytes.

sample/test.zip and sample/validation.zip hold the clips, sample/index.csv says what each one is; see sample/ATTRIBUTION.txt.
"""

from __future__ import annotations

import csv
import functools
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgetk.tasks.speech.clips import Clip
from edgetk.tasks.speech.words import WORDS_16

if TYPE_CHECKING:
    from edgetk.tasks.speech.audio import Samples

FOLDER: Final = Path(__file__).resolve().parent.parent / "sample"


class Sample:
    """The embedded sample: validation and test clips of 16 words, all of them in the official v0.02 lists."""

    title = "Speech Commands sample, 16 words (v0.01 audio, official speaker split), embedded"
    listed = True

    @functools.cached_property
    def _rows(self) -> list[dict[str, str]]:
        with (FOLDER / "index.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def splits(self) -> tuple[str, ...]:
        return ("validation", "test")

    def clips(self, split: str, audio: bool = True) -> list[Clip]:
        rows = [row for row in self._rows if row["split"] == split]
        with zipfile.ZipFile(FOLDER / f"{split}.zip") as content:
            return [
                Clip(
                    row["path"],
                    row["word"],
                    row["speaker"],
                    row["in_v2_list"] == "1",
                    content.read(row["file"]) if audio else None,
                )
                for row in rows
            ]

    def recordings(self) -> list[Samples]:
        return []

    def default_labels(self) -> tuple[str, ...]:
        return WORDS_16

    def missing(self) -> list[str]:
        return []


__all__ = ["Sample"]
