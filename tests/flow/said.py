"""What tests of the command line share: the sentence of an error, and made-up sound files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import soundfile


def sentence(done: Any) -> str:
    """The last line on stderr of a call that failed: no traceback, nothing on stdout."""
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "fault of edgetk" not in done.stderr
    return done.stderr.splitlines()[-1]


def tone(n: int = 16000, channels: int = 1) -> np.ndarray:
    wave = 0.1 * np.sin(np.arange(n) / 10).astype(np.float32)
    return np.stack([wave] * channels, axis=1)


def sound(path: Path, samples: np.ndarray, rate: int = 16000) -> None:
    soundfile.write(path, samples, rate, subtype="FLOAT")
