"""Where sound comes from: files, folders, raw samples, and a microphone that is not there."""

from __future__ import annotations

import builtins
import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from edgetk.core.errors import InputError, MissingExtra
from edgetk.toolkit import stream_sound

SAMPLES = (np.arange(1000) - 500).astype("<i2")


def joined(sound: stream_sound.Sound) -> np.ndarray:
    return np.concatenate(list(sound.chunks))


def test_a_file_of_any_length_comes_in_chunks(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(40000, dtype=np.int16), 16000)
    sound = stream_sound.file(path)
    sizes = [len(chunk) for chunk in sound.chunks]
    assert (sound.seconds, sum(sizes), max(sizes)) == (2.5, 40000, stream_sound.CHUNK)
    with pytest.raises(InputError, match="no such file"):
        stream_sound.file(tmp_path / "none.wav")


def test_realtime_waits_for_each_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, waits = tmp_path / "short.wav", []
    soundfile.write(path, np.zeros(3200, dtype=np.int16), 16000)
    monkeypatch.setattr(stream_sound.time, "monotonic", lambda: 7.0)
    monkeypatch.setattr(stream_sound.time, "sleep", waits.append)
    list(stream_sound.file(path, realtime=True).chunks)
    assert waits == pytest.approx([0.02 * (i + 1) for i in range(10)])


def test_a_folder_gives_every_sound_below_it_by_name(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/two.WAV", "one.flac", "notes.txt"):
        if name == "notes.txt":
            (tmp_path / name).write_text("no sound")
        else:
            soundfile.write(tmp_path / name, SAMPLES, 16000, format="FLAC" if name.endswith("flac") else "WAV")
    names = [Path(sound.name).name for sound in stream_sound.folder(tmp_path)]
    assert names == ["two.WAV", "one.flac"]
    with pytest.raises(InputError, match=r"must hold .wav, .flac, .ogg files, got none; choose another folder$"):
        stream_sound.folder(tmp_path / "b" / ".." / "empty" if (tmp_path / "empty").mkdir() else tmp_path / "empty")
    with pytest.raises(InputError, match=r"must be a folder of sound files, got a file; use --wav$"):
        stream_sound.folder(tmp_path / "one.flac")


def test_raw_samples_may_come_in_pieces_of_any_size() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(7)

    assert joined(stream_sound.raw(Trickle(SAMPLES.tobytes()))) == pytest.approx(SAMPLES / 32768.0)


def test_raw_samples_must_be_whole_and_have_no_header() -> None:
    with pytest.raises(InputError, match=r"^stdin: must be 16-bit samples, got an odd number of bytes; check what writes it$"):
        joined(stream_sound.raw(io.BytesIO(SAMPLES.tobytes()[:-1])))
    with pytest.raises(InputError, match=r"^stdin: must hold 16-bit samples, got none; check what writes it$"):
        joined(stream_sound.raw(io.BytesIO()))
    with pytest.raises(
        InputError, match=r"^stdin: must be raw 16-bit samples at 16 kHz, got a WAV file; use --wav FILE or drop"
    ):
        joined(stream_sound.raw(io.BytesIO(b"RIFF" + SAMPLES.tobytes())))


def test_without_its_package_the_microphone_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    _importing(monkeypatch, ImportError("No module named 'sounddevice'"))
    text = r"^stream: --mic: needs the package sounddevice, which is not installed; run: pip install 'edgetk\[mic\]'$"
    with pytest.raises(MissingExtra, match=text):
        stream_sound.microphone()


def test_without_portaudio_the_microphone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _importing(monkeypatch, OSError("PortAudio library not found"))
    with pytest.raises(
        InputError, match=r"^stream: --mic needs the PortAudio library, got: PortAudio library not found; install"
    ):
        stream_sound.microphone()


class _PortAudioError(Exception):
    pass


def test_the_microphone_gives_blocks_and_says_what_it_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Recorder:
        def __init__(self, rate: int, size: int, channels: int, dtype: str, callback: Any) -> None:
            assert (rate, size, channels, dtype) == (16000, stream_sound.CHUNK, 1, "int16")
            callback(SAMPLES.tobytes(), len(SAMPLES), None, 0)
            callback(SAMPLES.tobytes(), len(SAMPLES), None, 2)

        def __enter__(self) -> None:
            pass

        def __exit__(self, *error: object) -> None:
            pass

    fake = types.SimpleNamespace(RawInputStream=Recorder, PortAudioError=_PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    sound = stream_sound.microphone()
    assert sound.seconds is None
    blocks = [next(sound.chunks), next(sound.chunks)]
    assert np.concatenate(blocks) == pytest.approx(np.tile(SAMPLES, 2) / 32768.0)
    assert capsys.readouterr().err == "stream: the microphone lost samples, this machine does not keep up\n"


def test_a_microphone_that_cannot_record_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_arguments: object, **_settings: object) -> None:
        raise _PortAudioError("no default device")

    fake = types.SimpleNamespace(RawInputStream=none, PortAudioError=_PortAudioError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    with pytest.raises(
        InputError, match=r"^stream: --mic needs an input device that records 16 kHz mono, got: no default device;"
    ):
        next(stream_sound.microphone().chunks)


def _importing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """`import sounddevice` fails with `error`."""
    real = builtins.__import__

    def load(name: str, *arguments: Any, **settings: Any) -> Any:
        if name == "sounddevice":
            raise error
        return real(name, *arguments, **settings)

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(builtins, "__import__", load)
