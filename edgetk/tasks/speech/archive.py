"""Speech Commands as published: a folder per word, two lists, background noise. A user's own folder of words is read alike.

word/speaker_nohash_n.wav   validation_list.txt   testing_list.txt   _background_noise_/*.wav
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edgetk.core.errors import InputError
from edgetk.tasks.speech import audio
from edgetk.tasks.speech.clips import Clip
from edgetk.tasks.speech.splits import SPLITS, speaker, split_of
from edgetk.tasks.speech.words import WORDS_16, WORDS_35

if TYPE_CHECKING:
    from edgetk.tasks.speech.audio import Samples

NOISE_FOLDER: Final = "_background_noise_"
LISTS: Final = {"validation": "validation_list.txt", "test": "testing_list.txt"}
_SOUNDS: Final = (".wav", ".flac", ".ogg")


def is_archive(folder: Path) -> bool:
    """Whether `folder` has this layout: at least one sub-folder of sounds."""
    return any(_sounds(word) for word in _word_folders(folder))


class Archive:
    """A folder in the published layout. With both lists, all clips count as the benchmark's; without, the hash rule splits.

    Raises InputError where one list is missing or names something outside the layout.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        present = [name for name in LISTS.values() if (folder / name).is_file()]
        if len(present) == 1:
            raise InputError(
                f"{folder}: must hold both {' and '.join(LISTS.values())} or neither, got only {present[0]}; "
                "fetch the other one or remove it"
            )
        self.listed = bool(present)
        words = self.words
        if set(words) == set(WORDS_35) and self.listed:
            kind = "Speech Commands v0.02, 35 words (official lists)"
        elif self.listed:
            kind = f"Speech Commands layout, {len(words)} words (official lists)"
        else:
            kind = f"folder of {len(words)} words (split by speaker hash)"
        self.title = f"{kind}, folder {folder.name}"

    @functools.cached_property
    def words(self) -> tuple[str, ...]:
        """The words that have a folder with sounds, sorted."""
        return tuple(folder.name for folder in _word_folders(self.folder) if _sounds(folder))

    @functools.cached_property
    def _by_split(self) -> dict[str, list[Clip]]:
        lists = {split: set(_list(self.folder / name)) for split, name in LISTS.items()} if self.listed else {}
        found: dict[str, list[Clip]] = {split: [] for split in SPLITS}
        for word in self.words:
            for path in _sounds(self.folder / word):
                name, key = f"{word}/{path.name}", speaker(path.stem)
                split = next((s for s, names in lists.items() if name in names), "train") if self.listed else split_of(key)
                found[split].append(Clip(name, word, key, True, path))
        return found

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in SPLITS if self._by_split[split])

    def clips(self, split: str, audio: bool = True) -> list[Clip]:
        return self._by_split[split]

    def recordings(self) -> list[Samples]:
        noise = self.folder / NOISE_FOLDER
        return [audio.decode(path.read_bytes(), str(path)) for path in _sounds(noise)] if noise.is_dir() else []

    def default_labels(self) -> tuple[str, ...]:
        """The words of the published tasks in their order, other words sorted."""
        for known in (WORDS_35, WORDS_16):
            if set(self.words) == set(known):
                return known
        return self.words

    def missing(self) -> list[str]:
        there = {clip.name for clips in self._by_split.values() for clip in clips}
        names = [name for file in LISTS.values() for name in _list(self.folder / file)] if self.listed else []
        return [f"{split}: no clips" for split in SPLITS if not self._by_split[split]] + [
            f"{name}: listed, but there is no such file" for name in names if name not in there
        ]


def _word_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] not in "._")


def _sounds(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SOUNDS and path.name[0] != ".")


def _list(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


__all__ = ["Archive", "is_archive"]
