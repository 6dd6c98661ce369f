"""What every layout of the data hands out, and how clips become classes: words, "unknown" and "silence"."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from edgetk.core.errors import InputError, UsageError, closest
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.splits import SPLITS
from edgetk.tasks.speech.words import SILENCE, UNKNOWN

if TYPE_CHECKING:
    from edgetk.tasks.speech.audio import Samples

#: "unknown" and "silence" each get this share of the number of clips of the wanted words (the data set's own preparation)
EXTRA_SHARE: Final = 0.1
#: which part of every background recording belongs to a split
_PARTS: Final = {"train": (0.0, 0.8), "validation": (0.8, 0.9), "test": (0.9, 1.0)}


@dataclass(frozen=True)
class Clip:
    """One clip: `name` is "word/speaker_nohash_n.wav"; `encoded` is a file's content, its path, or samples; None: not read."""

    name: str
    word: str
    speaker: str
    official: bool
    encoded: bytes | Path | Samples | None = field(default=None, compare=False, repr=False)


class Layout(Protocol):
    """A place where clips are: `title` describes them in the report, `listed` says if the benchmark's lists are known."""

    title: str
    listed: bool

    def splits(self) -> tuple[str, ...]:
        """The splits that are there."""
        ...

    def clips(self, split: str, audio: bool = True) -> list[Clip]:
        """All clips of a split, in a stable order."""
        ...

    def recordings(self) -> list[Samples]:
        """Background noise; none is an empty list."""
        ...

    def default_labels(self) -> tuple[str, ...]:
        """The words that are classes where nobody chose."""
        ...

    def missing(self) -> list[str]:
        """Splits and files that should be there and are not, one sentence each."""
        ...


def check_labels(labels: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """`labels` as a tuple. Raises UsageError for a word that is not there or stands twice, and for fewer than two."""
    for label in labels:
        if label not in known and label not in (SILENCE, UNKNOWN):
            raise UsageError(f"speech-commands: labels must be words of the data, got {label!r}; {closest(label, known)}")
        if list(labels).count(label) > 1:
            raise UsageError(f"speech-commands: labels must be different words, got {label!r} twice; remove one")
    if len(labels) < 2:
        raise UsageError(f"speech-commands: there must be at least 2 labels, got {len(labels)}; add words")
    return tuple(labels)


def select(layout: Layout, split: str, labels: Sequence[str], audio: bool = True) -> tuple[list[Clip], list[int]]:
    """The clips of a split that belong to `labels`, and their class indices.

    Clips of other words become "unknown" where that is a label, and are left out where it is not. "silence" is cut from the
    background recordings, from a part of each that no other split uses. Both get a tenth as many clips as the wanted words
    together, chosen by a hash of the name. Raises InputError where the split is missing or empty.
    """
    if split not in SPLITS:
        raise UsageError(f"speech-commands: a split must be one of {', '.join(SPLITS)}, got {split!r}; correct it")
    if split not in layout.splits():
        own = "train" in layout.splits() and not layout.listed
        remedy = (
            "add clips of more speakers, a hash of their names splits them"
            if own
            else "hand in a folder of the data with --data"
        )
        raise InputError(
            f"speech-commands: {layout.title} must hold the split {split}, "
            f"got only {', '.join(layout.splits()) or 'none'}; {remedy}"
        )
    number = {label: index for index, label in enumerate(labels)}
    every = layout.clips(split, audio)
    there = {clip.word for clip in every}
    clips = [clip for clip in every if clip.word in number]
    classes = [number[clip.word] for clip in clips]
    extra = math.ceil(EXTRA_SHARE * len(clips))
    if UNKNOWN in number and UNKNOWN not in there:
        others = sorted((clip for clip in every if clip.word not in number), key=lambda clip: name_hash(clip.name))[:extra]
        clips += others
        classes += [number[UNKNOWN]] * len(others)
    if SILENCE in number and SILENCE not in there:
        silence = cut_silence(layout.recordings(), split, extra) if audio else _unread_silence(extra)
        clips += silence
        classes += [number[SILENCE]] * len(silence)
    if not clips:
        raise InputError(
            f"speech-commands: the split {split} must hold clips of {', '.join(labels)}, got none; choose other words"
        )
    return clips, classes


def cut_silence(recordings: Sequence[Samples], split: str, count: int) -> list[Clip]:
    """`count` one-second pieces of the background recordings, evenly spread over the part that belongs to `split`."""
    low, high = _PARTS[split]
    starts = [
        (number, start)
        for number, recording in enumerate(recordings)
        for start in range(int(low * len(recording)), int(high * len(recording)) - fe.CLIP_SAMPLES + 1, fe.HOP_SAMPLES)
    ]
    if not starts:
        raise InputError(
            "speech-commands: silence is cut from background recordings of at least 10 s, got none; "
            "add _background_noise_ to the folder or leave out the label silence"
        )
    pieces = []
    for place in np.linspace(0, len(starts) - 1, count).astype(int):
        number, start = starts[place]
        piece = recordings[number][start : start + fe.CLIP_SAMPLES]
        pieces.append(Clip(f"{SILENCE}/{number}_{start}.wav", SILENCE, f"background {number}", True, piece))
    return pieces


def part(recording: Samples, split: str) -> Samples:
    """The part of a background recording that no other split uses."""
    low, high = _PARTS[split]
    return recording[int(low * len(recording)) : int(high * len(recording))]


def _unread_silence(count: int) -> list[Clip]:
    return [Clip(f"{SILENCE}/{number}.wav", SILENCE, "background", True) for number in range(count)]


def name_hash(name: str) -> str:
    """A fixed shuffle: sort by this to draw clips in an order that has nothing to do with their names."""
    return hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()


def balanced(clips: Sequence[Clip], classes: Sequence[int], n: int) -> list[int]:
    """Positions of `n` clips, as many of each class as there are, in the order of a fixed shuffle, classes taking turns."""
    if n > len(clips):
        raise InputError(
            f"speech-commands: at most {len(clips)} calibration clips are there, got a wish for {n}; ask for fewer"
        )
    turns: dict[int, int] = {}
    order = []
    for position in sorted(range(len(clips)), key=lambda position: name_hash(clips[position].name)):
        turn = turns[classes[position]] = turns.get(classes[position], -1) + 1
        order.append((turn, classes[position], position))
    return [position for _, _, position in sorted(order)[:n]]


__all__ = ["Clip", "Layout", "balanced", "check_labels", "cut_silence", "name_hash", "part", "select"]
