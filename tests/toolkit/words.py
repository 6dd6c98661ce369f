"""A small folder of words to train on: clips of the embedded sample under names that a hash sends to all three splits."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import soundfile

from edgetk.tasks.speech.audio import decode
from edgetk.tasks.speech.sample import Sample
from edgetk.tasks.speech.splits import split_of


@functools.cache
def clips(word: str, count: int) -> tuple[np.ndarray, ...]:
    found = [clip for clip in Sample().clips("validation") if clip.word == word][:count]
    return tuple(decode(clip.encoded, clip.name) for clip in found)


@functools.cache
def speakers(split: str, count: int) -> tuple[str, ...]:
    """Speaker names that the hash rule sends to `split`."""
    every = (f"speaker{number}" for number in range(1000))
    return tuple(name for name, _ in zip((n for n in every if split_of(n) == split), range(count), strict=False))


def make(folder: Path, words=("yes", "no"), train=6, validation=2, test=2, noise=False) -> Path:
    """The folder: so many clips per word and split."""
    for word in words:
        (folder / word).mkdir(parents=True)
        for split, count in (("train", train), ("validation", validation), ("test", test)):
            sounds = clips(word, 6)
            for number, speaker in enumerate(speakers(split, count)):
                path = folder / word / f"{speaker}_nohash_0.wav"
                soundfile.write(path, sounds[number % len(sounds)], 16000)
    if noise:
        (folder / "_background_noise_").mkdir()
        hum = np.random.default_rng(0).integers(-900, 900, 12 * 16000, dtype=np.int16)
        soundfile.write(folder / "_background_noise_" / "hum.wav", hum, 16000)
    return folder
