"""The data set's own rule for telling training, validation and test speakers apart. Source: Warden 2018, arXiv:1804.03209."""

from __future__ import annotations

import hashlib
from typing import Final

SPLITS: Final = ("train", "validation", "test")
_STEPS: Final = 2**27


def speaker(stem: str) -> str:
    """The speaker's key in a file's stem: what stands before "_nohash_", or all of it."""
    return stem.partition("_nohash_")[0]


def split_of(key: str, validation_percent: float = 10.0, test_percent: float = 10.0) -> str:
    """The split of a speaker's key, by the SHA1 of its text: more clips never move a speaker to another split."""
    number = int(hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest(), 16)
    percent = (number % _STEPS) * (100.0 / (_STEPS - 1))
    if percent < validation_percent:
        return "validation"
    return "test" if percent < validation_percent + test_percent else "train"


__all__ = ["SPLITS", "speaker", "split_of"]
