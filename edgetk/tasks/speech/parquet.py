"""Speech Commands as Parquet files with embedded audio: train_*.parquet, validation, test, noise.

Columns: path, word, speaker, in_v2_list (bool: in the official v0.02 lists) and audio (an encoded file); noise: name and audio.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor

from edgetk.tasks._tables import files, table
from edgetk.tasks.speech import audio, waves
from edgetk.tasks.speech.clips import Clip, select
from edgetk.tasks.speech.splits import SPLITS
from edgetk.tasks.speech.waves import Waves
from edgetk.tasks.speech.words import WORDS_16, WORDS_35

if TYPE_CHECKING:
    from edgetk.tasks.speech.audio import Samples

#: in the order of the fields of a Clip
COLUMNS: Final = ("path", "word", "speaker", "in_v2_list")


def is_parquet(folder: Path) -> bool:
    """Whether `folder` has this layout."""
    return any(files(folder, split) for split in SPLITS)


class Parquet:
    """A folder of Parquet files; the files say what belongs to which split."""

    listed = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        words = self.default_labels()
        if words == WORDS_16:
            kind = "Speech Commands subset, 16 words (v0.01 audio, official speaker split)"
        else:
            kind = f"{len(words)} words (split as the files say)"
        self.title = f"{kind}, Parquet folder {folder.name}"

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """All words of all splits, sorted."""
        return tuple(sorted({word for split in self.splits() for word in table(self.folder, split, ["word"])["word"]}))

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if files(self.folder, split))

    def clips(self, split: str, audio: bool = True) -> list[Clip]:
        rows = table(self.folder, split, (*COLUMNS, "audio") if audio else COLUMNS)
        encoded = rows["audio"] if audio else [None] * len(rows["path"])
        columns = [rows[name] for name in COLUMNS]
        return [
            Clip(path, word, speaker, bool(official), sound)
            for path, word, speaker, official, sound in zip(*columns, encoded, strict=True)
        ]

    def recordings(self) -> list[Samples]:
        if not files(self.folder, "noise"):
            return []
        rows = table(self.folder, "noise", ("name", "audio"))
        return [audio.decode(encoded, name) for name, encoded in zip(rows["name"], rows["audio"], strict=True)]

    def default_labels(self) -> tuple[str, ...]:
        """All 35 words or the 16-word subset (a few clips of other words are no classes); else whatever is there."""
        return next((known for known in (WORDS_35, WORDS_16) if set(known) <= set(self.words)), self.words)

    def missing(self) -> list[str]:
        return [f"{split}: no {split}.parquet or {split}_<n>.parquet" for split in SPLITS if split not in self.splits()]


def load_waves(folder: Path, split: str, words: Sequence[str], cache: Path | None = None) -> Waves:
    """The clips of `words` (labels follow their order) in the split "train", "validation" or "test".

    Other words are left out, or are "unknown" where `words` has that. With `cache`, decoded clips are kept in that folder and
    found again while the files stay as they are. Raises InputError or MissingExtra.
    """
    key = _key(folder, split, words)
    if cache is not None and (kept := waves.load(cache, key)) is not None:
        return kept
    loaded = waves.assemble(*select(Parquet(folder), split, words), words)
    if cache is not None:
        waves.save(loaded, cache, key)
    return loaded


def load_noise(folder: Path) -> Tensor:
    """The background recordings one after another: (S,) int16. Raises InputError where there are none."""
    table(folder, "noise", ())
    return torch.from_numpy(np.concatenate(Parquet(folder).recordings()))


def _key(folder: Path, split: str, words: Sequence[str]) -> str:
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files(folder, split)]
    return f"{split}-{hashlib.sha256(repr((str(folder.resolve()), facts, tuple(words))).encode()).hexdigest()[:16]}"


__all__ = ["Parquet", "is_parquet", "load_noise", "load_waves"]
