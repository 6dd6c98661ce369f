"""The clips of one split as tensors, and where they are kept between runs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


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


def save(waves: Waves, folder: Path, key: str) -> None:
    """Keep decoded clips as <key>.samples.npy and <key>.json in `folder`, the second one last, each replaced as a whole."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{key}.{os.getpid()}.part"
    with partial.open("wb") as file:
        np.save(file, waves.samples.numpy(), allow_pickle=False)
    partial.replace(folder / f"{key}.samples.npy")
    index = {
        "labels": waves.labels.tolist(),
        "official": waves.official.tolist(),
        "names": waves.names,
        "speakers": waves.speakers,
        "words": waves.words,
    }
    partial.write_text(json.dumps(index))
    partial.replace(folder / f"{key}.json")


def load(folder: Path, key: str) -> Waves | None:
    """What `save` kept, or None where there is nothing."""
    index, samples = folder / f"{key}.json", folder / f"{key}.samples.npy"
    if not (index.is_file() and samples.is_file()):
        return None
    kept = json.loads(index.read_text())
    return Waves(
        torch.from_numpy(np.load(samples, allow_pickle=False)),
        torch.tensor(kept["labels"]),
        torch.tensor(kept["official"]),
        tuple(kept["names"]),
        tuple(kept["speakers"]),
        tuple(kept["words"]),
    )


__all__ = ["Waves", "load", "save"]
