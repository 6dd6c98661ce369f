"""Speech Commands as Parquet files with embedded audio: train_*.parquet, validation, test, noise.

Columns: path, word, speaker, in_v2_list (bool: in the official v0.02 lists) and audio (an encoded file); noise: name and audio.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from edgetk.core.errors import InputError, MissingExtra
from edgetk.tasks.speech import audio, waves
from edgetk.tasks.speech.waves import Waves

COLUMNS: Final = ("path", "word", "speaker", "in_v2_list")


def is_parquet(folder: Path) -> bool:
    """Whether `folder` has this layout."""
    return any(folder.glob("*.parquet")) and any(files(folder, name) for name in ("train", "validation", "test"))


def files(folder: Path, split: str) -> list[Path]:
    """The Parquet files of a split in order: <split>.parquet or <split>_<n>.parquet."""
    return [path for path in (folder / f"{split}.parquet",) if path.is_file()] + sorted(folder.glob(f"{split}_*.parquet"))


def table(folder: Path, split: str, columns: Sequence[str]) -> dict[str, list[Any]]:
    """Columns of a split as lists. Raises InputError where files or columns are missing, MissingExtra without pyarrow."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("speech-commands", "pyarrow", "parquet") from error
    paths = files(folder, split)
    if not paths:
        raise InputError(f"{folder}: must hold {split}.parquet or {split}_<n>.parquet, got neither; run: edgetk data")
    joined: dict[str, list[Any]] = {name: [] for name in columns}
    for path in paths:
        try:
            missing = set(columns) - set(pyarrow.parquet.read_schema(path).names)
            if missing:
                raise InputError(
                    f"{path}: must have the columns {', '.join(columns)}, got none named {', '.join(sorted(missing))}"
                )
            part = pyarrow.parquet.read_table(path, columns=list(columns))
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise InputError(f"{path}: must be a Parquet file, got {error}; fetch it again") from error
        for name in columns:
            joined[name] += part[name].to_pylist()
    return joined


def load_waves(folder: Path, split: str, words: Sequence[str], cache: Path | None = None) -> Waves:
    """The clips of `words` (labels follow their order) in the split "train", "validation" or "test".

    Other words are left out. With `cache`, decoded clips are kept in that folder and found again while the files stay as they
    are. Raises InputError or MissingExtra.
    """
    key = _key(folder, split, words)
    if cache is not None and (kept := waves.load(cache, key)) is not None:
        return kept
    rows = table(folder, split, (*COLUMNS, "audio"))
    label = {word: index for index, word in enumerate(words)}
    chosen = [row for row, word in enumerate(rows["word"]) if word in label]
    if not chosen:
        raise InputError(f"{folder}: {split} must hold clips of {', '.join(words)}, got none; check the words")
    names = tuple(rows["path"][row] for row in chosen)
    loaded = Waves(
        torch.from_numpy(audio.decode_clips([rows["audio"][row] for row in chosen], names)),
        torch.tensor([label[rows["word"][row]] for row in chosen]),
        torch.tensor([bool(rows["in_v2_list"][row]) for row in chosen]),
        names,
        tuple(rows["speaker"][row] for row in chosen),
        tuple(words),
    )
    if cache is not None:
        waves.save(loaded, cache, key)
    return loaded


def load_noise(folder: Path) -> Tensor:
    """The background recordings one after another: (S,) int16."""
    rows = table(folder, "noise", ("name", "audio"))
    decoded = [audio.decode(encoded, name) for name, encoded in zip(rows["name"], rows["audio"], strict=True)]
    return torch.from_numpy(np.concatenate(decoded))


def _key(folder: Path, split: str, words: Sequence[str]) -> str:
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files(folder, split)]
    return f"{split}-{hashlib.sha256(repr((str(folder.resolve()), facts, tuple(words))).encode()).hexdigest()[:16]}"


__all__ = ["load_noise", "load_waves"]
