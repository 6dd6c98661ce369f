"""The fixed-point front end beside the float one: on real clips, on signals that are hard for it, in pieces, on a board."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from c_graphs import needs, needs_cc
from emulated import front_end_run

from edgetk.core import registry
from edgetk.core.errors import PreconditionError
from edgetk.export.c import front
from edgetk.tasks.speech.front_end import FRONT_END, LOG_FLOOR, MEAN, STD_TIMES_2
from edgetk.tasks.speech.log_mel import LogMel

#: normalised features of C and Python differ by less on speech
BOUND = 5e-3

Frames = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("front")
    for name, text in front.files(FRONT_END).items():
        (made / name).write_text(text)
    return made


@pytest.fixture(scope="module")
def library(folder: Path) -> ctypes.CDLL:
    strict = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsanitize=undefined", "-fno-sanitize-recover"]
    subprocess.run(
        ["cc", *strict, "-fPIC", "-shared", "-o", str(folder / "front.so"), str(folder / "edgetk_log_mel.c")], check=True
    )
    return ctypes.CDLL(str(folder / "front.so"))


@pytest.fixture(scope="module")
def frames(library: ctypes.CDLL) -> Frames:
    def run(samples: np.ndarray) -> np.ndarray:
        out = np.zeros((1 + (len(samples) - 400) // 160, 128), np.float32)
        for i, row in enumerate(out):
            window = np.ascontiguousarray(samples[160 * i : 160 * i + 400])
            library.edgetk_log_mel_frame(ctypes.c_void_p(window.ctypes.data), ctypes.c_void_p(row.ctypes.data))
        return out

    return run


def python(samples: np.ndarray) -> np.ndarray:
    log_mel = LogMel()
    waves = torch.from_numpy(samples.astype(np.float32) / 32768).unsqueeze(0)
    made: np.ndarray = log_mel.normalise(log_mel.log_mel(waves))[0].numpy()
    return made


@needs_cc
def test_real_clips(frames: Frames) -> None:
    samples = registry.load("task", "speech-commands").open(None, None).waves("test").samples[::8].numpy()
    assert len(samples) == 20
    differences = np.stack([np.abs(frames(clip) - python(clip)) for clip in samples])
    assert differences.max() < BOUND
    assert differences.mean() < 1e-5


@needs_cc
@pytest.mark.parametrize("loudness", [1, 30, 1000, 32767])
def test_noise_of_any_loudness(loudness: int, frames: Frames) -> None:
    noise = np.random.default_rng(loudness).integers(-loudness, loudness + 1, 4000).astype(np.int16)
    np.testing.assert_allclose(frames(noise), python(noise), rtol=0, atol=2e-4)


@needs_cc
def test_silence_and_a_constant_are_the_floor(frames: Frames) -> None:
    floor = (np.log(LOG_FLOOR) - MEAN) / STD_TIMES_2
    for level in (0, 12345, -32768):
        np.testing.assert_allclose(frames(np.full(720, level, np.int16)), floor, rtol=0, atol=1e-6)


@needs_cc
def test_the_loudest_and_the_purest_sounds_do_not_overflow(frames: Frames) -> None:
    """Bands far below the loudest one lie at the end of 16-bit sound, where the bound is wider."""
    time = np.arange(4000)
    for sound in (32767 * np.sin(0.3 * time), 32767 * np.sign(np.sin(0.05 * time)), np.where(time % 2, 32767, -32768)):
        np.testing.assert_allclose(frames(sound.astype(np.int16)), python(sound.astype(np.int16)), rtol=0, atol=0.05)


class State(ctypes.Structure):
    _fields_ = (("samples", ctypes.c_int16 * 400), ("count", ctypes.c_int32))


@needs_cc
def test_sound_in_pieces_gives_the_same_frames(library: ctypes.CDLL, frames: Frames) -> None:
    rng = np.random.default_rng(2)
    sound = rng.integers(-3000, 3000, 3000).astype(np.int16)
    state, made, at = State(), [], 0
    while at < len(sound):
        piece = np.ascontiguousarray(sound[at : at + int(rng.integers(1, 500))])
        done = 0
        while done < len(piece):
            row, ready = np.zeros(128, np.float32), ctypes.c_int32()
            done += library.edgetk_log_mel_push(
                ctypes.byref(state), ctypes.c_void_p(piece[done:].ctypes.data), ctypes.c_int32(len(piece) - done),
                ctypes.c_void_p(row.ctypes.data), ctypes.byref(ready),
            )  # fmt: skip
            if ready.value:
                made.append(row)
        at += len(piece)
    np.testing.assert_array_equal(made, frames(sound))


@needs_cc
@needs("arm-none-eabi-gcc", "qemu-system-arm")
def test_a_microcontroller_computes_the_same_features(folder: Path, frames: Frames) -> None:
    sound = np.random.default_rng(4).integers(-9000, 9000, 3200).astype(np.int16)
    sound.tofile(folder / "sound.bin")
    assert front_end_run("cortex-m4", folder) < 100_000
    found = np.fromfile(folder / "features.bin", np.float32).reshape(-1, 128)
    np.testing.assert_array_equal(found, frames(sound)[: len(found)])
    assert len(found) == 18


def test_other_features_are_refused() -> None:
    assert not front.fits({**FRONT_END, "n_mels": 40})
    with pytest.raises(PreconditionError, match=r"c: features must be Kaldi's log-mel of 16 kHz, got .*; compute them outside"):
        front.files({})


def test_constants_take_the_bytes_that_are_said() -> None:
    declared = [line for line in front.data(FRONT_END).splitlines() if line.startswith("static const")]
    sizes = {"uint8_t": 1, "int32_t": 4, "uint32_t": 4}
    total = sum(sizes[line.split()[2]] * int(line.split("[")[1].split("]")[0]) for line in declared)
    assert total == front.constant_bytes()
