"""Sound files to samples: one input file with every check, or many encoded clips of a data set at once."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetk.core.errors import InputError
from edgetk.tasks.speech import front_end as fe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetk.tasks.speech.clips import Clip

    Samples = NDArray[np.int16]


def read_clip(path: Path) -> NDArray[np.float32]:
    """The samples of one mono 16 kHz file of at most a second, in [-1, 1], zero-padded: (16000,) float32.

    Raises InputError in one sentence for everything else.
    """
    samples = read_sound(path)
    if len(samples) > fe.CLIP_SAMPLES:
        seconds = len(samples) / fe.SAMPLE_RATE
        raise InputError(f"{path}: must last at most 1 s, got {seconds:.2f} s; cut it, or feed it to the step form as a stream")
    return np.pad(samples, (0, fe.CLIP_SAMPLES - len(samples)))


def read_sound(path: Path) -> NDArray[np.float32]:
    """The samples of one mono 16 kHz file of any length, in [-1, 1]: (S,) float32.

    Reads what libsndfile reads (WAV, FLAC, Ogg, …). Raises InputError in one sentence for everything else.
    """
    import soundfile

    if not path.is_file():
        raise InputError(f"{path}: must be a sound file, got {'a folder' if path.is_dir() else 'no such file'}; check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: must be a sound file, got an empty file; record it again")
    try:
        with soundfile.SoundFile(path) as file:
            rate, channels, declared = file.samplerate, file.channels, file.frames
            samples: NDArray[np.float32] = file.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = str(error).rpartition(": ")[2].rstrip(".")
        raise InputError(f"{path}: must be a sound file that libsndfile reads, got: {reason}; convert it to WAV") from error
    if channels != 1:
        raise InputError(f"{path}: must be mono, got {channels} channels; mix it down first")
    if rate != fe.SAMPLE_RATE:
        raise InputError(f"{path}: must be sampled at {fe.SAMPLE_RATE} Hz, got {rate} Hz; resample it first")
    if len(samples) == 0:
        raise InputError(f"{path}: must hold sound, got 0 samples; record it again")
    missing = declared - len(samples) or _missing_wav_bytes(path)
    if missing:
        raise InputError(f"{path}: must be complete, got a truncated file; copy it again")
    if not np.isfinite(samples).all():
        bad = int((~np.isfinite(samples)).sum())
        raise InputError(f"{path}: must hold finite samples, got {bad} that are NaN or infinite; export it again")
    mono: NDArray[np.float32] = samples[:, 0]
    return mono


def _missing_wav_bytes(path: Path) -> int:
    """How many bytes the data chunk of a RIFF file promises beyond its end; libsndfile cuts such files in silence."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        size = path.stat().st_size
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                return max(0, file.tell() + length - size)
            file.seek(length + length % 2, io.SEEK_CUR)
    return 0


def decode(encoded: bytes, name: str) -> Samples:
    """One clip of a data set as int16, any length. Raises InputError naming the clip."""
    import soundfile

    try:
        samples, rate = soundfile.read(io.BytesIO(encoded), dtype="int16")
    except soundfile.LibsndfileError as error:
        raise InputError(f"{name}: must be a sound file, got {error}; fetch the data set again") from error
    if rate != fe.SAMPLE_RATE or samples.ndim != 1:
        shape = f"{rate} Hz with {samples.shape[1] if samples.ndim == 2 else 1} channels"
        raise InputError(f"{name}: must be mono at {fe.SAMPLE_RATE} Hz, got {shape}; convert it")
    return np.asarray(samples, dtype=np.int16)


def clip(samples: Samples) -> Samples:
    """Zero-padded or cut to one second: (16000,) int16."""
    samples = samples[: fe.CLIP_SAMPLES]
    return np.pad(samples, (0, fe.CLIP_SAMPLES - len(samples)))


def decode_clips(clips: Sequence[Clip]) -> Samples:
    """Many clips, one second each: (N, 16000) int16.

    Threads do: libsndfile works outside the interpreter's lock.
    """
    decoded = np.zeros((len(clips), fe.CLIP_SAMPLES), dtype=np.int16)

    def fill(row: int) -> None:
        source = clips[row].encoded
        if isinstance(source, Path):
            source = source.read_bytes()
        if source is None:
            raise ValueError(f"{clips[row].name} was indexed without its sound")
        decoded[row] = clip(decode(source, clips[row].name) if isinstance(source, bytes) else source)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for _ in pool.map(fill, range(len(clips))):
            pass
    return decoded


__all__ = ["clip", "decode", "decode_clips", "read_clip", "read_sound"]
