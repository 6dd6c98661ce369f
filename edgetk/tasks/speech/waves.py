"""The clips of one split as tensors, and where they are kept between runs."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edgetk.core.errors import InputError
from edgetk.tasks.speech.audio import decode_clips
from edgetk.tasks.speech.clips import Clip


@dataclass(frozen=True)
class Waves:
    """Clips of one split, one second each.

    samples   (N, 16000) int16
    labels    (N,) int64, index into `words`
    official  (N,) bool, True where the clip is in the benchmark's own lists (v0.02)
    names     "word/speaker_nohash_n.wav", as the data set names them
    speakers  the data set's speaker keys
    words     class names in label order
    """

    samples: Tensor
    labels: Tensor
    official: Tensor
    names: tuple[str, ...]
    speakers: tuple[str, ...]
    words: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def assemble(clips: Sequence[Clip], classes: Sequence[int], words: Sequence[str]) -> Waves:
    """Decode `clips`, whose class indices into `words` are `classes`."""
    return Waves(
        torch.from_numpy(decode_clips(clips)),
        torch.tensor(classes),
        torch.tensor([clip.official for clip in clips]),
        tuple(clip.name for clip in clips),
        tuple(clip.speaker for clip in clips),
        tuple(words),
    )


def save(waves: Waves, folder: Path, key: str) -> None:
    """Keep decoded clips as <key>.samples.npy and <key>.json in `folder`, the second one last, each replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    index = {
        "labels": waves.labels.tolist(),
        "official": waves.official.tolist(),
        "names": waves.names,
        "speakers": waves.speakers,
        "words": waves.words,
    }
    partial = folder / f".{key}.{os.getpid()}.part"
    try:
        with partial.open("wb") as file:
            np.save(file, waves.samples.numpy(), allow_pickle=False)
        partial.replace(folder / f"{key}.samples.npy")
        partial.write_text(json.dumps(index), encoding="utf-8")
        partial.replace(folder / f"{key}.json")
    finally:
        partial.unlink(missing_ok=True)


def load(folder: Path, key: str) -> Waves | None:
    """What `save` kept, or None where there is nothing. Raises InputError for kept files that are damaged."""
    index, samples = folder / f"{key}.json", folder / f"{key}.samples.npy"
    if not (index.is_file() and samples.is_file()):
        return None
    try:
        kept = json.loads(index.read_text(encoding="utf-8"))
        waves = Waves(
            torch.from_numpy(np.load(samples, allow_pickle=False)),
            torch.tensor(kept["labels"]),
            torch.tensor(kept["official"]),
            tuple(kept["names"]),
            tuple(kept["speakers"]),
            tuple(kept["words"]),
        )
    except (ValueError, KeyError) as error:
        raise InputError(f"{folder}: kept clips must be whole, got {error}; remove that folder and run again") from error
    return waves


__all__ = ["Waves", "assemble", "load", "save"]
