"""Reading one sound file: what is accepted, and the text for everything else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from edgetk.core.errors import InputError
from edgetk.tasks.speech.audio import decode
from edgetk.tasks.speech.log_mel import LogMel
from edgetk.tasks.speech_commands import TASK

SECOND = (0.3 * np.sin(np.arange(16000) / 7)).astype(np.float32)


def wav(folder: Path, samples: np.ndarray, rate: int = 16000, name: str = "clip.wav", subtype: str = "FLOAT") -> Path:
    path = folder / name
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def test_reads_features(tmp_path: Path) -> None:
    import torch

    features = TASK.read(wav(tmp_path, SECOND))
    assert features.shape == (1, 128, 128)
    assert torch.equal(features, LogMel()(torch.from_numpy(SECOND)[None]))
    assert not features.is_inference()


def test_flac_and_short_clips(tmp_path: Path) -> None:
    pcm = (SECOND * 32767).astype(np.int16)
    padded = np.concatenate((pcm[:9000], np.zeros(7000, np.int16)))
    short = TASK.read(wav(tmp_path, pcm[:9000], name="a.flac", subtype="PCM_16"))
    assert (short - TASK.read(wav(tmp_path, padded, subtype="PCM_16"))).abs().max() == 0


def fails(path: Path, text: str) -> None:
    with pytest.raises(InputError, match=text) as caught:
        TASK.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    fails(tmp_path / "none.wav", r"none.wav: must be a sound file, got no such file; check the path")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.touch()
    fails(path, "must be a sound file, got an empty file; record it again")


def test_no_samples(tmp_path: Path) -> None:
    fails(wav(tmp_path, SECOND[:0]), "must hold sound, got 0 samples; record it again")


def test_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.write_text("hello " * 100)
    fails(path, "must be a sound file that libsndfile reads, got: Format not recognised; convert it to WAV")


def test_stereo(tmp_path: Path) -> None:
    fails(wav(tmp_path, np.stack((SECOND, SECOND), 1)), "must be mono, got 2 channels; mix it down first")


def test_rate(tmp_path: Path) -> None:
    fails(wav(tmp_path, SECOND, 44100), "must be sampled at 16000 Hz, got 44100 Hz; resample it first")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path: Path, value: float) -> None:
    bad = SECOND.copy()
    bad[7] = value
    fails(wav(tmp_path, bad), "must hold finite samples, got 1 that are NaN or infinite; export it again")


def test_too_long(tmp_path: Path) -> None:
    text = "must last at most 1 s, got 1.50 s; cut it, or feed it to the step form as a stream"
    fails(wav(tmp_path, np.tile(SECOND, 2)[:24000]), text)


@pytest.mark.parametrize("keep", [0.9, 0.3, 0.002])
def test_truncated_wav(tmp_path: Path, keep: float) -> None:
    path = wav(tmp_path, SECOND, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    fails(path, "truncated file; copy it again")


@pytest.mark.parametrize("keep", [0.9, 0.3])
def test_truncated_flac(tmp_path: Path, keep: float) -> None:
    path = wav(tmp_path, SECOND, name="a.flac", subtype="PCM_16")
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    fails(path, "must be")


def test_decode_names_the_clip(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"yes/a.wav: must be a sound file, got .*; fetch the data set again"):
        decode(b"nothing", "yes/a.wav")
    with pytest.raises(InputError, match=r"yes/a.wav: must be mono at 16000 Hz, got 8000 Hz with 1 channels; convert it"):
        decode(wav(tmp_path, SECOND, 8000).read_bytes(), "yes/a.wav")
    with pytest.raises(InputError, match=r"got 16000 Hz with 2 channels; convert it"):
        decode(wav(tmp_path, np.stack((SECOND, SECOND), 1)).read_bytes(), "yes/a.wav")
