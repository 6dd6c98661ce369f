"""Constants of the speech front end: what another runtime needs to compute the same features.

Source: LMUFormer (arXiv:2402.04882) and its published code, whose features are Kaldi's log-mel filter banks.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any, Final

SAMPLE_RATE: Final = 16000
#: samples of one clip: one second
CLIP_SAMPLES: Final = 16000
WINDOW_SAMPLES: Final = 400
HOP_SAMPLES: Final = 160
N_FFT: Final = 512
N_MELS: Final = 128
LOW_HZ: Final = 20.0
HIGH_HZ: Final = 8000.0
PREEMPHASIS: Final = 0.97
#: the smallest power that is told from silence (float32 machine epsilon, as Kaldi has it)
LOG_FLOOR: Final = 1.1920929e-7
MEAN: Final = -6.845978
STD_TIMES_2: Final = 2 * 5.5654526
#: frames of real sound in one clip, and frames the network sees
CLIP_FRAMES: Final = 1 + (CLIP_SAMPLES - WINDOW_SAMPLES) // HOP_SAMPLES
FRAMES: Final = 128
#: what the missing frames hold, in log-mel and after normalisation
PAD_LOG_MEL: Final = 0.0
PAD_NORMALISED: Final = (PAD_LOG_MEL - MEAN) / STD_TIMES_2

FRONT_END: Final = MappingProxyType[str, Any](
    {
        "kind": "kaldi-log-mel",
        "sample_rate": SAMPLE_RATE,
        "clip_samples": CLIP_SAMPLES,
        "window_samples": WINDOW_SAMPLES,
        "hop_samples": HOP_SAMPLES,
        "n_fft": N_FFT,
        "n_mels": N_MELS,
        "low_hz": LOW_HZ,
        "high_hz": HIGH_HZ,
        "mel_scale": "1127 ln(1 + f / 700)",
        "preemphasis": PREEMPHASIS,
        "remove_dc": "per frame, before pre-emphasis",
        "window": "hann-symmetric",
        "spectrum": "power",
        "log": "natural",
        "log_floor": LOG_FLOOR,
        "mean": MEAN,
        "std_times_2": STD_TIMES_2,
        "clip_frames": CLIP_FRAMES,
        "frames": FRAMES,
        "pad_log_mel": PAD_LOG_MEL,
        "pad_normalised": PAD_NORMALISED,
        "period_s": HOP_SAMPLES / SAMPLE_RATE,
    }
)

__all__ = ["FRONT_END"]
