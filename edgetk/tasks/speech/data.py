"""Clips of one layout as inputs of a model: features and labels per split, waveforms for training, clips for calibration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from edgetk.core.contracts import Split
from edgetk.core.errors import InputError
from edgetk.tasks.speech.audio import decode_clips
from edgetk.tasks.speech.augment import AUGMENTATIONS, NO_AUGMENTATION, Augment, Augmentation
from edgetk.tasks.speech.clips import Layout, balanced, check_labels, select
from edgetk.tasks.speech.log_mel import LogMel
from edgetk.tasks.speech.waves import Waves, assemble

_BATCH = 64


class SpeechData:
    """An opened data set. Validation and test are kept in memory once read; `labels` None means the layout's own words."""

    augmentations = AUGMENTATIONS

    def __init__(self, layout: Layout, labels: Sequence[str] | None = None) -> None:
        self.layout = layout
        own = layout.default_labels()
        self.labels = own if labels is None else check_labels(labels, _words(layout))
        self.origin = layout.title
        if "test" in layout.splits():
            self.origin += ", " + self._count("test")
        self._splits: dict[str, Split] = {}

    def split(self, name: str) -> Split:
        """Features (N, 128, 128), labels, and which clips are in the benchmark's lists (None where there are no lists)."""
        if name in self._splits:
            return self._splits[name]
        waves = self.waves(name)
        official = waves.official if self.layout.listed else None
        origin = f"{self.layout.title}, {self._count(name)}"
        split = Split(name, features(waves.samples), waves.labels, origin, official)
        if name != "train":  # a gigabyte or more
            self._splits[name] = split
        return split

    def waves(self, split: str) -> Waves:
        """Decoded clips of a split, for training with augmentation."""
        clips, classes = select(self.layout, split, self.labels)
        return assemble(clips, classes, self.labels)

    def require_training(self) -> None:
        """Raise InputError where there is no training split; reads no sound."""
        if "train" not in self.layout.splits():
            raise InputError(
                f"speech-commands: training needs a train split, got only {', '.join(self.layout.splits()) or 'none'} in "
                f"{self.layout.title}; edgetk data says where to get one, hand it in with --data FOLDER"
            )

    def batches(
        self, device: torch.device | str, augmentation: Augmentation | None = None
    ) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor]], int]:
        """Rows of the training split (B,) -> features (B, 128, 128) and soft targets (B, K), on `device`; and the rows' number.

        None leaves clips as they are. Raises InputError without a training split, without clips of a label, or without the
        background noise that `augmentation` asks for.
        """
        recipe = NO_AUGMENTATION if augmentation is None else augmentation
        self.require_training()
        noise = self.noise() if recipe.noise > 0 else None
        waves = self.waves("train")
        counts = waves.labels.bincount(minlength=len(self.labels)).tolist()
        if lacking := [label for label, count in zip(self.labels, counts, strict=True) if count == 0]:
            raise InputError(
                f"speech-commands: every label needs training clips, got none of {', '.join(lacking)}; "
                "add clips of more speakers or leave it out of --labels"
            )
        return Augment(recipe, waves.samples, waves.labels, len(self.labels), noise).to(device), len(waves)

    def noise(self) -> Tensor:
        """Background recordings one after another: (S,) int16. Raises InputError where there are none."""
        recordings = self.layout.recordings()
        if not recordings:
            raise InputError(
                f"speech-commands: {self.layout.title} must hold background noise, got none; "
                "add _background_noise_ or choose an augmentation without noise"
            )
        return torch.from_numpy(np.concatenate(recordings))

    def calibration(self, n: int) -> Tensor:
        """`n` inputs (n, 128, 128), classes in equal shares, from the training split or, where there is none, validation."""
        split = "train" if "train" in self.layout.splits() else "validation"
        clips, classes = select(self.layout, split, self.labels)
        return features(torch.from_numpy(decode_clips([clips[position] for position in balanced(clips, classes, n)])))

    def _count(self, split: str) -> str:
        clips, _ = select(self.layout, split, self.labels, audio=False)
        listed = sum(clip.official for clip in clips)
        if not self.layout.listed:
            return f"{split} n={len(clips)}"
        rest = "" if listed == len(clips) else f" ({len(clips)} in all)"
        return f"{split} n={listed} of the official lists{rest}"


def features(samples: Tensor) -> Tensor:
    """int16 clips (N, 16000) -> features (N, 128, 128), in batches."""
    log_mel = LogMel()
    with torch.no_grad():  # not inference mode: fine-tuning uses these, too
        out = torch.empty(len(samples), *log_mel(torch.zeros(1, samples.shape[1])).shape[1:])
        for start in range(0, len(samples), _BATCH):
            out[start : start + _BATCH] = log_mel(samples[start : start + _BATCH].float() / 32768.0)
    return out


def _words(layout: Layout) -> tuple[str, ...]:
    return tuple(sorted({clip.word for split in layout.splits() for clip in layout.clips(split, audio=False)}))


def describe(layout: Layout) -> list[tuple[str, str]]:
    """What is there, as name and text: layout, clips, speakers and words of every split, licence."""
    facts = [("layout", layout.title), ("labels", " ".join(layout.default_labels()))]
    for split in layout.splits():
        clips = layout.clips(split, audio=False)
        listed = f", {sum(clip.official for clip in clips)} of the official lists" if layout.listed and split != "train" else ""
        facts.append((split, f"{len(clips)} clips of {len({clip.speaker for clip in clips})} speakers{listed}"))
        counts = Counter(clip.word for clip in clips).most_common()
        facts.append((f"{split} words", " ".join(f"{word} {count}" for word, count in counts)))
    facts.append(("licence", "CC BY 4.0 (Speech Commands, P. Warden 2018, arXiv:1804.03209); your own recordings are yours"))
    return facts


def verify(layout: Layout, sample: int = 64) -> list[str]:
    """What is wrong, one sentence each: what is missing, shared speakers, clips that do not decode (of `sample` per split)."""
    problems = layout.missing()
    heard: dict[str, str] = {}
    for split in layout.splits():
        clips = layout.clips(split)
        for speaker in sorted({clip.speaker for clip in clips}):
            if speaker in heard:
                problems.append(f"speaker {speaker}: in {heard[speaker]} and in {split}")
            heard.setdefault(speaker, split)
        there = {clip.word for clip in clips}
        problems += [f"{split}: no clip of {word}" for word in layout.default_labels() if word not in there]
        for position in balanced(clips, [0] * len(clips), min(sample, len(clips))):
            try:
                decode_clips([clips[position]])
            except InputError as error:
                problems.append(str(error))
    return problems


__all__ = ["SpeechData", "describe", "features", "verify"]
