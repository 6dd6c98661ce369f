"""Long streams composed of real clips and real background noise, with the truth of what is said when.

Background: pieces of the recordings, one after another, each at a level of its own; only that part of each recording is
used that no other split uses. Words: clips of one split in random order, in random places that do not overlap, each scaled to
a signal-to-noise ratio over the background it falls on (of root mean squares over the clip, as in `augment`). Everything
follows from the seed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgetk.core.errors import InputError, UsageError, closest
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.clips import part
from edgetk.tasks.speech.words import SILENCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetk.tasks.speech.audio import Samples
    from edgetk.tasks.speech.waves import Waves

    Sound = NDArray[np.float32]

_RATE: Final = fe.SAMPLE_RATE
_FULL_SCALE: Final = 32768.0
#: fade at both ends of pieces and clips, so that joints do not click: 10 ms
_FADE: Final = 160
#: root mean square below which a sound counts as digital silence and is not blown up
_SILENT: Final = 1e-4


@dataclass(frozen=True)
class Scene:
    """What is composed. Ranges are drawn uniformly.

    The signal-to-noise ratios are those of the training recipe `robust`; with the levels of the background they give words
    the levels that the data set's own clips have, about -45 to -10 dB of full scale.
    """

    minutes: float = 20.0
    #: how often each word is said
    counts: Mapping[str, int] | None = None
    #: signal-to-noise ratio of a word
    snr_db: tuple[float, float] = (5.0, 30.0)
    #: level of the background, in dB of full scale
    background_db: tuple[float, float] = (-50.0, -35.0)
    #: length of one piece of background
    piece_s: tuple[float, float] = (2.0, 6.0)
    #: shortest pause between two clips
    gap_s: float = 0.5

    @classmethod
    def around(cls, keyword: str, labels: Sequence[str], minutes: float = 20.0, said: int = 50, others: int = 150) -> Scene:
        """`keyword` said so often, and the other labels together as often as `others` says, in equal shares.

        Raises UsageError for a keyword that is no label.
        """
        if keyword not in labels:
            raise UsageError(f"stream: a keyword must be a label of the model, got {keyword!r}; {closest(keyword, labels)}")
        rest = [label for label in labels if label not in (keyword, SILENCE)]
        shares = {label: others // len(rest) + (i < others % len(rest)) for i, label in enumerate(rest)}
        return cls(minutes, {keyword: said, **shares})

    def to_json(self) -> dict[str, Any]:
        return {
            "minutes": self.minutes,
            "counts": dict(self.counts or {}),
            "snr_db": list(self.snr_db),
            "background_db": list(self.background_db),
            "piece_s": list(self.piece_s),
            "gap_s": self.gap_s,
        }


@dataclass(frozen=True)
class Occurrence:
    """A clip of `word` that begins at `start_s` and lasts a second; the word is somewhere in it. `clip` is its name."""

    start_s: float
    word: str
    clip: str
    snr_db: float


@dataclass(frozen=True)
class Composed:
    """A stream: samples (S,) int16 at 16 kHz, what is said in it, and what its background is made of."""

    samples: Samples
    occurrences: tuple[Occurrence, ...]
    background: str


def compose(scene: Scene, clips: Waves, recordings: Sequence[Samples], split: str, seed: int) -> Composed:
    """The stream of `scene` from clips of `split` (those of the official lists, where there are lists); one for each seed.

    Where there are no recordings the background is white noise, and `background` says so. Raises InputError for words
    without clips and UsageError where more is said than fits.
    """
    counts = {word: count for word, count in (scene.counts or {}).items() if count}
    length, said = round(60 * scene.minutes * _RATE), sum(counts.values())
    gap = round(scene.gap_s * _RATE)
    free = length - said * fe.CLIP_SAMPLES - (said + 1) * gap
    if free < 0:
        raise UsageError(
            f"stream: {said} clips of a second with pauses of {scene.gap_s:g} s must fit, got {scene.minutes:g} minutes; "
            "make it longer, or say less"
        )
    rng = np.random.default_rng(seed)
    background, levels, title = _background(scene, recordings, split, length, rng)
    rows = _rows(clips, counts, split, rng)
    starts = np.sort(rng.integers(0, free + 1, said)) + gap + np.arange(said) * (fe.CLIP_SAMPLES + gap)
    sound, found = background, []
    for row, start in zip(rows, starts.tolist(), strict=True):
        snr_db = float(rng.uniform(*scene.snr_db))
        clip = _faded(clips.samples[row].numpy().astype(np.float32) / _FULL_SCALE)
        here = float(np.sqrt(np.mean(levels[start // _RATE : (start + fe.CLIP_SAMPLES) // _RATE + 1] ** 2)))
        sound[start : start + fe.CLIP_SAMPLES] += clip * (here * 10 ** (snr_db / 20) / max(_rms(clip), _SILENT))
        found.append(Occurrence(start / _RATE, clips.words[int(clips.labels[row])], clips.names[row], snr_db))
    samples = np.clip(np.round(sound * _FULL_SCALE), -_FULL_SCALE, _FULL_SCALE - 1).astype(np.int16)
    return Composed(samples, tuple(found), title)


def _background(
    scene: Scene, recordings: Sequence[Samples], split: str, length: int, rng: np.random.Generator
) -> tuple[Sound, NDArray[np.float64], str]:
    """Background of `length` samples, its root mean square per second, and what it is."""
    pieces = [piece.astype(np.float32) / _FULL_SCALE for piece in (part(recording, split) for recording in recordings)]
    shortest = round(scene.piece_s[0] * _RATE)
    pieces = [piece for piece in pieces if len(piece) >= shortest]
    sound = np.zeros(length, dtype=np.float32)
    at = 0
    while at < length:
        wanted = round(float(rng.uniform(*scene.piece_s)) * _RATE)
        if pieces:
            source = pieces[int(rng.integers(len(pieces)))]
            wanted = min(wanted, len(source))
            start = int(rng.integers(len(source) - wanted + 1))
            piece = source[start : start + wanted]
        else:
            piece = rng.standard_normal(wanted, dtype=np.float32)
        level = 10 ** (float(rng.uniform(*scene.background_db)) / 20)
        piece = _faded(piece * (level / max(_rms(piece), _SILENT)))[: length - at]
        sound[at : at + len(piece)] += piece
        at += wanted - _FADE
    if pieces:
        title = f"{len(pieces)} recordings, {sum(map(len, pieces)) / _RATE:.0f} s that only the split {split} uses"
    else:
        title = "white noise: the data hold no recordings of background"
    seconds = np.pad(sound, (0, -length % _RATE)).reshape(-1, _RATE)
    return sound, np.sqrt(np.mean(seconds.astype(np.float64) ** 2, axis=1)), title


def _rows(clips: Waves, counts: Mapping[str, int], split: str, rng: np.random.Generator) -> list[int]:
    """Rows of `clips` in the order in which they are said: all clips of a word before any is said again."""
    chosen: list[int] = []
    listed = np.where(clips.official.numpy(), clips.labels.numpy(), -1)
    for word, count in counts.items():
        own = np.flatnonzero(listed == (clips.words.index(word) if word in clips.words else len(clips.words)))
        if not len(own):
            raise InputError(f"stream: the split {split} must hold clips of {word}, got none; choose other words or other data")
        while count > 0:
            chosen += rng.permutation(own)[:count].tolist()
            count -= len(own)
    return [chosen[i] for i in rng.permutation(len(chosen))]


def _faded(sound: Sound) -> Sound:
    ramp = np.linspace(0.0, 1.0, _FADE, dtype=np.float32)
    sound = sound.copy()
    sound[:_FADE] *= ramp
    sound[-_FADE:] *= ramp[::-1]
    return sound


def _rms(sound: Sound) -> float:
    return float(np.sqrt(np.mean(sound.astype(np.float64) ** 2)))


__all__ = ["Composed", "Occurrence", "Scene", "compose"]
