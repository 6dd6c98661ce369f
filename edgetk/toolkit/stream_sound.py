"""Where a stream's sound comes from: a file, a folder of files, raw samples on stdin, the microphone."""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import numpy as np

from edgetk.core.errors import InputError, MissingExtra
from edgetk.tasks.speech import front_end as fe
from edgetk.tasks.speech.audio import read_sound

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Samples = NDArray[np.float32]

#: samples of one chunk: 20 ms
CHUNK: Final = 2 * fe.HOP_SAMPLES
_SOUNDS: Final = (".wav", ".flac", ".ogg")


@dataclass(frozen=True)
class Sound:
    """One continuous sound: float32 chunks in [-1, 1]. `seconds` is its length, None where nobody knows the end."""

    name: str
    chunks: Iterator[Samples]
    seconds: float | None = None


def file(path: Path, realtime: bool = False) -> Sound:
    """A sound file as libsndfile reads it; with `realtime` no faster than it sounds. Raises InputError."""
    samples = read_sound(path)
    return Sound(str(path), _cut(samples, realtime), len(samples) / fe.SAMPLE_RATE)


def folder(path: Path, realtime: bool = False) -> Iterator[Sound]:
    """Every sound file in a folder and below, each a stream of its own, by name. Raises InputError where there is none."""
    if not path.is_dir():
        raise InputError(
            f"{path}: must be a folder of sound files, got {'a file' if path.exists() else 'no such folder'}; use --wav"
        )
    paths = sorted(p for p in path.rglob("*") if p.suffix.lower() in _SOUNDS and p.is_file())
    if not paths:
        raise InputError(f"{path}: must hold {', '.join(_SOUNDS)} files, got none; choose another folder")
    return (file(p, realtime) for p in paths)


def raw(stream: BinaryIO, name: str = "stdin") -> Sound:
    """Signed 16-bit little-endian samples, 16 kHz mono, until the end. Raises InputError for a WAV file's header or nothing."""
    return Sound(name, _decoded(stream, name))


def microphone() -> Sound:
    """The default input device until the listener stops. Raises MissingExtra, or InputError where there is no device."""
    try:
        import sounddevice
    except ImportError as error:
        raise MissingExtra("stream: --mic", "sounddevice", "mic") from error
    except OSError as error:  # the package is there, the PortAudio library is not
        raise InputError(
            f"stream: --mic needs the PortAudio library, got: {error}; install it (libportaudio2) or pipe samples to stdin"
        ) from error
    return Sound("microphone", _recorded(sounddevice))


def _cut(samples: Samples, realtime: bool) -> Iterator[Samples]:
    start = time.monotonic()
    for at in range(0, len(samples), CHUNK):
        chunk = samples[at : at + CHUNK]
        if realtime:
            time.sleep(max(0.0, start + (at + len(chunk)) / fe.SAMPLE_RATE - time.monotonic()))
        yield chunk


def _decoded(stream: BinaryIO, name: str) -> Iterator[Samples]:
    rest, first = b"", True
    while block := stream.read(2 * CHUNK):
        if first and block[:4] == b"RIFF":
            raise InputError(f"{name}: must be raw 16-bit samples at 16 kHz, got a WAV file; use --wav FILE or drop its header")
        first = False
        block = rest + block
        whole = len(block) // 2 * 2
        rest = block[whole:]
        yield np.frombuffer(block[:whole], dtype="<i2").astype(np.float32) / 32768.0
    if first:
        raise InputError(f"{name}: must hold 16-bit samples, got none; check what writes it")
    if rest:
        raise InputError(f"{name}: must be 16-bit samples, got an odd number of bytes; check what writes it")


def _recorded(sounddevice: Any) -> Iterator[Samples]:
    """Blocks from PortAudio's thread; a block that was lost is said on stderr, not passed over."""
    blocks: queue.SimpleQueue[tuple[bytes, bool]] = queue.SimpleQueue()

    def keep(block: Any, _frames: int, _time: Any, status: Any) -> None:
        blocks.put((bytes(block), bool(status)))

    try:
        recorder = sounddevice.RawInputStream(fe.SAMPLE_RATE, CHUNK, channels=1, dtype="int16", callback=keep)
    except sounddevice.PortAudioError as error:
        raise InputError(
            f"stream: --mic needs an input device that records 16 kHz mono, got: {error}; plug one in or pipe samples to stdin"
        ) from error
    with recorder:
        while True:
            block, lost = blocks.get()
            if lost:
                print("stream: the microphone lost samples, this machine does not keep up", file=sys.stderr)
            yield np.frombuffer(block, dtype="<i2").astype(np.float32) / 32768.0


__all__ = ["CHUNK", "Sound", "file", "folder", "microphone", "raw"]
