"""Waveform to normalised log-mel frames, for whole batches on any device.

Kaldi's filter banks (Povey et al. 2011) with the settings of LMUFormer (arXiv:2402.04882): constants in `front_end`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgetk.tasks.speech import front_end as fe


def mel_filters() -> Tensor:
    """Kaldi's triangles on the mel scale, 20 Hz to 8 kHz: (257 FFT bins, 128 bands) float32.

    Neighbouring triangles share their feet; the Nyquist bin has no weight. At this resolution one band holds no bin at all
    and is constant, as in the published features.
    """

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * torch.log1p(hz / 700.0)

    low, high = (float(mel(torch.tensor(hz, dtype=torch.float64))) for hz in (fe.LOW_HZ, fe.HIGH_HZ))
    feet = torch.linspace(low, high, fe.N_MELS + 2, dtype=torch.float64)
    step = feet[1] - feet[0]
    bins = mel(torch.arange(fe.N_FFT // 2, dtype=torch.float64) * fe.SAMPLE_RATE / fe.N_FFT).unsqueeze(1)
    rise, fall = (bins - feet[:-2]) / step, (feet[2:] - bins) / step
    triangles = torch.minimum(rise, fall).clamp_min(0.0)
    return nn.functional.pad(triangles, (0, 0, 0, 1)).float()


class LogMel(nn.Module):
    """waveforms (B, 16000) float32 in [-1, 1] -> features (B, 128 frames, 128 bands), normalised.

    The published code also subtracts the clip's mean first. That changes nothing here: every frame loses its own mean before
    pre-emphasis, so a constant offset is gone either way (a test holds this), and the front end stays causal.
    Runs in float32 whatever autocast is on. Nothing here waits for the device, so that a CUDA graph can hold it (call it once
    before capture, for the FFT's plan). Its buffers are constants and stay out of the state dict.
    """

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(fe.WINDOW_SAMPLES, periodic=False), persistent=False)
        self.register_buffer("filters", mel_filters(), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        return self.normalise(self.pad(self.log_mel(waves)))

    def log_mel(self, waves: Tensor) -> Tensor:
        """(B, S) -> (B, 1 + (S - 400) // 160, 128), natural logarithm of the power; no padding at the edges."""
        with torch.autocast(waves.device.type, enabled=False):
            frames = waves.float().unfold(-1, fe.WINDOW_SAMPLES, fe.HOP_SAMPLES)
            frames = frames - frames.mean(-1, keepdim=True)
            # the first sample of a frame stands in for the one before it
            before = torch.cat((frames[..., :1], frames[..., :-1]), -1)
            spectrum = torch.fft.rfft((frames - fe.PREEMPHASIS * before) * self.window, n=fe.N_FFT)
            power = spectrum.real.square() + spectrum.imag.square()
            energy: Tensor = power @ self.filters
            return energy.clamp_min(fe.LOG_FLOOR).log()

    @staticmethod
    def pad(frames: Tensor) -> Tensor:
        """Frames (B, n, 128) filled up with 0.0, or cut, to 128."""
        return nn.functional.pad(frames, (0, 0, 0, fe.FRAMES - frames.shape[-2]), value=fe.PAD_LOG_MEL)

    @staticmethod
    def normalise(frames: Tensor) -> Tensor:
        """(x + 6.845978) / (2 · 5.5654526), the data set's mean and twice its deviation."""
        return (frames - fe.MEAN) / fe.STD_TIMES_2


class StreamingLogMel:
    """The same features while the sound arrives: push samples, get the frames they complete.

    A frame is complete 400 samples after its start and one follows every 160, so it adds 25 ms of latency at most. It holds
    what the next frame still needs, fewer than 400 samples. Frames that only fill a clip up to 128 are not part of a stream:
    `front_end.PAD_NORMALISED` is their value.
    """

    def __init__(self, log_mel: LogMel | None = None) -> None:
        self._log_mel = log_mel or LogMel()
        self._rest = torch.empty(0)

    def push(self, samples: Tensor) -> Tensor:
        """samples (n,) float32 in [-1, 1], any n -> the completed frames (k, 128), normalised, k may be 0."""
        self._rest = torch.cat((self._rest.to(samples.device), samples.float()))
        count = max(0, 1 + math.floor((len(self._rest) - fe.WINDOW_SAMPLES) / fe.HOP_SAMPLES))
        if count == 0:
            return samples.new_empty((0, fe.N_MELS), dtype=torch.float32)
        used = self._rest[: (count - 1) * fe.HOP_SAMPLES + fe.WINDOW_SAMPLES]
        self._rest = self._rest[count * fe.HOP_SAMPLES :].clone()
        return self._log_mel.normalise(self._log_mel.log_mel(used.unsqueeze(0)))[0]

    def reset(self) -> None:
        """Forget what was heard: the next sample starts a new stream."""
        self._rest = torch.empty(0)


__all__ = ["LogMel", "StreamingLogMel", "mel_filters"]
